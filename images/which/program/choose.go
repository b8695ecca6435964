package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Card is a card: what it is called, its compute capability, its memory in GB (0: not known), where that is known from.
type Card struct {
	Name   string  `json:"name"`
	Arch   string  `json:"arch"`
	Memory float64 `json:"memory"`
	Source string  `json:"source"`
	Host   string  `json:"host"`
	arch   Arch
}

// Pick is an image and the cards it is for.
type Pick struct {
	variant *Variant
	cards   []Card
	notes   []string
}

// Refusal is a card that gets no image, and why.
type Refusal struct {
	card Card
	why  *Failure
}

// Choice is one pick for all cards, or one for each compute capability, and the cards that get none.
type Choice struct {
	picks    []Pick
	refusals []Refusal
}

// Among says which variants are chosen from: those that are published, or all of them.
type Among func(*Variant) bool

func every(*Variant) bool { return true }

// choose is images/cards/choose.py: the image that cards of one machine should have. A nil driver: any.
func (t *Tables) choose(among Among, cards []Card, driver Driver) Choice {
	var choice Choice
	refused := map[Card]bool{}
	for _, card := range cards {
		if why := t.never(card); why != nil {
			choice.refusals = append(choice.refusals, Refusal{card, why})
			refused[card] = true
		}
	}
	groups, order := map[Arch][]Card{}, []Arch{}
	for _, card := range cards {
		if refused[card] {
			continue
		}
		if _, there := groups[card.arch]; !there {
			order = append(order, card.arch)
		}
		groups[card.arch] = append(groups[card.arch], card)
	}
	for _, arch := range order {
		same := groups[arch]
		pick, why := t.pick(among, same, driver)
		if why != nil {
			for _, card := range same {
				choice.refusals = append(choice.refusals, Refusal{card, why})
			}
			continue
		}
		choice.add(*pick)
	}
	if len(choice.picks) > 1 {
		if together := t.oneForAll(among, choice.picks, driver); together != nil {
			choice.picks = []Pick{*together}
		}
	}
	return choice
}

func (c *Choice) add(pick Pick) {
	for at := range c.picks {
		if c.picks[at].variant == pick.variant {
			c.picks[at].cards = append(c.picks[at].cards, pick.cards...)
			c.picks[at].notes = pick.notes
			return
		}
	}
	c.picks = append(c.picks, pick)
}

// oneForAll is one image for the cards of several picks; nil without one, or where the slower server alone serves all.
func (t *Tables) oneForAll(among Among, each []Pick, driver Driver) *Pick {
	var cards []Card
	fast := false
	for _, one := range each {
		cards = append(cards, one.cards...)
		fast = fast || one.variant.Backend != "transformers"
	}
	pick, why := t.pick(among, cards, driver)
	if why != nil || (pick.variant.Backend == "transformers" && fast) {
		return nil
	}
	return pick
}

// never is why there can be no image for a card with any stack; nil where a stack may have one.
func (t *Tables) never(card Card) *Failure {
	oldest, _ := parseArch(t.Never.Oldest)
	switch {
	case card.arch.less(oldest):
		return told(&t.Never.Old, card, "")
	case card.Host != "" && !contains(t.Never.Jetson, card.arch.String()):
		return told(&t.Never.Arm, card, card.Source)
	case card.Memory != 0 && card.Memory < t.Never.Smallest:
		return told(&t.Never.Small, card, card.Source)
	}
	return nil
}

// told is a sentence with what it leaves open put in.
func told(sentence *Failure, card Card, where string) *Failure {
	put := strings.NewReplacer(
		"{name}", card.Name, "{arch}", card.arch.String(), "{number}", strconv.Itoa(card.arch.major*10+card.arch.minor),
		"{memory}", strconv.FormatFloat(card.Memory, 'g', 6, 64),
	)
	if where == "" {
		where = put.Replace(sentence.Where)
	}
	return &Failure{sentence.Exit, put.Replace(sentence.What), put.Replace(sentence.Cause), put.Replace(sentence.Do), where}
}

// covering are the archs whose images serve these cards: 12.1 is served by 12.0.
func (t *Tables) covering(asked []Arch) []Arch {
	var out []Arch
	for _, arch := range asked {
		best := Arch{-1, -1}
		for _, listed := range t.archs {
			if listed.runsOn(arch) && best.less(listed) {
				best = listed
			}
		}
		if best.major < 0 {
			best = arch
		}
		out = append(out, best)
	}
	return sortedArchs(out)
}

// ranked is a variant and its place in the list of an arch (-1: in none).
type ranked struct {
	variant *Variant
	place   int
}

// carrying are the variants with all of these archs that no rule forbids on the cards, the best first.
func (t *Tables) carrying(among Among, asked []Arch) []ranked {
	archs := t.covering(asked)
	var against []map[int]bool
	for _, arch := range asked {
		if !t.listed[arch.String()] {
			against = append(against, t.forbidden[arch.String()])
		}
	}
	var out []ranked
	for _, entry := range t.Order[archs[0].String()] {
		variant := t.Variants[entry[0]]
		if among(variant) && variant.carries(archs) && !forbids(against, variant) {
			out = append(out, ranked{variant, entry[1]})
		}
	}
	return out
}

func (v *Variant) carries(archs []Arch) bool {
	for _, arch := range archs {
		found := false
		for _, own := range v.archs {
			found = found || own == arch
		}
		if !found {
			return false
		}
	}
	return true
}

