package main

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"io"
	"regexp"
	"strconv"
	"strings"
)

const mostCards = 1024

// smiLog is the part of `nvidia-smi -q -x` that is read.
type smiLog struct {
	XMLName xml.Name `xml:"nvidia_smi_log"`
	Driver  string   `xml:"driver_version"`
	Cards   []smiGPU `xml:"gpu"`
}

type smiGPU struct {
	Address string `xml:"id,attr"`
	Name    string `xml:"product_name"`
	UUID    string `xml:"uuid"`
	Mig     string `xml:"mig_mode>current_mig"`
	Memory  string `xml:"fb_memory_usage>total"`
	Parts   []struct {
		Index  string `xml:"index"`
		Memory string `xml:"fb_memory_usage>total"`
	} `xml:"mig_devices>mig_device"`
}

var (
	uuidForm   = regexp.MustCompile(`^(GPU|MIG)-[0-9A-Za-z/-]{1,80}$`)
	partLine   = regexp.MustCompile(`^\s+(MIG \S+)\s+Device\s+(\d{1,3}):\s+\(UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]{1,80})\)`)
	cardLine   = regexp.MustCompile(`^GPU \d+: .*\(UUID: (GPU-[0-9A-Za-z-]{1,80})\)`)
	memoryForm = regexp.MustCompile(`^(\d{1,9}) MiB$`)
)

// readSmi reads the answers of nvidia-smi: of -q -x, of --query-gpu=uuid,compute_cap, of -L. The last two may be empty.
// A card whose compute capability nothing tells is looked up by its name, and left out where no list has it.
func (t *Tables) readSmi(log, capabilities, list []byte) (Machine, []string, error) {
	var read smiLog
	decoder := xml.NewDecoder(bytes.NewReader(log))
	decoder.Strict = false
	decoder.CharsetReader = func(_ string, input io.Reader) (io.Reader, error) { return input, nil }
	if err := decoder.Decode(&read); err != nil {
		return Machine{}, nil, err
	}
	machine := Machine{Driver: printable(strings.TrimSpace(read.Driver), 40)}
	archs, parts := readCapabilities(capabilities), readParts(list)
	var notes []string
	for at, one := range read.Cards {
		if at >= mostCards {
			break
		}
		index := at
		name := printable(strings.TrimSpace(one.Name), 100)
		card := LocalCard{Name: name, UUID: strings.TrimSpace(one.UUID), Memory: mebibytes(one.Memory), Index: &index}
		if !uuidForm.MatchString(card.UUID) {
			card.UUID = strconv.Itoa(at)
		}
		if card.Arch = archs[card.UUID]; card.Arch == "" {
			found, there := t.named(name)
			if !there {
				machine.Lost = append(machine.Lost, LostCard{at, plainAddress(one.Address), "nothing tells its compute capability (" + name + ")", ""})
				continue
			}
			card.Arch = found.Arch
			notes = append(notes, name+": compute capability "+found.Arch+" by its name; this nvidia-smi does not tell it")
		}
		card.Mig = strings.TrimSpace(one.Mig) == "Enabled"
		if card.Mig {
			for _, part := range one.Parts {
				if known, there := parts[card.UUID][strings.TrimSpace(part.Index)]; there {
					known.Name, known.Memory = name+" "+known.Name, mebibytes(part.Memory)
					card.Slices = append(card.Slices, known)
				}
			}
		}
		machine.Cards = append(machine.Cards, card)
	}
	if len(machine.Cards) == 0 {
		machine.Why = "the driver sees no card"
		if len(machine.Lost) > 0 {
			machine.Why = "no card answers: " + machine.Lost[0].What
		}
	}
	return machine, notes, nil
}

// plainAddress is "00000000:3B:00.0" as Linux writes it, "0000:3b:00.0".
func plainAddress(address string) string {
	domain, rest, found := strings.Cut(strings.ToLower(printable(address, 40)), ":")
	if !found {
		return ""
	}
	if len(domain) > 4 {
		domain = domain[len(domain)-4:]
	}
	return domain + ":" + rest
}

func mebibytes(text string) int64 {
	found := memoryForm.FindStringSubmatch(strings.TrimSpace(text))
	if found == nil {
		return 0 // "[N/A]": the card has none of its own
	}
	count, _ := strconv.ParseInt(found[1], 10, 64)
	return count << 20
}

// readCapabilities reads lines such as "GPU-…, 8.6".
func readCapabilities(raw []byte) map[string]string {
	out := map[string]string{}
	for _, line := range linesOf(raw) {
		uuid, capability, _ := strings.Cut(line, ",")
		arch, err := parseArch(strings.TrimSpace(capability))
		if uuid = strings.TrimSpace(uuid); err == nil && uuidForm.MatchString(uuid) {
			out[uuid] = arch.String()
		}
	}
	return out
}

// readParts reads the MIG instances of -L: by the card's UUID, then by the index of the instance.
func readParts(raw []byte) map[string]map[string]MigInstance {
	out, card := map[string]map[string]MigInstance{}, ""
	for _, line := range linesOf(raw) {
		if found := cardLine.FindStringSubmatch(line); found != nil {
			card = found[1]
			out[card] = map[string]MigInstance{}
		} else if found := partLine.FindStringSubmatch(line); found != nil && card != "" {
			out[card][found[2]] = MigInstance{Name: printable(found[1], 60), UUID: found[3]}
		}
	}
	return out
}

func linesOf(raw []byte) []string {
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(make([]byte, 4096), 64<<10)
	for lines.Scan() && len(out) < 64*mostCards {
		out = append(out, lines.Text())
	}
	return out
}

// named is what the card list has under a name that a driver gives: the whole of it, or the longest beginning.
func (t *Tables) named(name string) (CardName, bool) {
	var words []string
	for _, word := range strings.Fields(strings.ReplaceAll(strings.ToLower(name), "-", " ")) {
		if !contains([]string{"nvidia", "geforce", "tesla", "quadro"}, word) {
			words = append(words, word)
		}
	}
	for count := len(words); count > 0; count-- {
		if found, there := t.names[strings.Join(words[:count], " ")]; there {
			if count < len(words) {
				found.Memory = 0
			}
			return found, true
		}
	}
	return CardName{}, false
}

// readInformation reads /proc/driver/nvidia/gpus/ADDRESS/information: lines such as "Model: 		 NVIDIA H100 PCIe".
func readInformation(raw []byte) map[string]string {
	out := map[string]string{}
	for _, line := range linesOf(raw) {
		if key, value, found := strings.Cut(line, ":"); found {
			out[strings.TrimSpace(key)] = printable(strings.TrimSpace(value), 100)
		}
	}
	return out
}
