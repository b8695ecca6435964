package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tablesOf(t testing.TB) *Tables {
	t.Helper()
	tables, err := readTables(tablesText)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func hashOf(word string) string {
	sum := sha256.Sum256([]byte(word))
	return hex.EncodeToString(sum[:])
}

// catalogueOf is a catalogue with an image of each of these variants (none named: of all that are for cards).
func catalogueOf(tables *Tables, ids ...string) map[string]any {
	images, layers, moving := []any{}, map[string]any{}, map[string]any{}
	for _, one := range tables.Variants {
		if len(one.archs) == 0 || (len(ids) > 0 && !contains(ids, one.ID)) {
			continue
		}
		input, layer, digest := hashOf("input "+one.ID), "sha256:"+hashOf("layer "+one.ID), "sha256:"+hashOf(one.ID)
		layers[layer] = 1500000000
		moving[one.ID] = []any{digest}
		images = append(images, map[string]any{
			"variant": one.ID, "digest": digest, "config": "sha256:" + hashOf("config "+one.ID), "input": input,
			"tag": one.ID + "-" + input[:12], "stack": "cu124", "engine": one.Backend, "attention": "sdpa", "cuda": "12.4",
			"archs": one.ArchTexts, "audited": one.ArchTexts, "min_driver": one.MinDriver, "pins": map[string]any{"torch": "2.6.0"},
			"packing": "gzip", "layers": []any{layer}, "compressed": 1500000000, "unpacked": 5000000000,
			"evidence": []any{map[string]any{"level": "audit", "status": "passed", "at": "2026-11-21T12:00:00Z"}},
			"revision": "0", "created": "2026-11-21T12:00:00Z", "published": "2026-11-21T12:00:00Z",
		})
	}
	return map[string]any{"schema": 1, "updated": "2026-11-21T12:00:00Z", "images": images, "layers": layers, "moving": moving}
}

func toJSON(t testing.TB, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// hostOf is a host whose file system is a folder with these files; those that begin with "#!" can be run.
func hostOf(t testing.TB, files map[string]string, env map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return Host{root: root, path: "/usr/bin:/bin", env: func(name string) string { return env[name] }}
}

// ran is what the program prints and its exit code.
func ran(t testing.TB, host Host, in string, arguments ...string) (int, string, string) {
	t.Helper()
	var out, said bytes.Buffer
	code := run(arguments, host, strings.NewReader(in), &out, &said)
	return code, out.String(), said.String()
}

func wants(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in:\n%s", word, text)
		}
	}
}

// TestMain tests a program without key and repository, whatever it is being built with.
func TestMain(m *testing.M) {
	builtText = []byte("{}")
	os.Exit(m.Run())
}

// with runs the program as if this were built in.
func with(t testing.TB, built Built, host Host, arguments ...string) (int, string, string) {
	t.Helper()
	before := builtText
	builtText = toJSON(t, built)
	defer func() { builtText = before }()
	return ran(t, host, "", arguments...)
}