func forbids(against []map[int]bool, variant *Variant) bool {
	for _, one := range against {
		if one[variant.at] {
			return true
		}
	}
	return false
}

// pick chooses one image for cards of which each has one.
func (t *Tables) pick(among Among, cards []Card, driver Driver) (*Pick, *Failure) {
	var all []Arch
	for _, card := range cards {
		all = append(all, card.arch)
	}
	asked := sortedArchs(all)
	there := t.carrying(among, asked)
	if len(there) == 0 {
		return nil, t.nothing(asked)
	}
	first := there[0].variant
	if driver == nil {
		return &Pick{first, cards, forOlder(listed(there))}, nil
	}
	for _, card := range cards {
		if !t.supports(driver, card.arch) {
			return nil, t.doesNotServe(card, driver, listed(there))
		}
	}
	if suffices(driver, first.MinDriver) {
		return &Pick{first, cards, nil}, nil
	}
	for _, one := range there {
		if !suffices(driver, one.variant.MinDriver) {
			continue
		}
		note := fmt.Sprintf("driver %s is too old for %s, which needs %s; this one runs on it", driver, first.ID, *first.MinDriver)
		if one.place < 0 {
			note += ", and is not among the recommended ones"
		}
		return &Pick{one.variant, cards, []string{note}}, nil
	}
	return nil, tooOld(cards, asked, there, listed(there), driver)
}

// listed are the first, and those of its arch's list that run on older drivers than the one before.
func listed(there []ranked) []*Variant {
	out := []*Variant{there[0].variant}
	for _, one := range there {
		if one.place >= 0 && older(one.variant.MinDriver, out[len(out)-1].MinDriver) {
			out = append(out, one.variant)
		}
	}
	return out
}

// forOlder is what older drivers get of the list, where nobody said which driver there is.
func forOlder(listed []*Variant) []string {
	var out []string
	for at := 1; at < len(listed); at++ {
		out = append(out, fmt.Sprintf("with a driver older than %s it is %s, driver from %s",
			*listed[at-1].MinDriver, listed[at].ID, *listed[at].MinDriver))
	}
	return out
}

// nothing is the error where no image carries these archs. Of several archs together nobody is told it.
func (t *Tables) nothing(asked []Arch) *Failure {
	if len(asked) == 1 {
		if found, there := t.Refused[asked[0].String()]; there {
			return told(found, Card{arch: asked[0]}, "")
		}
		if found, there := t.Refused[""]; there {
			return told(found, Card{arch: asked[0]}, "")
		}
	}
	return &Failure{Exit: exitNothing, What: "no image is built for these cards together"}
}

// doesNotServe: the driver is of a branch that does not know a card yet, or no longer serves it.
func (t *Tables) doesNotServe(card Card, driver Driver, best []*Variant) *Failure {
	first, last := t.branches(card.arch)
	if last != 0 && driver[0] > last {
		return &Failure{
			Exit: exitNoImage, What: fmt.Sprintf("driver %s does not serve %s", driver, card.Name),
			Cause: fmt.Sprintf("branch %d is the last for Volta and older cards (unverified)", last),
			Do:    fmt.Sprintf("install a driver of branch %d or older", last),
		}
	}
	var enough []*Variant
	for _, one := range best {
		if one.MinDriver == nil {
			continue
		}
		if least, err := parseDriver(*one.MinDriver); err == nil && least[0] >= first {
			enough = append(enough, one)
		}
	}
	do := fmt.Sprintf("install a driver of branch %d or newer", first)
	if len(enough) > 0 {
		do = install(enough)
	}
	return &Failure{
		exitNoImage, fmt.Sprintf("driver %s does not know %s", driver, card.Name),
		fmt.Sprintf("branch %d is the first for cards of compute capability %s", first, card.arch),
		do, "CUDA release notes, table 3",
	}
}

// tooOld: the driver runs no image for these cards.
func tooOld(cards []Card, asked []Arch, every []ranked, best []*Variant, driver Driver) *Failure {
	var names, archs []string
	for _, card := range cards {
		names = append(names, card.Name)
	}
	for _, arch := range asked {
		archs = append(archs, arch.String())
	}
	var drivers []Driver
	for _, one := range every {
		if one.variant.MinDriver != nil {
			if least, err := parseDriver(*one.variant.MinDriver); err == nil {
				drivers = append(drivers, least)
			}
		}
	}
	sort.SliceStable(drivers, func(i, j int) bool { return drivers[i].compare(drivers[j]) < 0 })
	return &Failure{
		exitNoImage, fmt.Sprintf("driver %s is too old for every image for %s", driver, strings.Join(names, " and ")),
		fmt.Sprintf("%s needs %s, and no image for %s runs below %s",
			best[0].ID, *best[0].MinDriver, strings.Join(archs, " "), drivers[0]),
		install(best), "CUDA release notes, table 3",
	}
}

// install is the driver for the first of these, and the oldest that does for one of them.
func install(best []*Variant) string {
	first, last := best[0], best[len(best)-1]
	also := ""
	if last != first {
		also = fmt.Sprintf("; %s is enough for %s", *last.MinDriver, last.ID)
	}
	return fmt.Sprintf("install driver %s or newer%s", *first.MinDriver, also)
}

func contains(list []string, one string) bool {
	for _, other := range list {
		if other == one {
			return true
		}
	}
	return false
}
