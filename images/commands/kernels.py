"""`invoke kernels`: list the kernel wheels, make them, export them, push them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from images.commands.options import JSON, WHEELS, SelectorOptions, command, print_json, say_driver
from images.context import Context
from images.core import UTC, CheckFailed, Report, UsageError, human_bytes, print_out
from images.core.options import option
from images.kernels import (
    FILE,
    Compiler,
    Compiles,
    Need,
    Store,
    Stored,
    WheelPlace,
    choose_kernels,
    default_store,
    find_wheels,
    needs_of,
    provide,
    remote,
    users,
    wheel_line,
)
from images.matrix import Kernel, Selectors, Variants
from images.registry import Repository

_NAME_ONE = "name a repository: --wheels registry.example/team/wheels"


@dataclass(frozen=True)
class KernelsOptions(SelectorOptions):
    """What `invoke kernels` was asked."""

    list: bool = option("only say where each wheel is", False)
    export: str = option("copy the wheels to this folder, for pip", "")
    wheels: str = option(WHEELS, "")
    push: bool = option("write them to the repository of --wheels", False)
    dry_run: bool = option("say where each would come from", False)
    json: bool = option(JSON, False)


@command("kernels --list")
def kernels(context: Context, options: KernelsOptions) -> None:
    """Attention wheels built from source, by key: list, make, export, push them; --only takes their ids too."""
    manage_wheels(context, options)


def manage_wheels(context: Context, options: KernelsOptions) -> None:
    """List, make, export or push wheels. Without selectors it lists all there are."""
    if options.push and not options.wheels:
        raise UsageError("--push needs to know where to", do=_NAME_ONE)
    repository = context.repository(options.wheels) if options.wheels else None
    wanted = options.selectors(context)
    everything = wanted == Selectors() and not (options.export or options.push or options.dry_run)
    chosen = context.variants.kernels
    if not everything:
        chosen = choose_kernels(context.matrix, context.variants, wanted, context.locked)
        say_driver(context, wanted)
    needs = needs_of(chosen, context.checkout.locks, context.lock_states)
    wheels = Wheels(default_store(), repository, context.report)
    if options.dry_run and not options.json:
        describe_wheels(wheels, needs)
        return
    if everything or options.list or options.dry_run:
        list_wheels(wheels, needs, context.variants, as_json=options.json)
        return
    compiler = Compiler(context.checkout, context.matrix, lambda: context.engine, context.site, context.report)
    made = make_wheels(wheels, needs, compiler)
    if options.push:
        push_wheels(wheels, made)
    if options.export:
        export_wheels(wheels, made, Path(options.export))
    if options.json:
        print_json(made_json(made, context.variants))


@dataclass(frozen=True)
class Wheels:
    """Where wheels are: this machine's store, and a repository if one is named."""

    store: Store
    repository: Repository | None
    report: Report

    @property
    def place(self) -> str:
        """The repository's name, for people."""
        return self.repository.name if self.repository else ""


def list_wheels(wheels: Wheels, needs: Sequence[Need], variants: Variants, *, as_json: bool) -> None:
    """Print where each wheel is. Nothing is made or fetched."""
    found = find_wheels(needs, wheels.store, wheels.repository)
    if as_json:
        print_out(json.dumps([_json(one, variants) for one in found], indent=1))
        return
    rows = []
    for one in found:
        kernel, stored = one.need.kernel, one.stored
        where = wheels.place if one.where == "registry" else one.where
        size = human_bytes(stored.record.size) if stored else "-"
        key = one.need.key.digest[:12] if one.need.key else "-"
        rows.append([key, kernel.id, kernel.package, " ".join(kernel.capabilities), where, size, _date(stored)])
    wheels.report.table(rows, ["key", "kernel", "package", "archs", "where", "size", "made"])
    there = sum(one.where in ("store", "registry") for one in found)
    wheels.report.line(f"{there} of {len(found)} are there; the store is {wheels.store.root}")


