"""Compiled code before a server starts: found by its key, verified, put into the cache; whatever is wrong is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from images.cards import LocalCard, LocalMachine
from images.catalogue import SigningKeys
from images.compiled import remote
from images.compiled.inside import archive as inside
from images.compiled.key import CompiledKey, image_hash, model_hash
from images.compiled.store import CompiledStore, Origin, write_file
from images.context import Context
from images.core.errors import NothingSelected
from images.docker import ALL_CARDS, NO_CARDS, ContainerSpec, Gpus, Mount
from images.docker.engine import Engine
from images.docker.facts import ImageFacts, Ran
from images.matrix import Arch
from images.registry import Repository
from images.run.serve.compiled import Place, Processor, bring, bring_all, key_of, processor_of
from images.run.serve.source import Source
from tests.helpers.compiled_code import FILES, FakeCosign, filed
from tests.helpers.contexts import context, silent
from tests.helpers.nonempty import nonempty
from tests.helpers.registries import FakeRegistry, registry

H200 = LocalCard("NVIDIA H200", "GPU-1", Arch(9, 0), 141 * 10**9, index=0)
L4 = LocalCard("NVIDIA L4", "GPU-2", Arch(8, 9), 24 * 10**9, index=1)
SPEC = ContainerSpec(
    "cardstock/qwen2.5-vl:x",
    ("--served-model-name", "tiny", "--max-model-len", "8192"),
    env=(("VLLM_USE_V1", "1"), ("HF_HUB_OFFLINE", "1")),
    mounts=(Mount("/model", "/models"), Mount("the-cache", "/cache", read_only=False)),
    gpus=ALL_CARDS,
)
CONFIG = {"model_type": "qwen2_5_vl"}


@dataclass
class CacheEngine:
    """An engine whose volume is a folder; ``ran`` are the containers that filled it. ``code``: how they end instead."""

    volume: Path
    layers: tuple[str, ...] = ("sha256:" + "f" * 64,)
    local: bool = True
    endpoint: str = "unix:///x.sock"
    code: int | None = None
    ran: list[dict[str, Any]] = field(default_factory=list)
    inspected: int = 0

    def inspect(self, _: str) -> ImageFacts:
        self.inspected += 1
        env = {"CARDSTOCK_ENGINE": "vllm"}
        return ImageFacts("sha256:" + "e" * 64, (), (), {}, env, "", (), (), 1, "", "amd64", self.layers)

    def run(self, image: str, command: list[str], *, files: Mapping[str, Path], **how: Any) -> Ran:
        self.ran.append({"image": image, "command": command, **how})
        if self.code is not None:
            return Ran(self.code, json.dumps({"state": "closed", "why": "read-only"}), "")
        try:
            (archive,) = [path for path in files.values() if path.suffix == ".gz"]
            return Ran(0, json.dumps(inside.fill(archive, self.volume, command[-1])) + "\n")
        except inside.Refused as error:
            return Ran(inside.REFUSED, json.dumps({"state": "refused", "why": str(error)}))


class Here:
    """A machine with an H200, an engine, a store, a registry and what is said."""

    def __init__(self, host: str, shelf: FakeRegistry, tmp_path: Path) -> None:
        self.engine, self.shelf = CacheEngine(tmp_path / "volume"), shelf
        self.repository = Repository(f"{host}/team/qwen", sleep=lambda _: None)
        self.store, self.theirs = CompiledStore(tmp_path / "store"), CompiledStore(tmp_path / "theirs")
        self.cosign = FakeCosign(shelf)
        (tmp_path / "cosign.pub").write_text("key")
        self.keys = SigningKeys(cast("Any", self.cosign), Path("cosign.key"), tmp_path / "cosign.pub")
        self.folder = tmp_path / "model"
        self.folder.mkdir()
        (self.folder / "config.json").write_text(json.dumps(CONFIG))
        self.source = Source("tiny", folder=str(self.folder))
        report, self.err = silent()
        machine = LocalMachine("580.1", "13.0", (H200,))
        self.context: Context = context(report, engine=cast("Engine", self.engine), environment={}, machine=machine)

    @property
    def key(self) -> CompiledKey:
        return key_of(SPEC, self.engine.inspect(""), Processor("9.0", "NVIDIA H200"), CONFIG)

    @property
    def from_registry(self) -> Place:
        return Place(self.repository, self.keys)

    def push(self, key: CompiledKey | None = None, *, signed: bool = True) -> None:
        remote.push(self.repository, filed(self.theirs, key or self.key), self.keys if signed else None)

    def bring(self, place: Place | None = None, spec: ContainerSpec = SPEC) -> tuple[bool, str]:
        """Whether it is in the cache, and what was said since the last time."""
        self.err.seek(0)
        self.err.truncate()
        done = bring(self.context, spec, self.source, "", place or Place(), self.store)
        return done, self.err.getvalue()

    def cache(self) -> dict[str, bytes]:
        root = self.engine.volume
        files = [path for path in root.rglob("*") if path.is_file() and inside.OWN not in path.parts]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with registry() as (host, shelf):
        yield Here(host, shelf, tmp_path)


def test_nothing_is_asked_where_nothing_is_named_and_nothing_is_here(here: Here) -> None:
    assert here.bring() == (False, "")
    assert (here.engine.inspected, here.engine.ran, here.shelf.asked) == (0, [], [])
    filed(here.store, replace(here.key, image="sha256:" + "c" * 64))  # of another image
    (here.folder / "config.json").unlink()
    assert here.bring() == (False, "")


def test_what_was_made_here_is_used_without_asking_anybody(here: Here) -> None:
    filed(here.store, here.key)
    done, said = here.bring()
    assert done and "compiled code for NVIDIA H200 (made here): 4 files, 15 B, put into the-cache" in said
    assert here.cache() == FILES
    assert here.shelf.asked == []
    done, said = here.bring()
    assert done and "in the-cache already" in said


def test_the_cache_is_filled_in_a_locked_container(here: Here) -> None:
    filed(here.store, here.key)
    here.bring()
    (ran,) = here.engine.ran
    assert (ran["image"], ran["entrypoint"]) == (SPEC.image, ("/opt/venv/bin/python",))
    assert ran["mounts"] == (Mount("the-cache", "/cache", read_only=False),)
    assert {"network", "user", "gpus"}.isdisjoint(ran)  # the engine's defaults: none, the image's, none


def test_what_fits_is_fetched_verified_and_kept(here: Here) -> None:
    here.push()
    done, said = here.bring(here.from_registry)
    assert done and "signed (key sha256:2c70e12b7a06)" in said
    assert here.cache() == FILES
    assert here.bring()[0]  # without a registry from now on: it was verified when it was fetched


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("card: NVIDIA H100, not NVIDIA H200", {"card": "NVIDIA H100"}),
    ("flags: --max-model-len 4096, not --max-model-len 8192", {"flags": (("--max-model-len", "4096"),)}),
    ("the model's config.json: bbbbbbbbbbbb, not", {"model": "b" * 64}),
    ("the model's place: Qwen/X, not /models", {"place": "Qwen/X"}),
]


@pytest.mark.parametrize(("told", "changes"), OTHERS)
def test_what_does_not_fit_is_not_used_and_said(here: Here, told: str, changes: dict[str, Any]) -> None:
    here.push(replace(here.key, **changes))
    done, said = here.bring(here.from_registry)
    assert not done and f"compiled code of {here.repository.name} does not fit and is not used: {told}" in said
    filed(here.store, replace(here.key, **changes))
    done, said = here.bring()
    assert not done and f"compiled code of this machine does not fit and is not used: {told}" in said
    assert (here.cache(), here.engine.ran) == ({}, [])


def test_the_code_of_an_older_image_is_none_of_this_one(here: Here) -> None:
    here.push(replace(here.key, image="sha256:" + "c" * 64))
    done, said = here.bring(here.from_registry)
    assert not done and f"{here.repository.name} has no compiled code of this image" in said


def test_unsigned_code_is_refused_and_told(here: Here) -> None:
    here.push(signed=False)
    done, said = here.bring(here.from_registry)
    assert not done and "is not signed by this signer: no signatures found; the server starts without" in said
    assert (here.cache(), here.store.entries()) == ({}, ())


def test_without_a_signer_it_is_used_only_if_one_says_so_each_time(here: Here) -> None:
    here.push()
    done, said = here.bring(Place(here.repository))
    assert not done and "it is not used: it is code, and no signer was named" in said and "--verify-key" in said
    done, said = here.bring(Place(here.repository, unsigned=True))
    assert done and "not verified" in said
    done, said = here.bring()
    assert not done  # what nobody verified lies here, and is not used by itself
    done, said = here.bring(Place(here.repository))
    assert not done and "it is not used" in said


def test_what_another_has_signed_is_asked_for_anew(here: Here, tmp_path: Path) -> None:
    here.push()
    here.bring(here.from_registry)
    (tmp_path / "other.pub").write_text("other")
    here.cosign.signed.clear()
    other = Place(here.repository, replace(here.keys, signer=tmp_path / "other.pub"))
    done, said = here.bring(other)
    assert not done and "not signed by this signer" in said


def test_damaged_code_is_refused_and_told(here: Here) -> None:
    here.push()
    digest = f"sha256:{here.theirs.entries()[0].record.sha256}"
    here.shelf.blobs[digest] = b"x" * len(here.shelf.blobs[digest])
    done, said = here.bring(here.from_registry)
    assert not done and "is not what its digest says" in said and "the server starts without" in said
    kept = filed(here.store, here.key)
    kept.archive.write_bytes(b"x" * kept.record.size)
    done, said = here.bring()
    assert not done and "damaged: its archive is not the one that its record tells of" in said
    assert here.cache() == {}


def test_a_registry_that_does_not_answer_keeps_no_server_from_starting(here: Here) -> None:
    here.shelf.faults = [500] * 50
    done, said = here.bring(here.from_registry)
    assert not done and "does not give or take" in said and "the server starts without compiled code" in said


@pytest.mark.parametrize(("code", "told"), [(4, "could not be put into the-cache: read-only"), (1, "could not be put")])
def test_a_cache_that_cannot_be_written_is_told(here: Here, code: int, told: str) -> None:
    filed(here.store, here.key)
    here.engine.code = code
    done, said = here.bring()
    assert not done and told in said


def test_a_state_folder_that_cannot_be_written_is_told(here: Here, tmp_path: Path) -> None:
    here.push()
    (tmp_path / "file").write_text("")
    here.store = CompiledStore(tmp_path / "file" / "compiled")
    done, said = here.bring(here.from_registry)
    assert not done and "compiled code could not be kept below" in said and "the server starts without" in said


def test_a_file_that_the_user_names(here: Here, tmp_path: Path) -> None:
    write_file(filed(here.theirs, here.key), tmp_path / "one.tar")
    done, said = here.bring(Place(file=str(tmp_path / "one.tar")))
    assert done and f"({tmp_path / 'one.tar'}, not verified)" in said
    assert here.store.entries() == ()  # it is used this time, and not kept as if it were this machine's
    here.engine.layers = ("sha256:" + "d" * 64,)
    done, said = here.bring(Place(file=str(tmp_path / "one.tar")))
    assert not done and "does not fit and is not used: image: sha256:" in said
    (tmp_path / "one.tar").write_bytes(b"x")
    done, said = here.bring(Place(file=str(tmp_path / "one.tar")))
    assert not done and "cannot be read" in said


def test_what_is_not_known_is_not_looked_for(here: Here) -> None:
    here.push()
    here.engine.local = False
    done, said = here.bring(here.from_registry)
    assert not done and "compiled code was not looked for: the engine runs on another machine" in said
    here.engine.local = True
    (here.folder / "config.json").write_text("[1]")
    done, said = here.bring(here.from_registry)
    assert not done and "was not looked for: the model's config.json holds no settings" in said


def test_all_of_an_image_for_this_machine(here: Here) -> None:
    here.push()
    here.push(replace(here.key, card="NVIDIA L4", capability="8.9"))
    here.push(replace(here.key, card=""))
    found = bring_all(here.context, here.repository, SPEC.image, True, here.from_registry, here.store)
    assert {one.record.key.card for one in found} == {"NVIDIA H200", ""}
    assert bring_all(here.context, here.repository, SPEC.image, True, Place(here.repository), here.store) == []
    assert "--unsigned-artifact" in here.err.getvalue()
    here.shelf.faults = [500] * 50
    assert bring_all(here.context, here.repository, SPEC.image, True, here.from_registry, here.store) == []


def test_where_it_runs() -> None:
    machine = LocalMachine("580.1", "13.0", (H200, L4))
    assert processor_of(Gpus(1), machine) == Processor("9.0", "NVIDIA H200")
    assert processor_of(Gpus(devices=("1",)), machine) == Processor("8.9", "NVIDIA L4")
    assert processor_of(Gpus(devices=("GPU-2",), cdi=True), machine) == Processor("8.9", "NVIDIA L4")
    for gpus in nonempty((ALL_CARDS, Gpus(devices=("0", "1")), Gpus(devices=("7",)))):
        with pytest.raises(NothingSelected):
            processor_of(gpus, machine)
    with pytest.raises(NothingSelected):
        processor_of(ALL_CARDS, LocalMachine())


def test_a_processor_by_name_and_by_what_compilers_ask(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nmodel name\t: B\n"
    )
    assert processor_of(NO_CARDS, LocalMachine(), info) == Processor("cpu", "A CPU avx2 avx512f")
    with pytest.raises(NothingSelected):
        processor_of(NO_CARDS, LocalMachine(), tmp_path / "none")


def test_the_key_of_a_container(here: Here) -> None:
    key = here.key
    assert key.image == image_hash(here.engine.layers, {"CARDSTOCK_ENGINE": "vllm"})
    assert (key.capability, key.card, key.place) == ("9.0", "NVIDIA H200", "/models")
    assert key.model == model_hash(CONFIG)
    assert key.flags == (("--max-model-len", "8192"),)
    assert key.env == (("VLLM_USE_V1", "1"),)
    hub = replace(SPEC, arguments=("--model", "Qwen/X", *SPEC.arguments), env=(("CARDSTOCK_ENGINE", "transformers"),))
    other = key_of(hub, here.engine.inspect(""), Processor("9.0", "NVIDIA H200"), CONFIG)
    assert (other.place, other.card) == ("Qwen/X", "")  # its server does not use torch's compiler


def test_an_origin_is_told() -> None:
    assert Origin().text() == "made here"
    assert Origin("r@sha256:1").text() == "r@sha256:1, not verified"
