"""`invoke publish`: words to a press, jobs to what was published."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.build import Job
from images.build import build as building
from images.catalogue import PublishedImage, SigningKeys
from images.core import Report, SiteSettings, UsageError, default_layout, read_site
from images.distribution import Packed, Press, prover, publish_checks
from images.distribution import publish as publishing
from images.distribution import rollback as published
from images.docker import Engine, ca_bundle, connect
from images.matrix import Matrix, Variant, Variants
from images.registry import Cosign, Repository, find_cosign
from images.render import Checkout

WHERE = "CARDSTOCK_REPOSITORY"


@dataclass(frozen=True)
class Words:
    """What was typed beside the selectors: ``key`` is a private key's file; ``keyless``: sign as this CI job."""

    to: str = ""
    key: str = ""
    keyless: bool = False
    zstd: bool = False
    gpus: str = ""
    wheels: str = ""
    dry_run: bool = False
    json: bool = False


def repository(name: str, flag: str, site: SiteSettings, report: Report) -> Repository:
    """The repository that a flag names, or $CARDSTOCK_REPOSITORY. Raises UsageError where neither does."""
    name = name or os.environ.get(WHERE, "")
    if not name:
        raise UsageError(
            "no repository is named", do=f"say which: {flag} registry.example.com/team/qwen, or set {WHERE}"
        )
    return Repository(name, ca=ca_bundle(site.ca), say=report.line)


def keys(words: Words, report: Report) -> SigningKeys | None:
    """How to sign; None (and a line that says so) where nothing is signed."""
    if not words.key and not words.keyless:
        report.line("not signed: no --key, no --keyless")
        return None
    if words.key and words.keyless:
        raise UsageError("--key and --keyless exclude each other", do="name one")
    private = Path(words.key).expanduser() if words.key else None
    if private and not private.is_file():
        raise UsageError(f"there is no key {private}", do="cosign generate-key-pair makes one")
    return SigningKeys(Cosign(find_cosign(say=report.line)), private)


def publish(checkout: Checkout, matrix: Matrix, variants: Variants, jobs: Sequence[Job], words: Words) -> None:
    """Publish the images of these jobs, and print what is there now."""
    report, site = Report(), read_site(checkout.root, os.environ)
    target = repository(words.to, "--to", site, report)
    if words.dry_run:
        published.tell(published.Stand(checkout, target, report), jobs)
        return
    publish_checks.refuse_unlocked(jobs)
    publish_checks.clean_revision(checkout.root)
    signing = keys(words, report)
    engine = connect(say=report.line)
    press = _press(checkout, matrix, variants, engine, target, words, report, signing)

    def build(missing: Sequence[Job]) -> None:
        wheels = Repository(words.wheels, ca=ca_bundle(site.ca), say=report.line) if words.wheels else None
        building.build(checkout, matrix, missing, engine, site, report, gpus=words.gpus or None, repository=wheels)

    done = publishing.publish(press, jobs, build, prove_again=bool(words.gpus))
    _tell(target, [one.image for one in done], words.json)
    report.next_command(f"./inv pull --from {target.name}", "on a machine with a card")


def roll_back(checkout: Checkout, matrix: Matrix, variants: Variants, chosen: Sequence[Variant], words: Words) -> None:
    """Move the moving tags of these variants back, and print what they name then. No engine is needed."""
    report, site = Report(), read_site(checkout.root, os.environ)
    target = repository(words.to, "--to", site, report)
    stand = published.Stand(checkout, target, report, keys(words, report))
    _tell(target, published.roll_back(stand, chosen), words.json)


def _press(
    checkout: Checkout,
    matrix: Matrix,
    variants: Variants,
    engine: Engine,
    target: Repository,
    words: Words,
    report: Report,
    signing: SigningKeys | None,
) -> Press:
    return Press(
        checkout=checkout,
        matrix=matrix,
        variants=variants,
        engine=engine,
        repository=target,
        packed=Packed(default_layout().home / "packed"),
        packing="zstd" if words.zstd else "gzip",
        prove=prover(engine, report, words.gpus or None),
        report=report,
        keys=signing,
    )


def _tell(target: Repository, images: Sequence[PublishedImage], as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [
            {"reference": f"{target.name}@{image.digest}", **image.model_dump(mode="json")} for image in images
        ]
        print(json_module.dumps(rows, indent=1))
        return
    for image in images:
        print(f"{target.name}@{image.digest}")