def describe_wheels(wheels: Wheels, needs: Sequence[Need]) -> None:
    """Say where each wheel would come from, and how long the compiling of one should take."""
    for one in find_wheels(needs, wheels.store, wheels.repository):
        wheels.report.line(wheel_line(one, wheels.place, os.cpu_count() or 1))


def make_wheels(wheels: Wheels, needs: Sequence[Need], compiler: Compiles) -> dict[Kernel, Stored]:
    """Have all of them in the store. Raises UsageError for one whose stack is not locked."""
    for need in needs:
        if need.key is None:
            raise UsageError(
                f"{need.kernel.id} has no key: {need.kernel.lock} is not locked",
                cause="without the hash of its source nobody can say what the wheel was made of",
                do="./inv lock, where its index can be reached; or build its image, which compiles it along",
            )
    return provide(needs, wheels.store, compiler, wheels.repository, wheels.report.line)


def push_wheels(wheels: Wheels, made: Mapping[Kernel, Stored]) -> None:
    """Write wheels to the repository. Raises UsageError without one, RegistryFailure, Unsafe."""
    if wheels.repository is None:
        raise UsageError("--push needs to know where to", do=_NAME_ONE)
    for kernel, stored in made.items():
        with wheels.report.step(f"push {kernel.id}") as step:
            digest, new = remote.push(wheels.repository, stored, kernel.id)
            step.note(f"{'' if new else 'there already: '}{wheels.place}@{digest}")


def export_wheels(wheels: Wheels, made: Mapping[Kernel, Stored], folder: Path) -> list[Path]:
    """Copy wheels, each with its record beside it, to where pip can install them; their paths.

    The wheels of two arch lists have one file name, so several kernels get a folder each.
    """
    out = []
    for kernel, stored in made.items():
        place = folder / kernel.id if len(made) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        for file, name in ((stored.wheel, stored.wheel.name), (stored.folder / FILE, f"{stored.wheel.stem}.json")):
            _copy(file, place / name)
        out.append(place / stored.wheel.name)
        line = f"pip install torch=={stored.record.torch.partition('+')[0]} {shlex.quote(str(out[-1]))}"
        wheels.report.next_command(line, f"Python {kernel.python}, CUDA {kernel.cuda}, {' '.join(kernel.capabilities)}")
    return out


def _copy(file: Path, to: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=to.parent, prefix=".export-", delete=False) as part:
        try:
            with file.open("rb") as source:
                shutil.copyfileobj(source, part)
            part.flush()
            Path(part.name).chmod(0o644)
            Path(part.name).replace(to)
        except OSError as error:
            Path(part.name).unlink(missing_ok=True)
            raise CheckFailed(f"{to} could not be written", cause=str(error)) from error


def made_json(made: Mapping[Kernel, Stored], variants: Variants) -> list[dict[str, Any]]:
    """For machines: what was made, as `list_wheels` tells it."""
    return [_json(WheelPlace(Need(kernel, None), "store", stored), variants) for kernel, stored in made.items()]


def _date(stored: Stored | None) -> str:
    return datetime.fromtimestamp(stored.made, UTC).strftime("%Y-%m-%d") if stored else "-"


def _json(found: WheelPlace, variants: Variants) -> dict[str, Any]:
    kernel, stored = found.need.kernel, found.stored
    told: dict[str, Any] = {
        "id": kernel.id,
        "key": stored.digest if stored else found.need.key.digest if found.need.key else None,
        "package": kernel.package,
        "version": kernel.version,
        "torch": kernel.torch,
        "cuda": kernel.cuda,
        "python": kernel.python,
        "archs": list(kernel.capabilities),
        "where": found.where,
        "variants": users(variants, kernel),
    }
    if stored:
        told |= {"path": str(stored.wheel), "size": stored.record.size, "sha256": stored.record.sha256}
        told |= {"made": _date(stored), "seconds": stored.record.seconds}
    return told
