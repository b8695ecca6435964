package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	mostManifest = 4 << 20 // bytes, as registries bound it
	mostToken    = 1 << 20
	mostSaid     = 8 << 10
	attempts     = 3
	hops         = 5
	requestTime  = 60 * time.Second
	titleNote    = "org.opencontainers.image.title"
)

var (
	hostForm   = regexp.MustCompile(`^(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?$`)
	pathForm   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	parameter  = regexp.MustCompile(`([A-Za-z_]+)[ \t]*=[ \t]*(?:"([^"]*)"|([^\s,"]*))`)
	version    = regexp.MustCompile(`^(.+)\.v([0-9]{1,6})$`)
	manifests  = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)

// Registry reads one repository, without a login: what it may not read, it says.
type Registry struct {
	name, host, path string
	base             string
	client           *http.Client
	token            string
	wait             func(time.Duration)
}

// newRegistry is the repository of a name such as "registry.example.com/team/qwen".
func newRegistry(name string) (*Registry, error) {
	host, path, _ := strings.Cut(name, "/")
	if !hostForm.MatchString(host) || !pathForm.MatchString(path) || !(strings.ContainsAny(host, ".:") || host == "localhost") {
		return nil, &Failure{
			Exit: exitUsage, What: fmt.Sprintf("%q is not a repository", printable(name, 200)),
			Cause: "it needs a host, then a path in lower case; no https:// before it, and neither tag nor digest",
			Do:    "write it as in registry.example.com/team/wheels",
		}
	}
	address := host
	switch strings.TrimSuffix(host, ":443") {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		address = "registry-1.docker.io"
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	scheme := "https"
	if isLoopback(host) { // plain http is spoken to this machine alone
		scheme = "http"
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		DisableCompression:     true, // bytes as they are: unpacked, they would not have their digest
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	registry := &Registry{
		name: name, host: host, path: path, base: scheme + "://" + address + "/v2/" + path, wait: time.Sleep,
		client: &http.Client{Transport: transport, Timeout: requestTime, CheckRedirect: checkRedirect},
	}
	return registry, nil
}

func isLoopback(host string) bool {
	name := host
	if at := strings.LastIndex(host, ":"); at >= 0 && digitsAt(host, at+1) == len(host)-at-1 {
		name = host[:at]
	}
	name = strings.Trim(name, "[]")
	address := net.ParseIP(name)
	return name == "localhost" || (address != nil && address.IsLoopback())
}

// checkRedirect follows a few, none that leaves encryption behind, and takes no token elsewhere.
func checkRedirect(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	if len(before) > hops {
		return fmt.Errorf("it sends on more than %d times", hops)
	}
	if before[len(before)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return fmt.Errorf("it sends on to an address without encryption, %s", next.URL.Host)
	}
	if next.URL.Scheme != first.Scheme || next.URL.Host != first.Host {
		next.Header.Del("Authorization")
	}
	return nil
}

func (r *Registry) failure(what, cause, do string) *Failure {
	if do == "" {
		do = "see that its name is right and that it answers from here; or bring its catalogue: --catalogue FILE"
	}
	return &Failure{exitRegistry, r.name + ": " + what, printable(cause, 300), do, r.host}
}

// get reads a path of the repository, or an address, of at most `most` bytes. It gives nil where there is nothing.
func (r *Registry) get(place, accept string, most int64) ([]byte, error) {
	address := place
	if !strings.Contains(place, "://") {
		address = r.base + "/" + place
	}
	var fault error
	for attempt := 0; attempt < attempts; attempt++ {
		if attempt > 0 {
			r.wait(time.Duration(attempt) * time.Second)
		}
		raw, again, err := r.once(address, accept, most)
		if err == nil || !again {
			return raw, err
		}
		fault = err
	}
	return nil, fault
}

// once asks, and once more with a token where the registry wants one. It says whether the fault may pass.
func (r *Registry) once(address, accept string, most int64) ([]byte, bool, error) {
	answer, err := r.send(address, accept, r.token)
	if err != nil {
		return nil, passes(err), r.failure("the registry cannot be asked", reason(err), "")
	}
	if answer.StatusCode == http.StatusUnauthorized && r.token == "" {
		challenge := answer.Header.Get("WWW-Authenticate")
		drop(answer)
		token, again, err := r.fetchToken(challenge)
		if err != nil {
			return nil, again, err
		}
		r.token = token
		if answer, err = r.send(address, accept, token); err != nil {
			return nil, passes(err), r.failure("the registry cannot be asked", reason(err), "")
		}
	}
	defer drop(answer)
	switch status := answer.StatusCode; {
	case status == http.StatusOK:
		raw, err := readBounded(answer.Body, most)
		if err != nil {
			return nil, passes(err), r.failure("the registry's answer breaks off or is too large", reason(err), "")
		}
		return raw, false, nil
	case status == http.StatusNotFound:
		return nil, false, nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, false, r.failure("the registry gives nothing without a login", said(answer),
			"bring its catalogue: ./inv pull --save FILE on a machine with the login, and here --catalogue FILE")
	default:
		again := status == http.StatusTooManyRequests || status >= 500
		return nil, again, r.failure("the registry does not give what it was asked for", said(answer), "")
	}
}

func (r *Registry) send(address, accept, token string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "cardstock-which")
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return r.client.Do(request)
}

// passes says whether a fault may pass: what a certificate or an address is, does not.
func passes(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout() || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// reason is an error without the address that Go puts before it: its query may be signed.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err.Error()
	}
	return err.Error()
}

