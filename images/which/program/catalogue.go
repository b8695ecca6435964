package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

const mostCatalogue = 64 << 20 // bytes

// Proof is one level of proof of an image.
type Proof struct {
	Level  string  `json:"level"`
	Status string  `json:"status"`
	Reason string  `json:"reason"`
	Card   *string `json:"card"`
	Driver *string `json:"driver"`
}

// Advisories is what was known of an image's holes when it was published.
type Advisories struct {
	Read        string   `json:"read"`
	Known       int64    `json:"known"`
	NotReached  []string `json:"not_reached"`
	Closed      []string `json:"closed"`
	Open        []string `json:"open"`
	Severe      []string `json:"severe"`
	Accepted    []string `json:"accepted"`
	LookedUp    int64    `json:"looked_up"`
	ReadByHand  int64    `json:"read_by_hand"`
	NotLookedUp int64    `json:"not_looked_up"`
}

// Image is a published image.
type Image struct {
	Variant    string      `json:"variant"`
	Digest     string      `json:"digest"`
	Tag        string      `json:"tag"`
	Input      string      `json:"input"`
	Archs      []string    `json:"archs"`
	Audited    []string    `json:"audited"`
	MinDriver  *string     `json:"min_driver"`
	Layers     []string    `json:"layers"`
	Compressed int64       `json:"compressed"`
	Unpacked   int64       `json:"unpacked"`
	Evidence   []Proof     `json:"evidence"`
	Advisories *Advisories `json:"advisories"`
	audited    []Arch
}

// Catalogue is all images of a repository, and what each moving tag names, in the document's order.
type Catalogue struct {
	Images []*Image            `json:"images"`
	Layers map[string]int64    `json:"layers"`
	Moving map[string][]string `json:"moving"`
	order  []string
}

// readCatalogue reads a catalogue and checks it to the last field, as images/catalogue/model.py does.
func (t *Tables) readCatalogue(raw []byte, where string) (*Catalogue, error) {
	value, err := parseJSON(raw)
	if err != nil {
		return nil, untrusted("it is not JSON: "+printable(err.Error(), 200), where)
	}
	if object, good := value.(map[string]any); good {
		if number, good := object["schema"].(json.Number); good {
			if form, err := number.Int64(); err == nil && form > int64(t.Catalogue.Form) && form <= 1e6 {
				return nil, &Failure{
					exitUsage, fmt.Sprintf("the catalogue is of form %d, this program reads form %d", form, t.Catalogue.Form),
					"it was written by a newer version of Cardstock", "take the newest program of that repository", where,
				}
			}
		}
	}
	if place, why := t.schema.check(value, ""); why != "" {
		return nil, untrusted(strings.TrimPrefix(place+": "+why, ": "), where)
	}
	var catalogue Catalogue
	if err := json.Unmarshal(raw, &catalogue); err != nil {
		return nil, untrusted(printable(err.Error(), 200), where)
	}
	if catalogue.order, err = keysOf(raw, "moving"); err != nil {
		return nil, untrusted(printable(err.Error(), 200), where)
	}
	if why := catalogue.check(); why != "" {
		return nil, untrusted(why, where)
	}
	return &catalogue, nil
}

func untrusted(why, where string) *Failure {
	return &Failure{
		exitUnsafe, "the catalogue cannot be trusted: it is not what a catalogue is", why,
		"do not pull from there; tell whoever publishes it", where,
	}
}

// keysOf are the keys of an object that is a field of a JSON object, in their order.
func keysOf(raw []byte, field string) ([]string, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil || whole[field] == nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(whole[field]))
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	seen, out := map[string]bool{}, []string{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out, nil
}

func (c *Catalogue) byDigest() map[string]*Image {
	out := map[string]*Image{}
	for _, image := range c.Images {
		out[image.Digest] = image
	}
	return out
}

