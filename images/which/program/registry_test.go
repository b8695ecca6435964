package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake is a registry on loopback with one repository.
type fake struct {
	*httptest.Server
	tables    *Tables
	manifests map[string][]byte
	blobs     map[string][]byte
	// token is what it wants, "" for nothing; before answers first where it is set, and says whether it did.
	token  string
	before func(http.ResponseWriter, *http.Request) bool
	asked  []string
}

func newFake(t *testing.T) *fake {
	f := &fake{tables: tablesOf(t), manifests: map[string][]byte{}, blobs: map[string][]byte{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) name() string { return strings.TrimPrefix(f.URL, "http://") + "/team/qwen" }

func (f *fake) serve(to http.ResponseWriter, asked *http.Request) {
	f.asked = append(f.asked, asked.URL.Path)
	if f.before != nil && f.before(to, asked) {
		return
	}
	if asked.URL.Path == "/token" {
		fmt.Fprintf(to, `{"token": "%s"}`, f.token)
		return
	}
	if f.token != "" && asked.Header.Get("Authorization") != "Bearer "+f.token {
		to.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="test",scope="repository:team/qwen:pull"`)
		to.WriteHeader(http.StatusUnauthorized)
		return
	}
	place := strings.TrimPrefix(asked.URL.Path, "/v2/team/qwen/")
	kind, name, _ := strings.Cut(place, "/")
	found := map[string]map[string][]byte{"manifests": f.manifests, "blobs": f.blobs}[kind][name]
	if found == nil {
		to.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = to.Write(found)
}

func (f *fake) put(raw []byte) map[string]any {
	f.blobs[digestOf(raw)] = raw
	return map[string]any{"digest": digestOf(raw), "size": len(raw)}
}

// publish puts a catalogue there, and signs it with a key; nil: not at all.
func (f *fake) publish(t *testing.T, key *ecdsa.PrivateKey, catalogue any) string {
	layer := f.put(toJSON(t, catalogue))
	layer["annotations"] = map[string]any{titleNote: f.tables.Catalogue.File}
	manifest := toJSON(t, map[string]any{
		"artifactType": f.tables.Catalogue.Kind, "config": map[string]any{"mediaType": f.tables.Catalogue.Kind}, "layers": []any{layer},
	})
	f.manifests[f.tables.Catalogue.Tag] = manifest
	digest := digestOf(manifest)
	if key != nil {
		f.sign(t, key, digest, digest)
	}
	return digest
}

// sign puts a signature of `said` where that of `digest` is looked for.
func (f *fake) sign(t *testing.T, key *ecdsa.PrivateKey, digest, said string) {
	payload := []byte(`{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"` + said +
		`"},"type":"cosign container image signature"},"optional":null}`)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	layer := f.put(payload)
	layer["mediaType"] = signedForm
	layer["annotations"] = map[string]any{signatureNote: base64.StdEncoding.EncodeToString(signature)}
	f.manifests[strings.Replace(digest, ":", "-", 1)+".sig"] = toJSON(t, map[string]any{"layers": []any{layer}})
}

func newPair(t *testing.T) (*ecdsa.PrivateKey, string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cosign.pub")
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return private, file
}

func cardHost(t *testing.T) Host {
	return hostOf(t, map[string]string{"usr/bin/nvidia-smi": smi(smiXML, smiCaps, smiList, 0)}, nil)
}

func TestAVerifiedCatalogueOfARegistry(t *testing.T) {
	f := newFake(t)
	key, public := newPair(t)
	f.token = "abc.def"
	f.publish(t, key, catalogueOf(f.tables))
	code, out, said := ran(t, cardHost(t), "", "--from", f.name(), "--key", public)
	if code != 0 || !strings.HasPrefix(out, "docker run --rm --gpus device=1 ") || strings.Count(out, "\n") != 1 {
		t.Fatalf("%d %s %s", code, out, said)
	}
	wants(t, out, f.name()+"@sha256:")
	wants(t, said, "driver 535.104.05; NVIDIA GeForce RTX 3090 (8.6, 24 GB)", "audit: passed", "advisories: not known", "--all says why")
}

func TestWhatIsNotSignedByTheKey(t *testing.T) {
	key, public := newPair(t)
	other, _ := newPair(t)
	for name, test := range map[string]struct {
		publish func(*testing.T, *fake)
		words   string
	}{
		"no signature": {func(t *testing.T, f *fake) { f.publish(t, nil, catalogueOf(f.tables)) }, "no signature is on it"},
		"another key":  {func(t *testing.T, f *fake) { f.publish(t, other, catalogueOf(f.tables)) }, "no signature on it is of this key"},
		"of another manifest": {func(t *testing.T, f *fake) {
			f.sign(t, key, f.publish(t, nil, catalogueOf(f.tables)), "sha256:"+hashOf("other"))
		}, "the signature on it is for sha256:"},
		"payload changed": {func(t *testing.T, f *fake) {
			digest := f.publish(t, key, catalogueOf(f.tables))
			tag := strings.Replace(digest, ":", "-", 1) + ".sig"
			f.manifests[tag] = []byte(strings.Replace(string(f.manifests[tag]), "sha256:", "sha256:0", 1))
		}, "a manifest names bytes"},
		"catalogue changed": {func(t *testing.T, f *fake) {
			f.publish(t, key, catalogueOf(f.tables))
			f.publish(t, nil, catalogueOf(f.tables, f.tables.Variants[0].ID))
		}, "no signature is on it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			test.publish(t, f)
			code, out, said := ran(t, cardHost(t), "", "--from", f.name(), "--key", public)
			if code != exitUnsafe || out != "" {
				t.Fatalf("%d %s", code, out)
			}
			wants(t, said, test.words)
		})
	}
}

func TestWithoutAKeyNothingIsTrusted(t *testing.T) {
	f := newFake(t)
	f.publish(t, nil, catalogueOf(f.tables))
	code, out, said := ran(t, cardHost(t), "", "--from", f.name())
	if code != exitUnsafe || out != "" || len(f.asked) != 0 {
		t.Fatalf("%d %s %v", code, out, f.asked)
	}
	wants(t, said, "there is no key to verify it by", "--key cosign.pub")
	if code, _, said := ran(t, cardHost(t), "", "--from", f.name(), "--unverified"); code != 0 {
		t.Fatalf("%d %s", code, said)
	}
}

func TestFaultsOfRegistries(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*fake) func(http.ResponseWriter, *http.Request) bool
		code   int
		words  string
	}{
		"nothing published": {func(*fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, _ *http.Request) bool { to.WriteHeader(404); return true }
		}, exitNothing, "nothing is published in"},
		"broken": {func(*fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, _ *http.Request) bool { to.WriteHeader(502); return true }
		}, exitRegistry, "HTTP 502"},
		"a login": {func(*fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, _ *http.Request) bool {
				to.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				to.WriteHeader(401)
				return true
			}
		}, exitRegistry, "nothing without a login"},
		"a token service elsewhere": {func(*fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, _ *http.Request) bool {
				to.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.example.com/token"`)
				to.WriteHeader(401)
				return true
			}
		}, exitRegistry, "names no token service that can be asked"},
		"round and round": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, asked *http.Request) bool {
				http.Redirect(to, asked, f.URL+"/again", http.StatusFound)
				return true
			}
		}, exitRegistry, "sends on more than 5 times"},
		"too large": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, _ *http.Request) bool {
				_, _ = to.Write(make([]byte, mostManifest+1))
				return true
			}
		}, exitRegistry, "breaks off or is too large"},
		"another blob": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			return func(to http.ResponseWriter, asked *http.Request) bool {
				if !strings.Contains(asked.URL.Path, "/blobs/") {
					return false
				}
				_, _ = to.Write([]byte("x"))
				return true
			}
		}, exitUnsafe, "not what its digest says"},
		"another kind": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			f.manifests["catalogue"] = []byte(`{"artifactType": "application/vnd.example"}`)
			return nil
		}, exitUnsafe, "is not what was looked for"},
		"a newer kind": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			f.manifests["catalogue"] = []byte(`{"artifactType": "application/vnd.cardstock.catalogue.v2"}`)
			return nil
		}, exitUsage, "by a newer version"},
		"no file": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			f.manifests["catalogue"] = []byte(`{"artifactType": "application/vnd.cardstock.catalogue.v1", "layers": []}`)
			return nil
		}, exitUnsafe, "it holds no catalogue.json"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.publish(t, nil, catalogueOf(f.tables, f.tables.Variants[0].ID))
			f.before = test.before(f)
			registry, err := newRegistry(f.name())
			if err != nil {
				t.Fatal(err)
			}
			registry.wait = func(time.Duration) {}
			_, err = registry.catalogue(f.tables, nil)
			if err == nil || asFailure(err).Exit != test.code {
				t.Fatalf("%v", err)
			}
			wants(t, asFailure(err).lines(), test.words)
		})
	}
}

