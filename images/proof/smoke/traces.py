"""The checks of level 2 for what a build has left in an image and should not have. Pure."""

from __future__ import annotations

import re

from images.proof.smoke.findings import Findings

_URL = re.compile(r"https?://[^\s\"'<>]+")
_LOGIN_URL = re.compile(r"[a-z][a-z+]*://[^\s/:@]*:[^\s/@]+@")
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|ACCESS_KEY|API_KEY)$", re.IGNORECASE)
_BUILDER_NAME = re.compile(
    r"(PIP|UV)_\w*(INDEX|URL|CERT|PROXY|TRUSTED)\w*|(HTTPS?|ALL|FTP)_PROXY|"
    r"SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
    re.IGNORECASE,
)
_PUBLIC_LABELS = tuple(f"org.opencontainers.image.{name}" for name in ("url", "source", "documentation"))


def check_leftovers(findings: Findings) -> list[str]:
    """Nothing of the build: caches, package lists, sources, mounted secrets, the builder's own certificates."""
    out = [f"left by the build: {path}" for path in findings.probe["caches"]]
    out += [f"a secret is mounted or left: {path}" for path in findings.probe["secrets"]]
    for row in findings.probe["configurations"]:
        out.append(f"{row['path']} names an index, proxy or login: {_hidden(row['line'])}")
    private = sorted(findings.private_cas.intersection(findings.probe["certificates"]))
    return out + [f"trusts a certificate that only the building host has: sha256 {digest}" for digest in private]


def check_traces(findings: Findings) -> list[str]:
    """No index URL, login or secret in the environment, the labels or the history."""
    out = []
    for name, value in findings.config.env.items():
        if _SECRET_NAME.search(name) and value:
            out.append(f"environment variable {name} looks like a secret")
        elif _BUILDER_NAME.fullmatch(name):
            out.append(f"environment variable {name} tells about the builder: {_hidden(value)}")
        elif _URL.search(value):
            out.append(f"environment variable {name} holds a URL: {_hidden(value)}")
    for name, value in findings.config.labels.items():
        if _LOGIN_URL.search(value) or (_URL.search(value) and name not in _PUBLIC_LABELS):
            out.append(f"label {name} holds a URL: {_hidden(value)}")
    for command in findings.config.history:
        if not command.startswith("LABEL ") and (url := _URL.search(command)):
            out.append(f"the history holds a URL: {_hidden(url[0])}")
    return out


def _hidden(text: str) -> str:
    """Without logins: a complaint goes to logs."""
    return _LOGIN_URL.sub("…://…@", text)[:160]
