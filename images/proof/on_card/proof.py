"""`invoke test --gpu`: the proof of images/proof/on_card/prove.py inside an image, on a card of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import LocalMachine
from images.core import CheckFailed, NothingSelected, process, work_folder, write_atomically
from images.docker import ALL_CARDS, ContainerSpec, Engine, ImageFacts, Mount, Way, docker_words, spec_by_way
from images.proof.on_card.records import Given, GpuRecord, read_gpu_record
from images.proof.on_card.runs import NO_MULTICAST
from images.render import INPUT, VARIANT

PLACE = "/proof"
# Two servers that compile their models, and a checkpoint of 4 GB to make and read.
LIMIT = 5400.0


# What the record says of the ways that an engine has to give a card.
_GIVEN: Mapping[Way, Given] = {"cdi": "cdi", "nvidia": "gpus", "": ""}


@dataclass(frozen=True)
class Subject:
    """The image that is proven, and what runs it: what the record says of both, and nobody inside can see.

    ``digest`` is its manifest's, "" where it came from no registry; ``id`` its configuration's.
    """

    reference: str
    labels: Mapping[str, str]
    id: str = ""
    digest: str = ""
    engine: str = ""
    way: Way = ""

    @classmethod
    def of(cls, reference: str, facts: ImageFacts, engine: Engine) -> Subject:
        """An image of an engine."""
        name = "Podman" if engine.host().podman else "Docker"
        digests = dict.fromkeys(digest.rpartition("@")[2] for digest in facts.digests)
        # Two repositories may have packed it in two ways; then no digest is the image's.
        digest = next(iter(digests)) if len(digests) == 1 else ""
        return cls(reference, facts.labels, facts.id, digest, f"{name} {engine.version}", engine.way_to_cards)

    def words(self) -> list[str]:
        """As prove.py takes it."""
        said = {
            "--variant": self.labels.get(VARIANT, ""),
            "--input-hash": self.labels.get(INPUT, ""),
            "--image-digest": self.digest,
            "--image-id": self.id,
            "--engine": self.engine,
            "--given": _GIVEN[self.way],
        }
        return [word for flag, value in said.items() for word in (flag, value)]


def card_of(machine: LocalMachine) -> str:
    """The name of this machine's first card. Raises NothingSelected where there is none."""
    if not machine.cards:
        raise NothingSelected(
            "no card on this machine, so nothing was tried on one",
            cause=machine.why,
            do="run it on the GPU host, where nvidia-smi lists the card",
        )
    return machine.cards[0].name


def make_spec(subject: Subject, checkout: Path, out: Path, only: Sequence[str]) -> ContainerSpec:
    """The container of the proof: the checkout read-only, the record and all that is made for it in ``out``."""
    arguments = ["-m", "images.proof.on_card.prove", "--out", f"{PLACE}/record.json", "--scratch", f"{PLACE}/scratch"]
    arguments += subject.words()
    spec = ContainerSpec(
        subject.reference,
        (*arguments, *(word for glob in only for word in ("--only", glob))),
        entrypoint=("python",),
        env=(*NO_MULTICAST.items(), ("PYTHONPATH", "/checkout"), ("PYTHONDONTWRITEBYTECODE", "1")),
        mounts=(Mount(str(checkout), "/checkout"), Mount(str(out), PLACE, read_only=False)),
        gpus=ALL_CARDS,
        shm=4,
        network="none",
        workdir="/checkout",
        healthcheck=False,
    )
    return spec_by_way(spec, subject.way)


def prove(
    subject: Subject,
    checkout: Path,
    folder: Path,
    env: Mapping[str, str],
    say: Callable[[str], None],
    only: Sequence[str] = (),
) -> tuple[Path, GpuRecord]:
    """Run it in a container of the image, keep the record in ``folder``, and give its place and what it says.

    The engine must be this machine's: folders are mounted. Raises CheckFailed when a step failed or no record came.
    """
    with work_folder("gpu") as out:
        out.chmod(0o777)
        words = docker_words(make_spec(subject, checkout, out, only), foreground=True)
        code = process.stream(words, say, env=dict(env), check=False, timeout=LIMIT)
        kept, record = keep_record(
            out / "record.json",
            folder,
            f"docker run ended with {code}",
            "see that the container toolkit is set up: ./inv doctor",
        )
    require_passed(kept, record)
    return kept, record


def keep_record(told: Path, folder: Path, ended: str, do: str) -> tuple[Path, GpuRecord]:
    """Put a proof's record into ``folder``, named by card and image.

    Raises CheckFailed where there is none: ``ended`` says how the proof came to its end, ``do`` what may help.
    """
    if not told.is_file():
        raise CheckFailed(f"the proof left no record: {ended}", do=do, where="images/proof/on_card/prove.py")
    record = read_gpu_record(told)
    kept = folder / f"{record.card.lower().replace(' ', '-')}-{record.variant}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, told.read_text(encoding="utf-8"))
    return kept, record


def require_passed(kept: Path, record: GpuRecord) -> None:
    """Raise CheckFailed where a step of a kept record failed."""
    if bad := [step.name for step in record.steps if step.verdict == "failed"]:
        raise CheckFailed(f"failed on {record.card}: {', '.join(bad)}", where=str(kept))
