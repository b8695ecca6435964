package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Case is a question of tests: cards and a driver, or a machine, and how its engine gives cards.
type Case struct {
	Cards   []Card   `json:"cards"`
	Driver  string   `json:"driver"`
	Machine *Machine `json:"machine"`
	Way     string   `json:"way"`
}

const mostCase = 1 << 20 // bytes of a line

// answerCases answers a file of questions, a line of JSON each, by a line of JSON each.
func (t *Tables) answerCases(from io.Reader, to io.Writer, catalogue *Catalogue, repository string) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), mostCase)
	out := bufio.NewWriter(to)
	encoder := json.NewEncoder(out)
	for lines.Scan() {
		var asked Case
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return &Failure{Exit: exitUsage, What: "a line of --cases is no question", Cause: err.Error()}
		}
		if err := encoder.Encode(t.answerCase(asked, catalogue, repository)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return out.Flush()
}

func (t *Tables) answerCase(asked Case, catalogue *Catalogue, repository string) map[string]any {
	query, notes, err := asked.query()
	if err != nil {
		return map[string]any{"error": asFailure(err)}
	}
	answer := t.match(catalogue, query)
	if len(answer.matches) == 0 {
		return map[string]any{"error": answer.refusals[0].why}
	}
	return map[string]any{
		"answer": t.json(repository, answer, query), "lines": answer.lines(repository, catalogue), "notes": whole(notes),
	}
}

func (c Case) query() (Query, []string, error) {
	if c.Machine != nil {
		return c.Machine.query(c.Way)
	}
	query := Query{cards: c.Cards, way: c.Way}
	if len(c.Cards) == 0 {
		return query, nil, fmt.Errorf("no card is asked for")
	}
	for at := range query.cards {
		arch, err := parseArch(query.cards[at].Arch)
		if err != nil {
			return query, nil, err
		}
		query.cards[at].arch = arch
	}
	if c.Driver == "" {
		return query, nil, nil
	}
	driver, err := parseDriver(c.Driver)
	query.driver = driver
	return query, nil, err
}

// readMachineFile reads a machine as a question of tests has it.
func readMachineFile(name string) (Machine, error) {
	var machine Machine
	raw, err := readNamed(name, nil, mostCase)
	if err == nil {
		err = json.Unmarshal(raw, &machine)
	}
	if err != nil {
		err = &Failure{Exit: exitUsage, What: "the machine cannot be read: " + name, Cause: err.Error()}
	}
	return machine, err
}
