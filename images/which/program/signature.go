package main

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
)

// The form of signature that every cosign reads, and that Cardstock writes: a manifest under the tag sha256-….sig, a
// layer for each signature, with what was signed as its bytes and the signature as an annotation (cosign's
// SIGNATURE_SPEC.md).
const (
	signedForm     = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureNote  = "dev.cosignproject.cosign/signature"
	mostSigned     = 64 << 10 // bytes
	mostSignatures = 64
	mostKey        = 64 << 10
)

// Key is a public key that must have signed what is read, and where it is from.
type Key struct {
	public *ecdsa.PublicKey
	from   string
}

// readKey reads a public key of cosign's (cosign.pub: an ECDSA key as PEM).
func readKey(text []byte, from string) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, noKey(from, "it holds no PEM block")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, noKey(from, err.Error())
	}
	key, good := public.(*ecdsa.PublicKey)
	if !good {
		return nil, noKey(from, fmt.Sprintf("it is a %T, and an ECDSA key is read here", public))
	}
	return &Key{key, from}, nil
}

func noKey(from, cause string) *Failure {
	return &Failure{
		Exit: exitUsage, What: from + " is no public key that is read here", Cause: printable(cause, 200),
		Do: "give the publisher's public key (cosign.pub)",
	}
}

// verify holds a manifest of the repository against the key. It fails where no signature of this key is on it.
func (k *Key) verify(r *Registry, digest string) error {
	found, err := r.manifest(strings.Replace(digest, ":", "-", 1) + ".sig")
	if err != nil {
		return err
	}
	cause := "no signature is on it"
	if found != nil {
		for at, layer := range found.Layers {
			if layer.MediaType != signedForm || at >= mostSignatures {
				continue
			}
			signed, err := r.blob(layer, mostSigned)
			if err != nil {
				return err
			}
			if cause = k.judge(signed, layer.Annotations[signatureNote], digest); cause == "" {
				return nil
			}
		}
	}
	return &Failure{
		exitUnsafe, r.name + "@" + digest + " is not signed by this signer", cause,
		"do not use it; or see that the key is the publisher's", k.from,
	}
}

// judge says why a signature is not this key's on this manifest; "" where it is.
func (k *Key) judge(signed []byte, signature, digest string) string {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(raw) == 0 {
		return "a signature on it cannot be read"
	}
	sum := sha256.Sum256(signed)
	if !ecdsa.VerifyASN1(k.public, sum[:], raw) {
		return "no signature on it is of this key"
	}
	var said struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(signed, &said); err != nil || said.Critical.Type != "cosign container image signature" {
		return "what was signed is no signature of an image"
	}
	if said.Critical.Image.Digest != digest {
		return "the signature on it is for " + printable(said.Critical.Image.Digest, 80)
	}
	return ""
}
