package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Arch is a compute capability, such as 7.5.
type Arch struct{ major, minor int }

func (a Arch) String() string { return fmt.Sprintf("%d.%d", a.major, a.minor) }

func (a Arch) less(b Arch) bool {
	return a.major < b.major || (a.major == b.major && a.minor < b.minor)
}

// runsOn says whether code for this arch runs on a card: same major, minor not above (CUDA compatibility guide).
func (a Arch) runsOn(card Arch) bool { return a.major == card.major && a.minor <= card.minor }

func parseArch(text string) (Arch, error) {
	major, minor, found := strings.Cut(text, ".")
	first, err1 := strconv.Atoi(major)
	second, err2 := strconv.Atoi(minor)
	if !found || err1 != nil || err2 != nil || first < 0 || second < 0 || first > 99 || second > 99 {
		return Arch{}, fmt.Errorf("%q is no compute capability", printable(text, 40))
	}
	return Arch{first, second}, nil
}

func parseArchs(texts []string) ([]Arch, error) {
	out := make([]Arch, 0, len(texts))
	for _, text := range texts {
		arch, err := parseArch(text)
		if err != nil {
			return nil, err
		}
		out = append(out, arch)
	}
	return out, nil
}

// sortedArchs are the archs of cards, each once, the oldest first.
func sortedArchs(archs []Arch) []Arch {
	seen, out := map[Arch]bool{}, []Arch{}
	for _, arch := range archs {
		if !seen[arch] {
			seen[arch] = true
			out = append(out, arch)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].less(out[j]) })
	return out
}

// Driver is a Linux driver's version: 535.104.05 is {535, 104, 5}.
type Driver []int

func (d Driver) String() string {
	parts := []string{strconv.Itoa(d[0])}
	for _, part := range d[1:] {
		parts = append(parts, fmt.Sprintf("%02d", part))
	}
	return strings.Join(parts, ".")
}

// text is the version; "" where none is known.
func (d Driver) text() string {
	if len(d) == 0 {
		return ""
	}
	return d.String()
}

// compare is as Python compares tuples.
func (d Driver) compare(other Driver) int {
	for at := 0; at < len(d) && at < len(other); at++ {
		if d[at] != other[at] {
			if d[at] < other[at] {
				return -1
			}
			return 1
		}
	}
	return len(d) - len(other)
}

// parseDriver reads "535.104.05", "535.104" or "535".
func parseDriver(text string) (Driver, error) {
	text = strings.TrimSpace(text)
	parts := strings.Split(text, ".")
	out := Driver{}
	for at, part := range parts {
		number, err := strconv.Atoi(part)
		wrong := len(part) > 3 || (at == 0 && len(part) != 3) || strings.ContainsAny(part, "+-")
		if err != nil || wrong || len(parts) > 3 {
			return nil, &Failure{
				Exit: exitUsage, What: fmt.Sprintf("%q is not a driver version", printable(text, 40)),
				Cause: "expected a form such as 535.104.05 or 535",
				Do:    "nvidia-smi --query-gpu=driver_version --format=csv,noheader",
			}
		}
		out = append(out, number)
	}
	return out, nil
}

func isDigit(letter byte) bool { return letter >= '0' && letter <= '9' }

func digitsAt(text string, at int) int {
	count := 0
	for at+count < len(text) && isDigit(text[at+count]) {
		count++
	}
	return count
}

// readDriver finds a driver's version in a text ("NVRM version: … Kernel Module  550.54.14  …"); nil where there is none.
func readDriver(text string) Driver {
	for at := 0; at < len(text); at++ {
		if !isDigit(text[at]) || (at > 0 && (isDigit(text[at-1]) || text[at-1] == '.')) || digitsAt(text, at) != 3 {
			continue
		}
		end := at + 3
		for groups := 0; groups < 2 && end < len(text) && text[end] == '.'; groups++ {
			count := digitsAt(text, end+1)
			if count < 1 || count > 3 {
				break
			}
			end += 1 + count
		}
		if driver, err := parseDriver(text[at:end]); err == nil {
			return driver
		}
	}
	return nil
}

// suffices says whether a driver is new enough for an image that needs `minimum` (nil: no driver).
func suffices(driver Driver, minimum *string) bool {
	if minimum == nil {
		return true
	}
	least, err := parseDriver(*minimum)
	if err != nil {
		return false
	}
	newest := append(Driver{}, driver...)
	if len(newest) < 3 {
		newest = append(newest, 999)
	}
	return newest.compare(least) >= 0
}

// older says whether an image runs on drivers that are too old for another.
func older(one, than *string) bool {
	if one == nil || than == nil {
		return false
	}
	first, err1 := parseDriver(*one)
	second, err2 := parseDriver(*than)
	return err1 == nil && err2 == nil && first.compare(second) < 0
}

// branches are the first and the last driver branch that serve a card; 0 where none is known to be the last.
func (t *Tables) branches(card Arch) (int, int) {
	last := 0
	if card.less(Arch{7, 5}) {
		last = t.LastForVolta
	}
	return t.Branches[card.String()], last
}

func (t *Tables) supports(driver Driver, card Arch) bool {
	first, last := t.branches(card)
	return first <= driver[0] && (last == 0 || driver[0] <= last)
}
