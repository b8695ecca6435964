"""`invoke test`: the project's own tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.build import RECORDS
from images.commands.options import SelectorOptions, command
from images.commands.pull import PublisherOptions, PullOptions, card_query, find_images
from images.context import Context
from images.core import CheckFailed, NothingSelected, UsageError, default_layout, process
from images.core.options import option
from images.distribution import UNPACKED, bring_unpacked
from images.distribution import pull as pulling
from images.proof.on_card.records import GpuRecord

# So many tests run at once, where there are processors for them: more would wait for the engine.
TEST_PROCESSES = 4
CRASH = "tests/crash"


@dataclass(frozen=True, kw_only=True)
class KindOptions:
    """Which kind of tests."""

    only: Sequence[str] = option("with --gpu: globs on the names of steps", ())
    engine: bool = option("only the tests that need a Docker engine", False)
    unit: bool = option("only those that need nothing", False)
    gpu: bool = option("the proof on this machine's card, in the image for it", False)
    without_engine: bool = option(
        "with --gpu: the published image, unpacked into a folder, where no Docker engine is", False
    )


@dataclass(frozen=True, kw_only=True)
class TestOptions(PublisherOptions, KindOptions):  # the kinds' flags first: invoke gives short names in this order
    """Which tests; without a flag, all that this machine can run without a card."""

    __test__ = False  # no test of pytest's

    source: str = option("with --without-engine: its repository (or $CARDSTOCK_REPOSITORY)", "", flag="from")
    name: str = option("with --without-engine: the image of this tag instead of the card's own", "")
    crash: bool = option("the crash campaign: kills, races, full disks, engine and registry started again", False)


@command("test --unit")
def test(context: Context, options: TestOptions) -> None:
    """The tests: all that this machine can run without a card, or one kind."""
    if options.without_engine:
        prove_without_engine(context, options)
    elif options.gpu:
        prove_on_card(context, options)
    else:
        run_tests(context, options)


def run_tests(context: Context, options: TestOptions) -> None:
    """pytest over what this machine can run; its closing line is the last thing printed. Raises CheckFailed."""
    argv = [sys.executable, "-m", "pytest", *folders_of(options), "--durations=10"]
    if folders_of(options) == [CRASH]:
        argv.append("--verbose")  # a test takes minutes
    elif folders_of(options) == ["tests/unit"]:
        argv += ["--cov", "--cov-report="]  # what is measured, and how much it must be: pyproject.toml
    workers = 1 if options.crash else min(os.cpu_count() or 1, TEST_PROCESSES)
    if workers > 1:
        # A file stays in one process; tests/conftest.py says which files too, and what comes first.
        argv += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
    code = process.stream(argv, lambda line: print(line, flush=True), cwd=context.checkout.root, check=False)
    if code:
        raise CheckFailed(f"pytest exited with {code}")


def folders_of(options: TestOptions) -> list[str]:
    """The folders with the tests that were asked for."""
    if options.crash:
        return [CRASH]
    if options.engine:
        return ["tests/engine"]
    return ["tests/unit"] if options.unit else ["tests/unit", "tests/engine"]


def prove_on_card(context: Context, options: TestOptions) -> None:
    """The image for this machine's card proves itself on it, and leaves a record."""
    from images.proof.on_card import proof

    card = proof.card_of(context.machine)
    variant = SelectorOptions(cards=[card]).select(context)[0]
    reference = f"{context.matrix.image}:{variant.id}"
    facts = context.engine.inspect(reference)
    if facts is None:
        raise NothingSelected(f"{reference} is not built", do=f"./inv build --only '{variant.id}'")
    root, report = context.checkout.root, context.report
    subject = proof.Subject.of(reference, facts, context.engine)
    kept, record = proof.prove(subject, root, root / RECORDS, context.engine.client_env(), report.line, options.only)
    tell(context, kept, record)


def prove_without_engine(context: Context, options: TestOptions) -> None:
    """The published image for this machine's card, unpacked below the state folder, proves itself; no engine is asked.

    Raises UsageError without --gpu, NoImageFits where no image fits, RegistryFailure, Unsafe, CheckFailed.
    """
    from images.proof.on_card import proof, without_engine

    if not options.gpu:
        raise UsageError("--without-engine belongs to --gpu", do="./inv test --gpu --without-engine --from REPO")
    asked = PullOptions(name=options.name)
    repository = context.named_repository(options.source, "--from")
    query = card_query(context, asked)
    keys = options.keys(context)
    catalogue = pulling.read(repository, keys)
    match = find_images(context, asked, query, catalogue).matches[0]
    with context.report.step(f"verify {match.image.variant}"):
        pulling.verify(repository, match.image, keys)
    home = default_layout().home / UNPACKED
    configuration, place = bring_unpacked(repository, match.image, home, context.report.line)
    subject = without_engine.Unpacked(place, configuration, match.image.digest, match.image.config)
    root = context.checkout.root
    kept, record = without_engine.prove_unpacked(subject, root, root / RECORDS, context.report.line, options.only)
    print(kept.read_text(encoding="utf-8"), end="")
    tell(context, kept, record)
    context.report.line(f"the image stays unpacked for the next run: rm -r {place.parent}")
    proof.require_passed(kept, record)


def tell(context: Context, kept: Path, record: GpuRecord) -> None:
    """What came of it, and how to send it in."""
    where = kept.relative_to(context.checkout.root)
    context.report.line(record.evidence())
    context.report.next_command(
        f"./inv records check {where}",
        f"then send it in: as records/cards/{kept.name} of a pull request, or in an issue",
    )