func TestARedirectTakesNoTokenElsewhere(t *testing.T) {
	f, other := newFake(t), newFake(t)
	f.token = "secret"
	f.publish(t, nil, catalogueOf(f.tables, f.tables.Variants[0].ID))
	other.blobs = f.blobs
	other.before = func(_ http.ResponseWriter, asked *http.Request) bool {
		if got := asked.Header.Get("Authorization"); got != "" {
			t.Errorf("%s got %s", asked.URL, got)
		}
		return false
	}
	f.before = func(to http.ResponseWriter, asked *http.Request) bool {
		if !strings.Contains(asked.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(to, asked, other.URL+asked.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	registry, _ := newRegistry(f.name())
	if _, err := registry.catalogue(f.tables, nil); err != nil || len(other.asked) != 1 {
		t.Fatal(err, other.asked)
	}
}

func TestRepositories(t *testing.T) {
	for _, name := range []string{"", "qwen", "team/qwen", "https://x.example/y", "x.example/Y", "x.example/y:tag", "x.example/y@sha256:0", "x.example/../y", "x.example:a/y"} {
		if _, err := newRegistry(name); err == nil || asFailure(err).Exit != exitUsage {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, base := range map[string]string{
		"registry.example.com/team/qwen": "https://registry.example.com/v2/team/qwen", "docker.io/qwen": "https://registry-1.docker.io/v2/library/qwen",
		"localhost:5000/q": "http://localhost:5000/v2/q", "127.0.0.1:5000/q": "http://127.0.0.1:5000/v2/q", "[::1]:5000/q": "http://[::1]:5000/v2/q",
		"10.0.0.1:5000/q": "https://10.0.0.1:5000/v2/q",
	} {
		if registry, err := newRegistry(name); err != nil || registry.base != base {
			t.Errorf("%q: %v %v", name, registry, err)
		}
	}
}

func TestFilesAndFlags(t *testing.T) {
	tables := tablesOf(t)
	catalogue := string(toJSON(t, catalogueOf(tables)))
	code, out, said := ran(t, cardHost(t), catalogue, "--catalogue", "-", "--from", "r.example.com/q", "--way", "cdi")
	if code != 0 || !strings.HasPrefix(out, "docker run --rm --device nvidia.com/gpu=1 ") {
		t.Fatalf("%d %s %s", code, out, said)
	}
	code, out, _ = ran(t, cardHost(t), catalogue, "--catalogue", "-", "--json")
	if code != 0 || !strings.HasPrefix(out, "{\n") {
		t.Fatalf("%d %s", code, out)
	}
	for _, arguments := range [][]string{{"--none"}, {"word"}, {"--way", "x"}, {"--catalogue", "/none/such"}, {"--from", "x"}, {"--from", "r.example.com/q", "--key", "/none"}} {
		if code, out, said := ran(t, cardHost(t), "", arguments...); code != exitUsage || out != "" || said == "" {
			t.Errorf("%v: %d %s %s", arguments, code, out, said)
		}
	}
	if code, _, said := ran(t, cardHost(t), "", "--help"); code != 0 || !strings.Contains(said, "docker run --rm --gpus all REPO:which") {
		t.Error(said)
	}
}

func TestTheKeyThatIsBuiltIn(t *testing.T) {
	f := newFake(t)
	key, public := newPair(t)
	f.publish(t, key, catalogueOf(f.tables))
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	built := Built{Key: string(text), Repository: f.name()}
	if code, out, said := with(t, built, cardHost(t)); code != 0 || !strings.Contains(out, f.name()+"@sha256:") {
		t.Fatalf("%d %s %s", code, out, said)
	}
	other, _ := newPair(t)
	f.publish(t, other, catalogueOf(f.tables, f.tables.Variants[0].ID))
	if code, out, _ := with(t, built, cardHost(t)); code != exitUnsafe || out != "" {
		t.Fatalf("%d %s", code, out)
	}
	built.Key = "no key"
	if code, _, _ := with(t, built, cardHost(t)); code != exitUsage {
		t.Error(code)
	}
}
