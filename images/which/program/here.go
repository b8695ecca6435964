package main

import (
	"fmt"
	"math"
	"strings"
)

// MigInstance is a MIG instance: its name ("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), UUID and bytes of memory.
type MigInstance struct {
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	Memory int64  `json:"memory"`
}

// LocalCard is a card of this machine, as images/cards/this_machine.py has it.
type LocalCard struct {
	Name   string        `json:"name"`
	UUID   string        `json:"uuid"`
	Arch   string        `json:"arch"`
	Memory int64         `json:"memory"`
	Mig    bool          `json:"mig"`
	Slices []MigInstance `json:"slices"`
	Index  *int          `json:"index"`
}

// LostCard is a card that does not answer.
type LostCard struct {
	Index   int    `json:"index"`
	Address string `json:"address"`
	What    string `json:"what"`
	Do      string `json:"do"`
}

// Machine is the driver and cards of this machine. Without a card, Why says so and Do what to do about it.
type Machine struct {
	Driver string      `json:"driver"`
	Cards  []LocalCard `json:"cards"`
	Why    string      `json:"why"`
	Do     string      `json:"do"`
	Host   string      `json:"host"`
	Lost   []LostCard  `json:"lost"`
	Part   bool        `json:"part"` // not all of the machine's cards are seen from here
}

func (c LocalCard) place(at int) int {
	if c.Index != nil {
		return *c.Index
	}
	return at
}

// query is what is asked for this machine: its cards as any others, and what docker is told of them. The lines are for
// people: which cards are left out, and why (images/cards/here.py).
func (m Machine) query(way string) (Query, []string, error) {
	if len(m.Cards) == 0 {
		do := "name one: ./inv pull --card \"RTX 2080 Ti\" --driver 535.104; or the image for the CPU: --name cpu-…"
		if m.Do != "" {
			do = m.Do
		}
		return Query{}, nil, &Failure{
			Exit: exitNoImage, What: "this machine has no NVIDIA card to find an image for", Cause: m.Why, Do: do,
		}
	}
	var lines []string
	for _, lost := range m.Lost {
		where := ""
		if lost.Address != "" {
			where = " at PCI " + lost.Address
		}
		lines = append(lines, fmt.Sprintf("card %d%s: %s; the other cards are used", lost.Index, where, lost.What))
	}
	chosen, devices, notes := m.chosen()
	query := Query{driver: readDriver(m.Driver), own: chosen, devices: devices, way: way}
	for _, one := range chosen {
		card, err := one.asCard(m.Host)
		if err != nil {
			return Query{}, nil, err
		}
		query.cards = append(query.cards, card)
	}
	return query, append(lines, notes...), nil
}

// chosen are the cards that are meant, what docker is told of them (none for all), and lines for people.
func (m Machine) chosen() ([]LocalCard, []string, []string) {
	for _, card := range m.Cards {
		if card.Mig {
			return m.besideInstances()
		}
	}
	if len(m.Lost) > 0 || m.Part {
		var uuids []string
		for _, card := range m.Cards {
			uuids = append(uuids, card.UUID)
		}
		return m.Cards, uuids, nil
	}
	return m.Cards, nil, nil
}

func (m Machine) besideInstances() ([]LocalCard, []string, []string) {
	var whole []LocalCard
	var devices, cut []string
	for at, card := range m.Cards {
		place := fmt.Sprint(card.place(at))
		if card.Mig {
			cut = append(cut, place)
			continue
		}
		whole = append(whole, card)
		if m.Part { // an index is one of those that this program sees
			place = card.UUID
		}
		devices = append(devices, place)
	}
	if len(whole) > 0 {
		note := fmt.Sprintf("card %s is cut into MIG instances and left out; --gpus device=%s:0 takes one",
			strings.Join(cut, ", "), cut[0])
		return whole, devices, []string{note}
	}
	var largest *MigInstance
	var of LocalCard
	count := 0
	var names []string
	for at := range m.Cards {
		for part := range m.Cards[at].Slices {
			count++
			one := &m.Cards[at].Slices[part]
			names = append(names, fmt.Sprintf("--gpus device=%s (%s)", one.UUID, one.Name))
			if largest == nil || one.Memory > largest.Memory {
				largest, of = one, m.Cards[at]
			}
		}
	}
	if largest == nil {
		return m.Cards, nil, []string{"its cards are in MIG mode, and no instance was made: no program can use them"}
	}
	var notes []string
	if count > 1 {
		more := ""
		if count > 8 {
			more = fmt.Sprintf(", and %d more", count-8)
			names = names[:8]
		}
		notes = append(notes, fmt.Sprintf("of its %d MIG instances the largest is taken: %s; name one: %s%s",
			count, largest.Name, strings.Join(names, ", "), more))
	}
	return []LocalCard{{Name: largest.Name, UUID: largest.UUID, Arch: of.Arch, Memory: largest.Memory}},
		[]string{largest.UUID}, notes
}

// asCard is a card of this machine as any other, memory in whole GB; of one that is cut by MIG the largest slice counts.
func (c LocalCard) asCard(host string) (Card, error) {
	memory := c.Memory
	for at, part := range c.Slices {
		if at == 0 || part.Memory > memory {
			memory = part.Memory
		}
	}
	arch, err := parseArch(c.Arch)
	if err != nil {
		return Card{}, err
	}
	gigabytes := math.RoundToEven(float64(memory) / (1 << 30))
	return Card{Name: c.Name, Arch: c.Arch, Memory: gigabytes, Source: "NVML on this machine", Host: host, arch: arch}, nil
}
