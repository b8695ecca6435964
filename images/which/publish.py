"""Publishing the image of the program `which` beside the others: compared with pull, pushed, signed, tagged last."""

from __future__ import annotations

import json
from pathlib import Path

from images.catalogue import Catalogue, SigningKeys, fetch_catalogue, set_tag
from images.context import Context
from images.core import CheckFailed, NothingSelected, Unsafe, default_layout, process, work_folder
from images.distribution import Packed, push
from images.registry import Packing, Repository
from images.which.build import TAG, BuiltIn, build_which, read_program
from images.which.questions import differences, usual_questions

_SECONDS = 300.0


def publish_which(
    context: Context, repository: Repository, keys: SigningKeys | None, public: str, packing: Packing = "gzip"
) -> str:
    """Build the image for a repository, prove it, and let the tag `which` name it; its reference by digest.

    ``public`` is the public key that is built in, as PEM; "" for none. Raises NothingSelected where the repository has
    no catalogue, CheckFailed where the program answers other than pull, RegistryFailure, Unsafe.
    """
    catalogue, _ = fetch_catalogue(repository)
    if catalogue is None:
        raise NothingSelected(
            f"nothing is published in {repository.name}, so there is nothing to choose from",
            do="publish images first: ./inv publish --to REPO",
        )
    built_in = BuiltIn(repository.name, public)
    with work_folder("which") as folder:
        made = build_which(context, f"{context.matrix.image}:{TAG}", built_in, folder / "out")
        program = read_program(folder / "out")
        prove(context, program, repository.name, catalogue, folder)
        if public:
            see_catalogue(context, program, repository.name, folder)
    packed = Packed(default_layout().home / "packed")
    with context.report.step("push which") as step:
        pushed = push.push(
            made.facts,
            lambda: context.engine.save(made.facts.id),
            repository,
            packing,
            packed,
            context.report.line,
        )
        step.size(sum(layer.size for layer in pushed.layers))
    if keys is not None:
        keys.cosign.sign(repository.name, pushed.digest, keys.private)
    set_tag(repository, TAG, pushed.digest)
    return f"{repository.name}@{pushed.digest}"


def prove(context: Context, program: Path, repository: str, catalogue: Catalogue, folder: Path) -> None:
    """Ask the program and pull the usual questions about a catalogue. Raises CheckFailed where answers differ."""
    questions = list(usual_questions(context.variants))
    with context.report.step("which and pull, asked the same") as step:
        found = differences(program, questions, catalogue, repository, context.matrix, context.variants, folder)
        step.note(f"{len(questions)} questions, {len(found)} differences")
    if found:
        first = found[0]
        raise CheckFailed(
            f"the program which answers {len(found)} of {len(questions)} questions other than pull does",
            cause=f"the first: {json.dumps(first.question)[:300]}",
            do="mend images/which: ./inv test --engine has the comparison",
            where=f"pull: {json.dumps(first.by_pull)[:300]}; which: {json.dumps(first.by_program)[:300]}",
        )


def see_catalogue(context: Context, program: Path, repository: str, folder: Path) -> None:
    """Have the program fetch the catalogue, and verify it by the key that is built in.

    Raises CheckFailed where the key has not signed it. A registry that wants a login is told: the
    program has none.
    """
    nothing = folder / "nothing.jsonl"
    nothing.write_text("", encoding="utf-8")
    ca = {"SSL_CERT_FILE": str(context.ca)} if context.ca else {}
    try:
        process.run([str(program), "--from", repository, "--cases", str(nothing)], env=ca, timeout=_SECONDS)
        context.report.line("which has read the catalogue, and its signature is of the key that is built in")
    except process.ProcessFailed as error:
        if error.code != Unsafe.exit_code:
            context.report.line(f"which was not seen to read the catalogue: {error.tail.splitlines()[0]}", "yellow")
            return
        raise CheckFailed(
            "the program which does not take the catalogue that it is built for",
            cause=error.tail,
            do="publish with the key that signs the images: ./inv which --to REPO --key cosign.key",
            where=repository,
        ) from error