// check is what a schema cannot say; "" where all is well.
func (c *Catalogue) check() string {
	tags, byDigest, variants := map[string]bool{}, c.byDigest(), map[string]bool{}
	if len(byDigest) != len(c.Images) {
		return "two images have one digest"
	}
	for _, image := range c.Images {
		if tags[image.Tag] {
			return "two images have the tag " + image.Tag
		}
		tags[image.Tag], variants[image.Variant] = true, true
		if why := image.check(c.Layers); why != "" {
			return image.Variant + ": " + why
		}
	}
	for _, tag := range c.order {
		for _, digest := range c.Moving[tag] {
			image := byDigest[digest]
			if image == nil {
				return fmt.Sprintf("the tag %s names %s, which is no image here", tag, digest)
			}
			if variants[tag] && image.Variant != tag {
				return fmt.Sprintf("the tag %s names an image of another variant", tag)
			}
		}
	}
	return ""
}

func (i *Image) check(layers map[string]int64) string {
	total := int64(0)
	for _, digest := range i.Layers {
		size, there := layers[digest]
		if !there {
			return "no size of its layer " + digest
		}
		total += size
	}
	passed := false
	for _, proof := range i.Evidence {
		passed = passed || proof.Status == "passed"
	}
	for _, arch := range i.Archs {
		if !contains(i.Audited, arch) {
			return "it is for " + strings.Join(i.Archs, " ") + ", audited is " + strings.Join(i.Audited, " ")
		}
	}
	var err error
	if i.audited, err = parseArchs(i.Audited); err != nil {
		return err.Error()
	}
	switch {
	case total != i.Compressed:
		return "its size is not that of its layers"
	case i.Tag != i.Variant+"-"+i.Input[:12]:
		return "its tag " + i.Tag + " is not made of its variant and inputs"
	case !passed:
		return "nothing is proven of it"
	}
	return ""
}

// current is the image that each variant's tag names now, in the order in which tags name them.
func (c *Catalogue) current() []*Image {
	byDigest, seen, out := c.byDigest(), map[string]bool{}, []*Image{}
	for _, tag := range c.order {
		image := byDigest[last(c.Moving[tag])]
		if image != nil && last(c.Moving[image.Variant]) == image.Digest && !seen[image.Variant] {
			seen[image.Variant] = true
			out = append(out, image)
		}
	}
	return out
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

// covers says whether the image has code that runs on a card.
func (i *Image) covers(card Arch) bool {
	for _, arch := range i.audited {
		if arch.runsOn(card) {
			return true
		}
	}
	return false
}

// summary is its evidence in a line.
func (i *Image) summary() string {
	var out []string
	for _, proof := range i.Evidence {
		out = append(out, proof.phrase())
	}
	return strings.Join(out, "; ")
}

func (p Proof) phrase() string {
	if p.Status == "not run" {
		return p.Level + ": not run: " + p.Reason
	}
	var parts []string
	if p.Card != nil && *p.Card != "" {
		parts = append(parts, *p.Card)
	}
	if p.Driver != nil && *p.Driver != "" {
		parts = append(parts, "driver "+*p.Driver)
	}
	where := strings.Join(parts, ", ")
	if where == "" && (p.Level == "canary" || p.Level == "server") {
		where = "cpu"
	}
	if where != "" {
		where = " (" + where + ")"
	}
	return p.Level + ": passed" + where
}

// summary is the open ones in a line.
func (a *Advisories) summary() string {
	if a == nil {
		return "advisories: not known, it was published before there was a list"
	}
	if len(a.Open) == 0 {
		return "no open advisory by the list of " + a.Read
	}
	var parts []string
	if len(a.Severe) > 0 {
		parts = append(parts, strings.Join(a.Severe, ", "))
	}
	if rest := len(a.Open) - len(a.Severe); rest != 0 {
		parts = append(parts, fmt.Sprintf("%d of lower severity", rest))
	}
	return "open advisories by the list of " + a.Read + ": " + strings.Join(parts, " and ")
}
