"""Where an image comes from, as a SLSA provenance predicate: the commit, the inputs, who built it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from images import __version__

TYPE = "https://slsa.dev/provenance/v1"
STATEMENT = "application/vnd.in-toto+json"
FILE = "provenance.json"
# What the parameters below mean is said here, in the form that SLSA wants: a name, no address to fetch from.
BUILD_TYPE = "urn:cardstock:invoke-publish:v1"


@dataclass(frozen=True)
class Builder:
    """Who built: the URL of a CI run, or "local"; and the source's URL where it is known."""

    id: str
    source: str = ""


def builder_of(environment: Mapping[str, str]) -> Builder:
    """The CI run that this is, by the variables that GitHub sets; else this machine."""
    server, repository, run = (environment.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if not (environment.get("GITHUB_ACTIONS") == "true" and server and repository and run):
        return Builder("urn:cardstock:local")
    return Builder(f"{server}/{repository}/actions/runs/{run}", f"git+{server}/{repository}")


def predicate(
    variant: str,
    input_hash: str,
    revision: str,
    created: str,
    builder: Builder,
    advisories: Mapping[str, Any] | None = None,
) -> str:
    """The predicate as JSON: the same image gives the same text. ``revision`` is a commit, ``created`` RFC 3339.

    ``advisories`` is what was known of its holes, and which of them were accepted by name.
    """
    source = {"digest": {"gitCommit": revision}} | ({"uri": builder.source} if builder.source else {})
    content = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"variant": variant},
            "internalParameters": {
                "inputs": {"sha256": input_hash},
                "cardstock": __version__,
                **({"advisories": dict(advisories)} if advisories else {}),
            },
            "resolvedDependencies": [source],
        },
        "runDetails": {"builder": {"id": builder.id}, "metadata": {"finishedOn": created}},
    }
    return json.dumps(content, indent=1) + "\n"


def statement(name: str, digest: str, content: str) -> str:
    """An in-toto statement that says a predicate of the image ``digest``."""
    subject = {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
    told = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": TYPE,
        "predicate": json.loads(content),
    }
    return json.dumps(told, indent=1) + "\n"
