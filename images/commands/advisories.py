"""`invoke advisories`: known holes in what images carry, the gate on what is recommended, and asking what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from images.advisories import (
    DEBIAN_FILE,
    FILE,
    PROPOSAL_HEADER,
    READ_DEBIAN_PACKAGES,
    Lookup,
    Services,
    debian_record,
    exact,
    gate,
    lookup_file,
    packages_to_ask,
    propose,
    table,
    with_proposal,
)
from images.commands.options import JSON, SelectorOptions, command, print_json
from images.context import Context
from images.core import UTC, CheckFailed, UsageError, write_atomically
from images.core.options import option
from images.matrix import Variant


@dataclass(frozen=True)
class AdvisoriesOptions(SelectorOptions):
    """What `invoke advisories` was asked. Without a selector it speaks of the recommended images."""

    check: bool = option("fail where a chosen image has an open advisory that is high, critical or not rated", False)
    complete: bool = option("with --check: fail also where a package was not looked up by a service", False)
    update: bool = option("ask OSV and Debian's security tracker about all locks, and show the difference", False)
    write: bool = option(
        "with --update: write the difference into advisories.yaml; new ones are open until judged", False
    )
    record_debian: str = option("read the Debian packages of this image of the engine into records/packages", "")
    json: bool = option(JSON, False)


@command("advisories --card T4")
def advisories(context: Context, options: AdvisoriesOptions) -> None:
    """Known holes in what images carry: which serving reaches, what closes them, which are open; asks what is new."""
    if (options.complete and not options.check) or (options.write and not options.update):
        raise UsageError("--complete goes with --check, --write with --update")
    if options.record_debian:
        record_debian(context, options.record_debian, today())
    elif options.update:
        update(context, Services(context.site, context.ca, context.report.line), today(), options)
    else:
        show(context, options)


def today() -> date:
    """The day, in UTC."""
    return datetime.now(UTC).date()


def show(context: Context, options: AdvisoriesOptions) -> None:
    """Print the advisories of the chosen variants; with ``check`` raise CheckFailed for what a gate refuses."""
    chosen = chosen_variants(context, options)
    judged = [context.assessments.of(variant) for variant in chosen]
    known, covered = context.assessments.known, context.assessments.coverage(chosen)
    if options.json:
        rows = [table.assessment_json(one) for one in judged]
        print_json({**table.coverage_json(known, covered), "variants": rows})
    elif len(judged) == 1:
        context.report.table([table.finding_cells(one) for one in judged[0].findings], table.FINDING_HEADER)
    else:
        context.report.table([table.summary_cells(one) for one in judged], table.HEADER)
    report = context.report
    report.line(f"{FILE} is of {known.read}; {covered.text()}", "" if covered.complete else "yellow")
    if line := gate.age_line(known, today()):
        report.line(line, "yellow")
    if not options.check:
        return
    severe = [(one, finding) for one in judged for finding in (one.severe_open if options.complete else one.refused)]
    waiting = {f.name: f.advisory for one in judged for f in one.severe_open if f.deferred and not options.complete}
    for name, advisory in waiting.items():
        report.line(f"deferred: {name}: {advisory.deferred.why if advisory.deferred else ''}", "yellow")
    if severe:
        one, finding = severe[0]
        for refused, other in severe:
            report.line(f"open: {refused.variant.id}: {other.name}: {gate.cure(known, other)}", "red")
        refused_images = len({refused.variant.id for refused, _ in severe})
        raise CheckFailed(
            f"{refused_images} of {len(judged)} images have open advisories that are {table.SEVERE}; "
            f"the first: {one.variant.id}: {finding.name}",
            cause=f"{finding.advisory.what}; {finding.why}",
            do=gate.cure(known, finding),
            where=known.where_is(finding.advisory.id),
        )
    beside = f", beside {len(waiting)} that nobody could rate yet" if waiting else ""
    report.line(f"{len(judged)} images: 0 open advisories that are {table.SEVERE}{beside}", "green")
    if options.complete and not covered.complete:
        raise CheckFailed(
            f"not all packages were looked up by a service: {covered.text()}",
            cause="a package that nobody asked about is not known to be free of holes",
            do="./inv advisories --update --write where the services can be reached, and commit what it writes",
        )


def chosen_variants(context: Context, options: AdvisoriesOptions) -> Sequence[Variant]:
    """What the selectors choose; without one, the images that are recommended."""
    asked = options.archs or options.only or options.cards or options.cuda or options.attention or options.all
    return options.select(context) if asked else context.assessments.recommended


def update(context: Context, services: Services, day: date, options: AdvisoriesOptions) -> None:
    """Ask the services about every lock; print the difference, and write it if asked to.

    Raises RegistryFailure (6) where one of them cannot be asked: then nothing was looked up, and nothing is written.
    """
    if options.write:
        context.checkout.to_write(FILE, "advisories --update --write")
    assessments, report = context.assessments, context.report
    known = assessments.known
    carried = [assessments.carried(variant) for variant in _one_of_each_kind(context)]
    asked = packages_to_ask(known, carried, "pypi")
    pairs = [(name, version) for name, versions in asked.items() for version in versions]
    with report.step(f"ask OSV about {len(pairs)} packages") as step:
        found = services.python(pairs)
        step.note(f"{len(found)} holes")
    with report.step(f"ask Debian's security tracker about {len(assessments.debian)} source packages") as step:
        debian = services.debian(assessments.debian)
        step.note(f"{len(debian)} holes")
    proposal = propose(known, [*found, *debian], carried)
    if options.json:
        print_json([dict(zip(PROPOSAL_HEADER, row, strict=True)) for row in proposal.rows()])
    else:
        report.table(proposal.rows(), PROPOSAL_HEADER)
    report.line(f"{len(proposal.new)} new, {len(proposal.wider)} with a wider range")
    if not options.write:
        report.next_command("./inv advisories --update --write", "writes it; then judge what is new")
        return
    root = context.checkout.root
    text = with_proposal((root / FILE).read_text(encoding="utf-8"), proposal, day)
    packages = frozenset().union(*(exact(one.python) for one in carried))
    write_atomically(root / FILE, text)
    for lookup in (
        Lookup("OSV", "pypi", day, packages),
        Lookup("Debian's security tracker", "debian", day, exact(assessments.debian)),
    ):
        (root / lookup_file(lookup.ecosystem)).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(root / lookup_file(lookup.ecosystem), lookup.to_json())
    report.line(f"wrote {FILE} and the records of the look-up")
    report.next_command("./inv advisories --check", "what is new is open until it says whether serving reaches it")


def _one_of_each_kind(context: Context) -> list[Variant]:
    """Of the images that carry the same packages one: same lock, and the same left out."""
    valid = context.variants.valid.values()
    kinds = {(variant.lock, *(row.id for row in variant.unused_packages)): variant for variant in valid}
    return list(kinds.values())


def record_debian(context: Context, image: str, day: date) -> None:
    """Keep which Debian packages an image of the engine has. Raises UsageError where it does not tell."""
    root = context.checkout.to_write(DEBIAN_FILE, "advisories --record-debian")
    ran = context.engine.run(image, ["-c", READ_DEBIAN_PACKAGES], entrypoint=["/opt/venv/bin/python"])
    path = root / DEBIAN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, debian_record(ran.out, image.rpartition(":")[2], day.isoformat()))
    context.report.line(f"wrote {DEBIAN_FILE}")
