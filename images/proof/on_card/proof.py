"""`invoke test --gpu`: the proof of images/proof/on_card/prove.py inside an image, on a card of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images.cards import LocalMachine
from images.core import CheckFailed, NothingSelected, process, work_folder
from images.docker import ALL_CARDS, ContainerSpec, Mount, Way, docker_words, spec_by_way
from images.proof.on_card import records as gpu_records
from images.proof.on_card.lighter_containers import NO_MULTICAST
from images.proof.on_card.records import GpuRecord
from images.render import INPUT, VARIANT

PLACE = "/proof"
# Two servers that compile their models, and a checkpoint of 4 GB to make and read.
LIMIT = 5400.0


def card_of(machine: LocalMachine) -> str:
    """The name of this machine's first card. Raises NothingSelected where there is none."""
    if not machine.cards:
        raise NothingSelected(
            "no card on this machine, so nothing was tried on one",
            cause=machine.why,
            do="run it on the GPU host, where nvidia-smi lists the card",
        )
    return machine.cards[0].name


def make_spec(image: str, labels: Mapping[str, str], checkout: Path, out: Path, only: Sequence[str]) -> ContainerSpec:
    """The container of the proof: the checkout read-only, the record and all that is made for it in ``out``."""
    arguments = ["-m", "images.proof.on_card.prove", "--out", f"{PLACE}/record.json", "--scratch", f"{PLACE}/scratch"]
    arguments += ["--variant", labels.get(VARIANT, ""), "--input-hash", labels.get(INPUT, "")]
    return ContainerSpec(
        image,
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


def prove(
    image: str,
    labels: Mapping[str, str],
    checkout: Path,
    folder: Path,
    env: Mapping[str, str],
    say: Callable[[str], None],
    only: Sequence[str] = (),
    way: Way = "",
) -> tuple[Path, GpuRecord]:
    """Run it in a container of ``image``, keep the record in ``folder``, and give its place and what it says.

    The engine must be this machine's: folders are mounted. Raises CheckFailed when a step failed or no record came.
    """
    with work_folder("gpu") as out:
        out.chmod(0o777)
        words = docker_words(spec_by_way(make_spec(image, labels, checkout, out, only), way), foreground=True)
        code = process.stream(words, say, env=dict(env), check=False, timeout=LIMIT)
        told = out / "record.json"
        if not told.is_file():
            raise CheckFailed(
                f"the proof left no record: docker run ended with {code}",
                do="see that the container toolkit is set up: ./inv doctor",
                where="images/proof/on_card/prove.py",
            )
        record = gpu_records.read_gpu_record(told)
        kept = folder / f"{record.card.lower().replace(' ', '-')}-{record.variant}.json"
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(told.read_text(encoding="utf-8"), encoding="utf-8")
    if bad := [step.name for step in record.steps if step.verdict == "failed"]:
        raise CheckFailed(f"failed on {record.card}: {', '.join(bad)}", where=str(kept))
    return kept, record
