"""Building the program `which`, and the image that holds it: with Go in a builder stage, so that no host needs Go."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import __version__
from images.context import Context
from images.core import CardstockError, CheckFailed, human_bytes, work_folder
from images.docker import LOGS, ImageFacts, build_inputs, run_bake
from images.matrix import Matrix, Variants
from images.which.tables import program_tables

SOURCES = Path("images/which")
PROGRAM = SOURCES / "program"
APT_INSTALL = Path("dockerfiles/build/apt-install")
TAG = "which"
EPOCH = 1735689600  # 2025-01-01, as the base image's files have it
LABEL = "dev.cardstock.which"


@dataclass(frozen=True)
class BuiltIn:
    """What the program knows beside its tables: the repository whose catalogue it reads, and the key that signed it."""

    repository: str = ""
    key: str = ""

    def as_json(self) -> str:
        """As `images/which/program/tables.go` reads it."""
        return json.dumps({"repository": self.repository, "key": self.key, "version": __version__}, indent=1) + "\n"


@dataclass(frozen=True)
class BuiltProgram:
    """The image that holds the program, by its name on the engine; its size unpacked."""

    reference: str
    facts: ImageFacts


def write_context(root: Path, folder: Path, matrix: Matrix, variants: Variants, built_in: BuiltIn) -> None:
    """The build context: Go's files of the checkout with the tables, what is built in, the script that installs Go."""
    program = folder / "program"
    program.mkdir(parents=True)
    for path in (*sorted((root / PROGRAM).glob("*.go")), root / PROGRAM / "go.mod"):
        shutil.copyfile(path, program / path.name)
    tables = json.dumps(program_tables(matrix, variants), ensure_ascii=False, separators=(",", ":"))
    (program / "tables.json").write_text(tables + "\n", encoding="utf-8")
    shutil.copy(root / APT_INSTALL, folder / APT_INSTALL.name)
    (folder / "built.json").write_text(built_in.as_json(), encoding="utf-8")


def build_which(context: Context, reference: str, built_in: BuiltIn, out: Path | None = None) -> BuiltProgram:
    """Build the image under the name ``reference``; the program alone goes into the folder ``out``.

    Go's own checks and tests run before. Raises CheckFailed where one of them or the build fails.
    """
    root, engine, report = context.checkout.root, context.engine, context.report
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    contexts = build_inputs.named_contexts(context.matrix, (), engine, context.site, report)
    with work_folder("which") as folder:
        write_context(root, folder / "context", context.matrix, context.variants, built_in)
        secrets = build_inputs.secrets(folder, context.site, ())
        file = folder / "bake.json"
        file.write_text(bake_file(root, folder / "context", dict(contexts), secrets, reference, out), encoding="utf-8")
        with report.step("build which"):
            log = root / LOGS / "which.log"
            targets = ["image", *(["program"] if out else [])]
            run_bake(root, [file], targets, engine.cli_env(), log, report)
    facts = engine.inspect(reference)
    if facts is None:
        raise CheckFailed("the build of which ended well but left no image", where=str(log))
    report.line(f"{reference}: {human_bytes(facts.size)} unpacked")
    return BuiltProgram(reference, facts)


def bake_file(
    root: Path,
    folder: Path,
    contexts: dict[str, str],
    secrets: tuple[tuple[str, str], ...],
    reference: str,
    out: Path | None,
) -> str:
    """What bake is told: the image, and the program as a file."""
    common: dict[str, Any] = {
        "context": str(folder),
        "dockerfile": str(root / SOURCES / "Dockerfile"),
        "contexts": contexts,
        "secret": [f"id={name},src={path}" for name, path in secrets],
        "platforms": ["linux/amd64"],
        "args": {"SOURCE_DATE_EPOCH": str(EPOCH)},  # the image's own time: the same program is the same image
    }
    labels = {
        LABEL: __version__,
        "org.opencontainers.image.title": "which image of Cardstock's this machine's cards and driver want",
        "org.opencontainers.image.licenses": "Apache-2.0 AND BSD-3-Clause AND LGPL-2.1-or-later AND MPL-2.0",
    }
    targets = {"image": {**common, "target": "image", "tags": [reference], "labels": labels, "output": ["type=docker"]}}
    if out is not None:
        targets["program"] = {**common, "target": "program", "output": [f"type=local,dest={out}"]}
    return json.dumps({"target": targets}, indent=1)


def read_program(folder: Path) -> Path:
    """The program that `build_which` left in a folder. Raises CardstockError where it did not."""
    program = folder / "which"
    if not program.is_file():
        raise CardstockError("the build of which left no program", where=str(folder))
    program.chmod(0o755)
    return program
