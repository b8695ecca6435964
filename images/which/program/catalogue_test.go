package main

import (
	"encoding/json"
	"math/rand"
	"strings"
	"testing"
)

func TestACatalogueThatIsWhole(t *testing.T) {
	tables := tablesOf(t)
	catalogue, err := tables.readCatalogue(toJSON(t, catalogueOf(tables)), "here")
	if err != nil || len(catalogue.Images) < 100 || len(catalogue.current()) != len(catalogue.Images) {
		t.Fatal(err)
	}
}

func TestACatalogueThatIsNot(t *testing.T) {
	tables := tablesOf(t)
	id := tables.Variants[0].ID
	image := func(change func(map[string]any)) func(map[string]any) {
		return func(whole map[string]any) { change(whole["images"].([]any)[0].(map[string]any)) }
	}
	set := func(key string, value any) func(map[string]any) {
		return image(func(one map[string]any) { one[key] = value })
	}
	for name, test := range map[string]struct {
		change func(map[string]any)
		words  string
	}{
		"unknown field":   {func(whole map[string]any) { whole["Images"] = nil }, "Images: is not expected"},
		"no update":       {func(whole map[string]any) { delete(whole, "updated") }, "updated: is missing"},
		"a terminal word": {set("revision", "\x1b[31m"), "images.0.revision: should match"},
		"a tag with a ;":  {set("variant", "x;y"), "images.0.variant: should match"},
		"no digest":       {set("digest", "sha256:1"), "images.0.digest: should match"},
		"a size as text":  {set("compressed", "1"), "images.0.compressed: should be an integer"},
		"a size of 1.5":   {set("unpacked", 1.5), "images.0.unpacked: should be an integer"},
		"a size below 0":  {set("unpacked", -1), "should be at least 0"},
		"too large":       {set("unpacked", int64(1)<<60), "should be at most"},
		"not its layers":  {set("compressed", 1), "its size is not that of its layers"},
		"another tag":     {set("tag", id+"-000000000000"), "is not made of its variant and inputs"},
		"unknown arch":    {set("archs", []any{"7.6"}), "images.0.archs.0: should match"},
		"not audited":     {set("audited", []any{"5.0"}), "audited is 5.0"},
		"an engine":       {set("engine", "other"), "should be one of vllm, transformers"},
		"a driver":        {set("min_driver", 525), "images.0.min_driver"},
		"no evidence":     {set("evidence", []any{}), "should have 1 items or more"},
		"not run":         {set("evidence", []any{map[string]any{"level": "audit", "status": "not run", "at": "2026-11-21T12:00:00Z"}}), "nothing is proven"},
		"failed":          {set("evidence", []any{map[string]any{"level": "audit", "status": "failed", "at": "2026-11-21T12:00:00Z"}}), "should be one of passed"},
		"a stranger":      {func(whole map[string]any) { whole["moving"].(map[string]any)["x"] = []any{"sha256:" + hashOf("x")} }, "which is no image here"},
		"a tag of others": {func(whole map[string]any) {
			moving := whole["moving"].(map[string]any)
			moving[id] = moving[tables.Variants[1].ID]
		}, "names an image of another variant"},
		"an image twice": {func(whole map[string]any) {
			whole["images"] = append(whole["images"].([]any), whole["images"].([]any)[0])
		}, "two images have one digest"},
		"no layer": {func(whole map[string]any) { whole["layers"] = map[string]any{} }, "no size of its layer"},
	} {
		t.Run(name, func(t *testing.T) {
			var whole map[string]any
			if err := json.Unmarshal(toJSON(t, catalogueOf(tables)), &whole); err != nil {
				t.Fatal(err)
			}
			test.change(whole)
			_, err := tables.readCatalogue(toJSON(t, whole), "here")
			if err == nil || asFailure(err).Exit != exitUnsafe {
				t.Fatalf("%v", err)
			}
			wants(t, asFailure(err).Cause, test.words)
		})
	}
}

func TestANewerCatalogue(t *testing.T) {
	_, err := tablesOf(t).readCatalogue([]byte(`{"schema": 2, "of": "tomorrow"}`), "here")
	if err == nil || asFailure(err).Exit != exitUsage {
		t.Fatal(err)
	}
	wants(t, err.Error(), "form 2, this program reads form 1")
}

func TestOddJSON(t *testing.T) {
	tables := tablesOf(t)
	for name, text := range map[string]string{
		"deep": strings.Repeat("[", 100000), "deep object": strings.Repeat(`{"a":`, 100000), "twice": `{"moving": {}, "moving": {}}`,
		"behind": `{} {}`, "nothing": "", "no JSON": "\xff\xfe", "null": "null", "list": "[]", "number": "1e999999999",
	} {
		if _, err := tables.readCatalogue([]byte(text), "here"); err == nil || asFailure(err).Exit != exitUnsafe {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBrokenCatalogues(t *testing.T) {
	tables, chance := tablesOf(t), rand.New(rand.NewSource(18))
	text := string(toJSON(t, catalogueOf(tables, tables.Variants[0].ID, tables.Variants[9].ID)))
	query := Query{cards: []Card{{Name: "x", arch: Arch{8, 6}}}, driver: Driver{580}}
	for round := 0; round < 3000; round++ {
		catalogue, err := tables.readCatalogue(broken(chance, text), "here")
		if err == nil {
			tables.match(catalogue, query).lines("", catalogue)
		}
	}
}

func FuzzCatalogue(f *testing.F) {
	tables := tablesOf(f)
	f.Add(toJSON(f, catalogueOf(tables, tables.Variants[0].ID)))
	f.Add([]byte(`{"schema": 1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if catalogue, err := tables.readCatalogue(raw, ""); err == nil {
			tables.match(catalogue, Query{cards: []Card{{Name: "x", arch: Arch{8, 6}}}})
		}
	})
}

func TestWordsForAShell(t *testing.T) {
	words := []string{"docker", "it's", "", "a b", `"device=a,b"`, "x=y", "ü"}
	if got, want := shell(words), `docker 'it'"'"'s' '' 'a b' '"device=a,b"' x=y 'ü'`; got != want {
		t.Errorf("%s", got)
	}
	for count, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.00 kB", 2.98e9: "2.98 GB", 99.95e6: "100 MB", 12.34e9: "12.3 GB", 5e15: "5000 TB"} {
		if got := humanBytes(count); got != want {
			t.Errorf("%v: %s, not %s", count, got, want)
		}
	}
}