func said(answer *http.Response) string {
	raw, _ := io.ReadAll(io.LimitReader(answer.Body, mostSaid))
	return fmt.Sprintf("HTTP %d: %s", answer.StatusCode, strings.TrimSpace(printable(string(raw), 200)))
}

func drop(answer *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, mostSaid))
	answer.Body.Close()
}

// fetchToken takes a challenge (Bearer realm="…",service="…",scope="…") to its token service, without a login.
func (r *Registry) fetchToken(challenge string) (string, bool, error) {
	scheme, rest, _ := strings.Cut(printable(challenge, 4096), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", false, r.failure("the registry gives nothing without a login", "it wants "+printable(scheme, 40),
			"bring its catalogue: ./inv pull --save FILE on a machine with the login, and here --catalogue FILE")
	}
	parts := map[string]string{}
	for _, found := range parameter.FindAllStringSubmatch(rest, 16) {
		parts[strings.ToLower(found[1])] = found[2] + found[3]
	}
	realm, err := url.Parse(parts["realm"])
	if err != nil || realm.Host == "" || (realm.Scheme != "https" && !(isLoopback(r.host) && isLoopback(realm.Host))) {
		return "", false, r.failure("it names no token service that can be asked", parts["realm"], "tell whoever runs it")
	}
	query := realm.Query()
	if parts["service"] != "" {
		query.Set("service", parts["service"])
	}
	if query.Set("scope", "repository:"+r.path+":pull"); parts["scope"] != "" {
		query.Set("scope", parts["scope"])
	}
	realm.RawQuery, realm.Fragment = query.Encode(), ""
	answer, err := r.send(realm.String(), "", "")
	if err != nil {
		return "", passes(err), r.failure("its token service cannot be asked", reason(err), "")
	}
	defer drop(answer)
	if answer.StatusCode != http.StatusOK {
		again := answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500
		return "", again, r.failure("its token service gives no token without a login", said(answer), "")
	}
	raw, err := readBounded(answer.Body, mostToken)
	if err != nil {
		return "", true, r.failure("its token service's answer breaks off", reason(err), "")
	}
	var told struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(raw, &told); err != nil || told.Token+told.AccessToken == "" {
		return "", false, r.failure("its token service answers without a token", "no JSON object with token or access_token", "")
	}
	token := told.Token
	if token == "" {
		token = told.AccessToken
	}
	if token != printable(token, len(token)) || strings.ContainsAny(token, " ?") {
		return "", false, r.failure("its token service gives a token that cannot be sent", "", "")
	}
	return token, false, nil
}

