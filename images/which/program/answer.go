package main

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Query is the cards to find an image for, their driver, the machine's own cards, and what docker is told of them.
type Query struct {
	cards   []Card
	driver  Driver
	own     []LocalCard
	devices []string
	way     string
}

// Match is a published image and the cards it is for.
type Match struct {
	image *Image
	cards []Card
	notes []string
}

// PassedOver is a published image that would run on one of the cards, or nearly, and why another was chosen.
type PassedOver struct {
	image *Image
	why   string
}

// Answer is what a catalogue has for a query.
type Answer struct {
	matches  []Match
	refusals []Refusal
	passed   []PassedOver
}

// kind is the images that run on the same cards by the same driver.
type kind struct {
	archs  int
	images []*Image
}

func (k *kind) covers(arch Arch) bool { return k.images[0].covers(arch) }

func (k *kind) minDriver() *string { return k.images[0].MinDriver }

// match is images/catalogue/resolve.py: the published images for cards of one machine.
func (t *Tables) match(catalogue *Catalogue, query Query) Answer {
	var archs []Arch
	for _, card := range query.cards {
		archs = append(archs, card.arch)
	}
	archs = sortedArchs(archs)
	kinds := kindsFor(catalogue, archs)
	known := map[string]*Image{}
	for _, one := range kinds {
		for _, image := range one.images {
			variant := t.byID[image.Variant]
			if variant == nil {
				continue
			}
			if same(variant.MinDriver, image.MinDriver) || query.driver == nil || suffices(query.driver, image.MinDriver) {
				known[image.Variant] = image
			}
		}
	}
	choice := t.choose(func(v *Variant) bool { return known[v.ID] != nil }, query.cards, query.driver)
	var answer Answer
	for _, pick := range choice.picks {
		answer.matches = append(answer.matches, Match{known[pick.variant.ID], pick.cards, pick.notes})
	}
	for _, refusal := range choice.refusals {
		answer.refusals = append(answer.refusals, t.explained(refusal.card, query.driver))
	}
	answer.passed = t.passedOver(kinds, answer.matches, archs, query.driver)
	return answer
}

func same(one, other *string) bool {
	if one == nil || other == nil {
		return one == other
	}
	return *one == *other
}

func kindsFor(catalogue *Catalogue, archs []Arch) []*kind {
	var order []*kind
	kinds := map[string]*kind{}
	for _, image := range catalogue.current() {
		driver := "none"
		if image.MinDriver != nil {
			driver = *image.MinDriver
		}
		key := strings.Join(image.Audited, " ") + "|" + strconv.Itoa(len(image.Archs)) + "|" + driver
		if kinds[key] == nil {
			kinds[key] = &kind{archs: len(image.Archs)}
			order = append(order, kinds[key])
		}
		kinds[key].images = append(kinds[key].images, image)
	}
	var out []*kind
	for _, one := range order {
		for _, arch := range archs {
			if one.covers(arch) {
				out = append(out, one)
				break
			}
		}
	}
	return out
}

// explained is the refusal of a card; where the matrix has an image for it that is not published, it says so.
func (t *Tables) explained(card Card, driver Driver) Refusal {
	choice := t.choose(every, []Card{card}, driver)
	if len(choice.picks) == 0 {
		return Refusal{card, choice.refusals[0].why}
	}
	id := choice.picks[0].variant.ID
	return Refusal{card, &Failure{
		Exit: exitNoImage, What: fmt.Sprintf("no image for %s is published here", card.Name),
		Cause: fmt.Sprintf("the image for it is %s, and the catalogue has none that this card and driver run", id),
		Do:    fmt.Sprintf("build it: ./inv build --only '%s'", id),
	}}
}

func (t *Tables) passedOver(kinds []*kind, matches []Match, archs []Arch, driver Driver) []PassedOver {
	chosen := map[string]bool{}
	for _, one := range matches {
		chosen[one.image.Variant] = true
	}
	var out []PassedOver
	for _, one := range kinds {
		why := one.why(matches, archs, driver)
		for _, image := range one.images {
			if chosen[image.Variant] {
				continue
			}
			if t.byID[image.Variant] == nil {
				out = append(out, PassedOver{image, "its variant is not in this checkout's matrix"})
			} else {
				out = append(out, PassedOver{image, why})
			}
		}
	}
	return out
}

