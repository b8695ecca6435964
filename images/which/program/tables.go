package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

// What images/which/tables.py makes of the matrix and the card list; it lies beside this file while the program is built.
//
//go:embed tables.json
var tablesText []byte

// Key and repository that the program was built for: PEM, and a name such as registry.example.com/team/qwen.
//
//go:embed built.json
var builtText []byte

const tablesForm = 1

// Variant is an image that the matrix has.
type Variant struct {
	ID        string   `json:"id"`
	Backend   string   `json:"backend"`
	ArchTexts []string `json:"archs"`
	MinDriver *string  `json:"min_driver"`
	at        int
	archs     []Arch
}

// Tables is all that the program knows before it asks anything.
type Tables struct {
	Form      int `json:"form"`
	Catalogue struct {
		Kind   string          `json:"kind"`
		Tag    string          `json:"tag"`
		File   string          `json:"file"`
		Form   int             `json:"form"`
		Schema json.RawMessage `json:"schema"`
	} `json:"catalogue"`
	Archs     []string            `json:"archs"`
	Variants  []*Variant          `json:"variants"`
	Order     map[string][][2]int `json:"order"`
	Forbidden map[string][]int    `json:"forbidden"`
	Refused   map[string]*Failure `json:"refused"`
	Never     struct {
		Oldest   string   `json:"oldest"`
		Smallest float64  `json:"smallest"`
		Jetson   []string `json:"jetson"`
		Old      Failure  `json:"old"`
		Arm      Failure  `json:"arm"`
		Small    Failure  `json:"small"`
	} `json:"never"`
	Branches     map[string]int `json:"branches"`
	LastForVolta int            `json:"last_for_volta"`
	Run          struct {
		Before []string `json:"before"`
		After  []string `json:"after"`
	} `json:"run"`
	Nvml    map[string]Fault `json:"nvml"`
	NvmlWSL Fault            `json:"nvml_wsl"`
	Names   []CardName       `json:"names"`

	archs     []Arch
	listed    map[string]bool
	byID      map[string]*Variant
	forbidden map[string]map[int]bool
	names     map[string]CardName
	schema    *schema
}

// Fault is why the driver, or one card, does not answer.
type Fault struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

// CardName is a name that the card list has, with the compute capability and GB of memory (0: several are sold).
type CardName struct {
	Name, Arch string
	Memory     float64
}

// UnmarshalJSON reads ["geforce rtx 3090", "8.6", 24].
func (c *CardName) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&c.Name, &c.Arch, &c.Memory})
}

// Built is what the program was built with beside its tables.
type Built struct {
	Key        string `json:"key"`
	Repository string `json:"repository"`
	Version    string `json:"version"`
}

func readBuilt() (Built, error) {
	var built Built
	err := json.Unmarshal(builtText, &built)
	return built, err
}

func readTables(raw []byte) (*Tables, error) {
	var t Tables
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("this program was built with tables that cannot be read: %w", err)
	}
	if t.Form != tablesForm {
		return nil, fmt.Errorf("this program was built with tables of form %d, and reads form %d", t.Form, tablesForm)
	}
	var err error
	if t.archs, err = parseArchs(t.Archs); err != nil {
		return nil, err
	}
	t.listed, t.byID, t.names = map[string]bool{}, map[string]*Variant{}, map[string]CardName{}
	for _, text := range t.Archs {
		t.listed[text] = true
	}
	for at, one := range t.Variants {
		one.at = at
		if one.archs, err = parseArchs(one.ArchTexts); err != nil {
			return nil, err
		}
		t.byID[one.ID] = one
	}
	t.forbidden = map[string]map[int]bool{}
	for arch, listed := range t.Forbidden {
		t.forbidden[arch] = map[int]bool{}
		for _, at := range listed {
			t.forbidden[arch][at] = true
		}
	}
	for _, one := range t.Names {
		t.names[one.Name] = one
	}
	t.schema, err = parseSchema(t.Catalogue.Schema)
	return &t, err
}