// Descriptor names bytes by their digest.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// Manifest is what stands under a tag.
type Manifest struct {
	ArtifactType string       `json:"artifactType"`
	Config       Descriptor   `json:"config"`
	Layers       []Descriptor `json:"layers"`
	digest       string
}

// manifest reads what a tag names; nil where there is none.
func (r *Registry) manifest(tag string) (*Manifest, error) {
	raw, err := r.get("manifests/"+tag, manifests, mostManifest)
	if raw == nil || err != nil {
		return nil, err
	}
	found := Manifest{digest: digestOf(raw)}
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, &Failure{Exit: exitUnsafe, What: r.name + ":" + tag + " is no artifact", Cause: printable(err.Error(), 200)}
	}
	return &found, nil
}

// blob reads bytes by their digest, at most `most` of them.
func (r *Registry) blob(wanted Descriptor, most int64) ([]byte, error) {
	if !digestForm.MatchString(wanted.Digest) || wanted.Size < 0 || wanted.Size > most {
		return nil, &Failure{
			Exit: exitUnsafe, What: r.name + ": a manifest names bytes that are not read",
			Cause: fmt.Sprintf("%s, %d bytes", printable(wanted.Digest, 80), wanted.Size),
		}
	}
	raw, err := r.get("blobs/"+wanted.Digest, "", wanted.Size)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, r.failure("the registry does not have what its manifest names", wanted.Digest, "tell whoever publishes there")
	}
	if found := digestOf(raw); found != wanted.Digest {
		return nil, &Failure{
			exitUnsafe, r.name + ": what the registry gives is not what its digest says",
			"asked for " + wanted.Digest + ", got " + found, "do not use it; tell whoever runs this registry", r.host,
		}
	}
	return raw, nil
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// catalogue reads the catalogue of the repository. With a key its signature is verified before anything in it is read.
func (r *Registry) catalogue(t *Tables, key *Key) (*Catalogue, error) {
	found, err := r.manifest(t.Catalogue.Tag)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, &Failure{
			Exit: exitNothing, What: "nothing is published in " + r.name, Cause: "it has no catalogue",
			Do: "see that its name is right; ./inv publish fills it",
		}
	}
	if key != nil {
		if err := key.verify(r, found.digest); err != nil {
			return nil, err
		}
	}
	where := r.name + ":" + t.Catalogue.Tag
	kind := found.ArtifactType
	if kind == "" {
		kind = found.Config.MediaType
	}
	if newer(kind, t.Catalogue.Kind) {
		return nil, &Failure{
			exitUsage, where + " was written by a newer version of Cardstock",
			"it is " + kind + ", and this program reads " + t.Catalogue.Kind, "take the newest program of that repository", "",
		}
	}
	if kind != t.Catalogue.Kind {
		return nil, &Failure{
			Exit: exitUnsafe, What: where + " is not what was looked for",
			Cause: "it is " + printable(kind, 100) + ", not " + t.Catalogue.Kind, Do: "see who wrote this tag",
		}
	}
	for _, layer := range found.Layers {
		if layer.Annotations[titleNote] == t.Catalogue.File {
			raw, err := r.blob(layer, mostCatalogue)
			if err != nil {
				return nil, err
			}
			return t.readCatalogue(raw, where)
		}
	}
	return nil, &Failure{
		Exit: exitUnsafe, What: "the catalogue cannot be trusted", Cause: "it holds no " + t.Catalogue.File, Where: where,
	}
}

// newer says whether a media type is of the same kind and of a later version.
func newer(said, kind string) bool {
	theirs, mine := version.FindStringSubmatch(said), version.FindStringSubmatch(kind)
	if theirs == nil || mine == nil || theirs[1] != mine[1] {
		return false
	}
	first, err1 := strconv.Atoi(theirs[2])
	second, err2 := strconv.Atoi(mine[2])
	return err1 == nil && err2 == nil && first > second
}