// why images of a kind were not chosen.
func (k *kind) why(matches []Match, archs []Arch, driver Driver) string {
	if driver != nil && !suffices(driver, k.minDriver()) {
		return fmt.Sprintf("it needs driver %s, here is %s", *k.minDriver(), driver)
	}
	var missing []string
	for _, arch := range archs {
		if !k.covers(arch) {
			missing = append(missing, arch.String())
		}
	}
	if len(missing) > 0 && len(matches) == 1 {
		return "it has no code for " + strings.Join(missing, " ")
	}
	var rivals []Match
	least := math.MaxInt
	for _, one := range matches {
		for _, card := range one.cards {
			if k.covers(card.arch) {
				rivals = append(rivals, one)
				if len(one.image.Archs) < least {
					least = len(one.image.Archs)
				}
				break
			}
		}
	}
	if len(rivals) == 0 {
		return "a rule excludes it: invoke explain says which"
	}
	if k.archs > least {
		return "it carries code of other cards as well"
	}
	return rivals[0].image.Variant + " is recommended before it"
}

func reference(repository string, image *Image) string {
	if repository == "" {
		return image.Digest
	}
	return repository + "@" + image.Digest
}

// uuids are this machine's cards that an image is for, as docker is told them; none where it is for all of them.
func (a Answer) uuids(match Match, query Query) []string {
	if len(a.matches) == 1 && len(a.refusals) == 0 {
		return query.devices
	}
	names := map[string]bool{}
	for _, card := range match.cards {
		names[card.Name] = true
	}
	var out []string
	for _, card := range query.own {
		if names[card.Name] {
			out = append(out, card.UUID)
		}
	}
	return out
}

// run is the `docker run` of an image.
func (t *Tables) run(repository string, answer Answer, match Match, query Query) []string {
	name := repository
	if name == "" {
		name = "REPO"
	}
	words := append([]string{}, t.Run.Before...)
	words = append(words, gpuWords(answer.uuids(match, query), query.way)...)
	for _, word := range t.Run.After {
		words = append(words, strings.Replace(word, "{reference}", reference(name, match.image), 1))
	}
	return words
}

func gpuWords(devices []string, way string) []string {
	if way == "cdi" {
		if len(devices) == 0 {
			devices = []string{"all"}
		}
		var out []string
		for _, device := range devices {
			out = append(out, "--device", "nvidia.com/gpu="+device)
		}
		return out
	}
	switch listed := "device=" + strings.Join(devices, ","); len(devices) {
	case 0:
		return []string{"--gpus", "all"}
	case 1:
		return []string{"--gpus", listed}
	default: // docker reads it as CSV
		return []string{"--gpus", `"` + listed + `"`}
	}
}

