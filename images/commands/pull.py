"""`invoke pull`: the published image for a card, found, verified, pulled."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import asked_cards
from images.catalogue import (
    CardMatch,
    CardQuery,
    Catalogue,
    MatchResult,
    SigningKeys,
    answer_json,
    answer_lines,
    image_by_name,
    match_images,
    read_catalogue,
    reference_of,
    require_match,
    uuids_of,
)
from images.commands.options import JSON, command, print_json
from images.context import REPOSITORY, Context
from images.core import UsageError, can_write, default_layout, print_out, read_file, write_atomically
from images.core.options import option
from images.distribution import PULLED, check_disk_space
from images.distribution import pull as pulling
from images.docker import Way, docker_words, spec_by_way
from images.matrix import parse_driver
from images.registry import Cosign, Identity, Repository, find_cosign
from images.run.serve import Place, bring_all, refuse_cards_elsewhere, serve_words, spec_without_model


@dataclass(frozen=True, kw_only=True)
class PublisherOptions:
    """Which repository is read, and who must have signed what it has; "" for what was not said."""

    source: str = option(
        "the repository whose catalogue is read, such as registry.example.com/team/qwen", "", flag="from"
    )
    key: str = option(
        "with --from: a public key (cosign.pub) that must have signed what is read there", "", flag="verify-key"
    )
    identity: str = option(
        "with --from: a regular expression on the CI workflow that must have signed it instead",
        "",
        flag="verify-identity",
    )

    def keys(self, context: Context) -> SigningKeys | None:
        """How to verify; None, and a line that says so, where nothing is verified. Raises UsageError."""
        if self.key and self.identity:
            raise UsageError("--verify-key and --verify-identity exclude each other", do="name one")
        if not self.key and not self.identity:
            context.report.line("signatures are not verified: no --verify-key, no --verify-identity")
            return None
        signer = Path(self.key).expanduser() if self.key else Identity(self.identity)
        return SigningKeys(Cosign(find_cosign(say=context.report.line), ca=context.ca), signer=signer)


@dataclass(frozen=True, kw_only=True)
class CatalogueOptions(PublisherOptions):
    """Whose catalogue is asked, or which saved one."""

    offline: str = option("a saved catalogue instead (pull --save): no registry is asked, nothing is pulled", "")

    def catalogue(self, context: Context) -> Catalogue | None:
        """The catalogue, for who only asks; None where neither a repository nor a file was named.

        Raises NothingSelected, RegistryFailure, Unsafe, UsageError.
        """
        if self.offline:
            return saved_catalogue(self.offline)
        if not self.source:
            return None
        return pulling.read(context.named_repository(self.source, "--from"), self.keys(context))


@dataclass(frozen=True, kw_only=True)
class PullOptions(CatalogueOptions):
    """What `invoke pull` was asked. ``offline``: nothing is asked, nothing pulled; ``save`` saves the catalogue."""

    cards: Sequence[str] = option(
        "a card's name; repeat for the cards of one machine; without it, this machine's own", (), flag="card"
    )
    driver: str = option("its driver, such as 535.104", "")
    source: str = option(
        "the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)", "", flag="from"
    )
    name: str = option("the image of this tag instead, such as a variant's id", "")
    save: str = option("write the catalogue to this file", "")
    unsigned_artifact: bool = option("fetch compiled code that nobody has signed, too: it is code", False)
    no_artifact: bool = option("fetch no compiled code", False)
    dry_run: bool = option("find and verify, pull nothing", False)
    json: bool = option(JSON, False)


@command("pull --from registry.example.com/team/qwen")
def pull(context: Context, options: PullOptions) -> None:
    """The published image for a card: found, verified, pulled by digest; prints the command that runs it."""
    if options.offline:
        ask_saved(context, options)
    else:
        pull_images(context, options)


def pull_images(context: Context, options: PullOptions) -> None:
    """Find, verify, pull, tag, and print the command that runs it.

    Raises NoImageFits (4) where no card gets an image, RegistryFailure (6), Unsafe (7).
    """
    repository = context.named_repository(options.source, "--from")
    if not options.dry_run and not options.cards and not options.name:
        refuse_cards_elsewhere(context.running_engine(), "pull")
    query = card_query(context, options)  # a misspelt card is told before a registry is asked
    if not options.dry_run:
        context.require_engine()
    keys = options.keys(context)
    catalogue = pulling.read(repository, keys)
    if options.save:
        write_atomically(Path(options.save).expanduser(), catalogue.to_json())
        context.report.line(f"saved: {options.save}")
    resolved = find_images(context, options, query, catalogue)
    if not options.json:
        report_answer(context, repository.name, catalogue, resolved)
    for one in resolved.matches:
        with context.report.step(f"verify {one.image.variant}"):
            pulling.verify(repository, one.image, keys)
    if not options.dry_run:
        pull_verified(context, repository, resolved.matches)
        if not options.no_artifact and not options.cards:
            bring_compiled(context, repository, resolved.matches, Place(repository, keys, options.unsigned_artifact))
    local = "" if options.dry_run else context.matrix.image
    print_commands(repository.name, catalogue, query, resolved, options, local, way_here(context, options))
    if not options.dry_run and not options.json:
        for one in resolved.matches:
            uuids = uuids_of(one, query, resolved) if one.image.archs else ()
            serve = shlex.join(serve_words(one.image.variant, uuids))
            why = "the same with the settings that fit; MODEL: 3b-awq, or a folder"
            context.report.next_command(serve, why)


def ask_saved(context: Context, options: PullOptions) -> None:
    """What a saved catalogue has; its repository need not be named, nothing is asked of it."""
    query = card_query(context, options)
    catalogue = saved_catalogue(options.offline)
    resolved = find_images(context, options, query, catalogue)
    name = options.source or context.environment.get(REPOSITORY, "")
    if not options.json:
        report_answer(context, name, catalogue, resolved)
    print_commands(name, catalogue, query, resolved, options, "", way_here(context, options))


def saved_catalogue(offline: str) -> Catalogue:
    """The catalogue in a file. Raises UsageError where it cannot be read, Unsafe where it is none."""
    path = Path(offline).expanduser()
    return read_catalogue(read_file(path, "--save FILE saves a catalogue"), str(path))


def card_query(context: Context, options: PullOptions) -> CardQuery:
    """The cards and driver that were asked for; no cards where an image is named. Raises UsageError, NoImageFits."""
    if options.name:
        return CardQuery((), parse_driver(options.driver) if options.driver else None)
    asked = asked_cards(
        options.cards,
        options.driver,
        None if options.cards else context.report,
        purpose="to find an image for",
        do='name one: ./inv pull --card "RTX 2080 Ti" --driver 535.104; or the image for the CPU: --name cpu-…',
        machine=None if options.cards else context.machine,
    )
    return CardQuery.of(asked)


def find_images(context: Context, options: PullOptions, query: CardQuery, catalogue: Catalogue) -> MatchResult:
    """The images for the cards that were asked for. Raises NoImageFits where none of them gets one."""
    if options.name:
        resolved = MatchResult((CardMatch(image_by_name(catalogue, options.name), ()),))
    else:
        resolved = match_images(catalogue, context.matrix, context.variants, query.cards, query.driver)
    require_match(resolved)
    return resolved


def report_answer(context: Context, repository: str, catalogue: Catalogue, resolved: MatchResult) -> None:
    """What was found and why, as progress lines."""
    for line in answer_lines(repository, catalogue, resolved):
        context.report.line(line)


def print_commands(
    repository: str,
    catalogue: Catalogue,
    query: CardQuery,
    resolved: MatchResult,
    options: PullOptions,
    local: str,
    way: Way,
) -> None:
    """The commands that run what was found; ``local`` is the name that images have here, "" where none was pulled."""
    runs = []
    for one in resolved.matches:
        reference = f"{local}:{one.image.tag}" if local else reference_of(repository or "REPO", one.image)
        runs.append(run_words(one, reference, uuids_of(one, query, resolved), way))
    if options.json:
        print_json(answer_json(repository, catalogue, query, resolved, runs))
        return
    for run in runs:
        print_out(shlex.join(run))


def way_here(context: Context, options: PullOptions) -> Way:
    """How this machine's engine gives cards, "" where the images are for another machine's."""
    return "" if options.cards or not context.machine.cards else context.way_to_cards


def run_words(match: CardMatch, reference: str, uuids: Sequence[str] = (), way: Way = "") -> list[str]:
    """The docker command that serves a model with an image: on all cards, or on those with these UUIDs."""
    spec = spec_without_model(reference, cards=bool(match.image.archs), uuids=uuids)
    return docker_words(spec_by_way(spec, way), foreground=True)


def bring_compiled(context: Context, repository: Repository, found: Sequence[CardMatch], place: Place) -> None:
    """Fetch what the images compile on this machine's cards, verified, for `invoke serve` to put into the cache."""
    for one in found:
        here = f"{context.matrix.image}:{one.image.tag}"
        for kept in bring_all(context, repository, here, bool(one.image.archs), place):
            record = kept.record
            context.report.line(
                f"compiled code for {record.key.card or record.key.capability}: {record.called}, kept for ./inv serve "
                f"({kept.origin.text()})"
            )


def pulled_folder(context: Context) -> Path | None:
    """Where layers of a pull lie until it ends; None where the engine keeps them itself, or this user cannot write."""
    state = default_layout().home
    if context.engine.keeps_what_came():
        return None
    if can_write(state):
        return state / PULLED
    context.report.line(f"{state} cannot be written: a pull that breaks off begins anew (CARDSTOCK_HOME moves it)")
    return None


def pull_verified(context: Context, repository: Repository, found: Sequence[CardMatch]) -> None:
    """Have the engine fetch each image, and name it."""
    engine, report, name = context.engine, context.report, context.matrix.image
    home = pulled_folder(context)
    for one in found:
        pulling.refuse_old(engine, one.image)
    for one in found:
        image = one.image
        with report.step(f"pull {image.variant}") as step:
            if home is None:
                check_disk_space(engine, repository, image)
            tags = [f"{name}:{image.variant}", f"{name}:{image.tag}"]
            step.note(pulling.pull(engine, repository, image, tags, report.line, home=home))
    if engine.embedded:
        report.line(f"export DOCKER_HOST={engine.endpoint} first: the image is on the embedded engine")
