"""`invoke pull`: words to cards and a catalogue, what was found to the engine and to what is printed."""

from __future__ import annotations

import json as json_module
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import all_cards, read_machine
from images.cards import match_card as named
from images.catalogue import (
    CardMatch,
    CardQuery,
    Catalogue,
    Keys,
    Resolved,
    answer_json,
    answer_lines,
    by_name,
    match_images,
    of_machine,
    read_catalogue,
    reference_of,
    refuse_all,
    uuids_of,
)
from images.commands._publish import WHERE, repository
from images.core import Report, UsageError, default_layout, read_site, write_atomically
from images.distribution import check_disk_space
from images.distribution import pull as pulling
from images.docker import docker_words
from images.matrix import Matrix, Variants, parse_driver
from images.registry import Cosign, Identity, Repository, find_cosign
from images.render import Checkout
from images.run.serve import serve_words, spec_without_model


@dataclass(frozen=True)
class Words:
    """What was typed. ``key`` or ``identity`` say who must have signed.

    ``offline`` is a saved catalogue's file: nothing is asked, nothing pulled; ``save`` saves one.
    """

    cards: Sequence[str] = ()
    driver: str = ""
    source: str = ""
    name: str = ""
    key: str = ""
    identity: str = ""
    offline: str = ""
    save: str = ""
    dry_run: bool = False
    json: bool = False


def pull(checkout: Checkout, matrix: Matrix, variants: Variants, words: Words) -> None:
    """Find, verify, pull, tag, and print the command that runs it.

    Raises NoImageFits (4) where no card gets an image, RegistryFailure (6), Unsafe (7).
    """
    report, site = Report(), read_site(checkout.root, os.environ)
    if words.offline:
        _ask_saved(matrix, variants, words, report)
        return
    shop = repository(words.source, "--from", site, report)
    keys = _keys(words, report)
    catalogue = _catalogue(words, shop, keys, report)
    asked, resolved = _resolved(words, matrix, variants, catalogue)
    refuse_all(resolved)
    local = matrix.image if not words.dry_run else ""
    if not words.json:
        _lines(shop.name, catalogue, resolved, report)
    for one in resolved.found:
        with report.step(f"verify {one.image.variant}"):
            pulling.verify(shop, one.image, keys)
    if not words.dry_run:
        _pull(matrix, shop, resolved.found, report)
    _tell(shop.name, catalogue, asked, resolved, words, local)
    if not words.dry_run and not words.json:
        for one in resolved.found:
            serve = serve_words(one.image.variant, uuids_of(one, asked, resolved) if one.image.archs else ())
            report.next_command(shlex.join(serve), "the same with the settings that fit; MODEL: 3b-awq, or a folder")


def _ask_saved(matrix: Matrix, variants: Variants, words: Words, report: Report) -> None:
    """What a saved catalogue has; its repository need not be named, nothing is asked of it."""
    catalogue = _saved(words.offline)
    asked, resolved = _resolved(words, matrix, variants, catalogue)
    refuse_all(resolved)
    name = words.source or os.environ.get(WHERE, "")
    if not words.json:
        _lines(name, catalogue, resolved, report)
    _tell(name, catalogue, asked, resolved, words, "")


def _lines(name: str, catalogue: Catalogue, resolved: Resolved, report: Report) -> None:
    for line in answer_lines(name, catalogue, resolved):
        report.line(line)


def _tell(name: str, catalogue: Catalogue, asked: CardQuery, resolved: Resolved, words: Words, local: str) -> None:
    """The commands that run what was found; ``local`` is the name that images have here, "" where none was pulled."""
    runs = [_run(local, name, one, asked, resolved) for one in resolved.found]
    if words.json:
        print(json_module.dumps(answer_json(name, catalogue, asked, resolved, runs), indent=1))
        return
    for run in runs:
        print(shlex.join(run))


def _keys(words: Words, report: Report) -> Keys | None:
    if words.key and words.identity:
        raise UsageError("--verify-key and --verify-identity exclude each other", do="name one")
    if not words.key and not words.identity:
        report.line("signatures are not verified: no --verify-key, no --verify-identity")
        return None
    signer = Path(words.key).expanduser() if words.key else Identity(words.identity)
    return Keys(Cosign(find_cosign(say=report.line)), signer=signer)


def published(checkout: Checkout, words: Words, report: Report) -> Catalogue:
    """The catalogue of the repository that the words name, or the saved one, for who only asks. Raises as `pull`."""
    if words.offline:
        return _saved(words.offline)
    site = read_site(checkout.root, os.environ)
    return _catalogue(words, repository(words.source, "--from", site, report), _keys(words, report), report)


def _saved(offline: str) -> Catalogue:
    path = Path(offline).expanduser()
    try:
        return read_catalogue(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read", cause=error.strerror or "", do="--save FILE saves a catalogue"
        ) from error


def _catalogue(words: Words, shop: Repository, keys: Keys | None, report: Report) -> Catalogue:
    catalogue = pulling.read(shop, keys)
    if words.save:
        write_atomically(Path(words.save).expanduser(), catalogue.to_json())
        report.line(f"saved: {words.save}")
    return catalogue


def _resolved(words: Words, matrix: Matrix, variants: Variants, catalogue: Catalogue) -> tuple[CardQuery, Resolved]:
    driver = parse_driver(words.driver) if words.driver else None
    if words.name:
        return CardQuery((), driver), Resolved((CardMatch(by_name(catalogue, words.name), ()),))
    if words.cards:
        names = [name.strip() for text in words.cards for name in text.split(",")]
        asked = CardQuery(tuple(named(name, all_cards()).card for name in names), driver)
    else:
        machine = read_machine()
        own = parse_driver(machine.driver) if machine.driver and driver is None else driver
        asked = of_machine(machine, own)
    return asked, match_images(catalogue, matrix, variants, asked.cards, asked.driver)


def _run(local: str, repository: str, found: CardMatch, asked: CardQuery, resolved: Resolved) -> list[str]:
    reference = f"{local}:{found.image.tag}" if local else reference_of(repository or "REPO", found.image)
    uuids = uuids_of(found, asked, resolved)
    return docker_words(spec_without_model(reference, cards=bool(found.image.archs), uuids=uuids), foreground=True)


def _pull(matrix: Matrix, shop: Repository, found: Sequence[CardMatch], report: Report) -> None:
    from images.docker import connect

    engine = connect(say=report.line)
    home = None if engine.keeps_what_came() else default_layout().home / "pulled"
    for one in found:
        image = one.image
        with report.step(f"pull {image.variant}") as step:
            check_disk_space(engine, shop, image)
            names = [f"{matrix.image}:{image.variant}", f"{matrix.image}:{image.tag}"]
            step.note(pulling.pull(engine, shop, image, names, report.line, home=home))
    if engine.embedded:
        report.line(f"export DOCKER_HOST={engine.endpoint} first: the image is on the embedded engine")