var safe = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shell is words as they are typed into a shell.
func shell(words []string) string {
	out := make([]string, 0, len(words))
	for _, word := range words {
		if !safe.MatchString(word) {
			word = "'" + strings.ReplaceAll(word, "'", `'"'"'`) + "'"
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

// humanBytes is bytes in decimal units with three digits, as docker and registries count: "2.98 GB".
func humanBytes(count float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for math.Abs(count) >= 999.5 && len(units) > 1 {
		count, units = count/1000, units[1:]
	}
	digits := 2
	if units[0] == "B" || math.Abs(count) >= 99.95 {
		digits = 0
	} else if math.Abs(count) >= 9.995 {
		digits = 1
	}
	return strconv.FormatFloat(count, 'f', digits, 64) + " " + units[0]
}

// shared are bytes of an image that a machine which has the other matching images does not pull again.
func (a Answer) shared(catalogue *Catalogue, image *Image) int64 {
	there := map[string]bool{}
	for _, other := range a.matches {
		if other.image != image {
			for _, digest := range other.image.Layers {
				there[digest] = true
			}
		}
	}
	total := int64(0)
	for _, digest := range image.Layers {
		if there[digest] {
			there[digest] = false // counted once
			total += catalogue.Layers[digest]
		}
	}
	return total
}

// lines are for people: the images that match, why others were not chosen, which cards get none.
func (a Answer) lines(repository string, catalogue *Catalogue) []string {
	var out []string
	add := func(format string, values ...any) { out = append(out, fmt.Sprintf(format, values...)) }
	for _, one := range a.matches {
		image, cards, seen := one.image, []string{}, map[string]bool{}
		for _, card := range one.cards {
			if !seen[card.Name] {
				seen[card.Name] = true
				cards = append(cards, card.Name)
			}
		}
		add("%s for %s", image.Variant, strings.Join(cards, ", "))
		add("  %s", reference(repository, image))
		also := ""
		if shared := a.shared(catalogue, image); shared > 0 {
			also = ", " + humanBytes(float64(shared)) + " of it shared with the other"
		}
		add("  to pull %s, on disk %s%s", humanBytes(float64(image.Compressed)), humanBytes(float64(image.Unpacked)), also)
		audited, driver := strings.Join(image.Audited, " "), "none"
		if audited == "" {
			audited = "the CPU"
		}
		if image.MinDriver != nil {
			driver = *image.MinDriver
		}
		add("  audited for %s; driver from %s", audited, driver)
		add("  %s", image.summary())
		add("  %s", image.Advisories.summary())
		for _, note := range one.notes {
			add("  note: %s", note)
		}
	}
	if len(a.matches) > 1 {
		add("no image published here covers all of these cards: one for each kind of card")
	}
	for _, one := range a.passed {
		add("not %s: %s", one.image.Variant, one.why)
	}
	for _, one := range a.refusals {
		add("no image: %s", one.why.What)
		add("  cause: %s", one.why.Cause)
		add("  do: %s", one.why.Do)
	}
	return out
}

// json is all of an answer, for scripts: what `invoke pull --json` prints.
func (t *Tables) json(repository string, answer Answer, query Query) map[string]any {
	cards, images := []any{}, []any{}
	for _, card := range query.cards {
		var memory any
		if card.Memory != 0 {
			memory = card.Memory
		}
		cards = append(cards, map[string]any{"name": card.Name, "arch": card.arch.String(), "memory_gb": memory})
	}
	for _, one := range answer.matches {
		image, names := one.image, []string{}
		for _, card := range one.cards {
			names = append(names, card.Name)
		}
		images = append(images, map[string]any{
			"variant": image.Variant, "reference": reference(repository, image), "tag": image.Tag, "cards": names,
			"notes": whole(one.notes), "archs": whole(image.Archs), "audited": whole(image.Audited),
			"min_driver": image.MinDriver, "compressed": image.Compressed, "unpacked": image.Unpacked,
			"evidence": image.summary(), "advisories": image.Advisories.whole(),
			"run": t.run(repository, answer, one, query),
		})
	}
	refused, lost := []any{}, []any{}
	for _, one := range answer.refusals {
		refused = append(refused, map[string]any{
			"card": one.card.Name, "what": one.why.What, "cause": one.why.Cause, "do": one.why.Do, "where": one.why.Where,
		})
	}
	for _, one := range answer.passed {
		lost = append(lost, map[string]any{"variant": one.image.Variant, "why": one.why})
	}
	var driver any
	if query.driver != nil {
		driver = query.driver.String()
	}
	return map[string]any{
		"repository": repository, "driver": driver, "cards": cards, "images": images, "refused": refused, "lost": lost,
	}
}

// whole is a list that is written as [] where it is empty.
func whole(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (a *Advisories) whole() *Advisories {
	if a == nil {
		return nil
	}
	out := *a
	for _, list := range []*[]string{&out.NotReached, &out.Closed, &out.Open, &out.Severe, &out.Accepted} {
		*list = whole(*list)
	}
	return &out
}

// asJSON is as Python writes it with an indent of 2, letters as they are.
func asJSON(value any) (string, error) {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return out.String(), err
}
