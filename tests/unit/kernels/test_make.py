"""Getting kernel wheels: what is there is not made again, what comes from a registry is checked like a build."""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images.commands import kernels as command
from images.core.errors import (
    CardstockError,
    CheckFailed,
    NoImageFits,
    NothingSelected,
    RegistryFailure,
    Unsafe,
    UsageError,
)
from images.core.report import Report
from images.kernels import remote
from images.kernels.choose import choose_kernels, users
from images.kernels.make import check_memory, provide
from images.kernels.needs import Need, find_wheels, needs_of, wheel_line
from images.kernels.store import Store
from images.matrix.arch import parse_arch
from images.matrix.kernel import Kernel, make_kernel
from images.matrix.selectors import Selectors, read_selectors
from images.registry.client import Repository
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.registries import FakeRegistry as Registry
from tests.helpers.registries import registry
from tests.helpers.wheels import SOURCE, build, kernel, key

SM75 = "xformers0.0.29.post2-torch2.6.0-cu124-sm75"


@dataclass
class Fake:
    """A compiler that writes what a build leaves, and keeps what it was asked."""

    compiled: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    fails: bool = False
    numbers: tuple[int, ...] = ()

    def check(self, kernels: Sequence[Kernel]) -> None:
        self.checked += [kernel.id for kernel in kernels]

    def compile(self, kernel: Kernel, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.compiled.append(kernel.id)
        build(folder, *kernel.capabilities, numbers=self.numbers)
        if self.fails:
            raise CheckFailed("nvcc died")


@dataclass
class Machine:
    """A store, a compiler, a registry."""

    store: Store
    compiler: Fake
    registry: Registry
    repository: Repository
    said: list[str] = field(default_factory=list)

    def provide(self, *needs: Need, wheels: bool = False) -> list[str]:
        made = provide(needs, self.store, self.compiler, self.repository if wheels else None, self.said.append)
        return [kernel.id for kernel in made]


def need(*archs: str) -> Need:
    return Need(kernel(*archs), key(*archs))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry() as (host, shelf):
        repository = Repository(f"{host}/wheels", sleep=lambda _: None)
        yield Machine(Store(tmp_path / "store"), Fake(), shelf, repository)


def other(machine: Machine, tmp_path: Path) -> Machine:
    """A machine with nothing of its own, and the same registry."""
    return Machine(Store(tmp_path / "other"), Fake(), machine.registry, machine.repository)


def pushed(machine: Machine) -> str:
    machine.provide(need())
    stored = machine.store.get(key())
    assert stored is not None
    return remote.push(machine.repository, stored, SM75)[0]


# -- provide


def test_what_two_variants_share_is_compiled_once(machine: Machine) -> None:
    shared = variants().valid["cu124-vllm0.8.5.post1-xformers-sm75"].kernel
    assert shared is not None
    assert users(variants(), shared) == ["cu124-vllm0.8.5.post1-xformers-sm75"]
    states = {"cu124-vllm": "locked"}
    twice = needs_of([shared, shared], ROOT / "dockerfiles" / "locks", states)  # type: ignore[arg-type]
    assert len(twice) == 1
    machine.provide(need(), need())
    machine.provide(need())
    assert machine.compiler.compiled == [SM75]
    assert machine.compiler.checked == [SM75, SM75]  # asked once, before the first


def test_flash_attention_for_8_6_and_8_9_is_the_8_0_one_compiled_once() -> None:
    ids = [f"cu124-vllm0.8.5.post1-flash-attn-sm{number}" for number in (80, 86, 89)]
    kernels = {variants().valid[name].kernel for name in ids}
    (only,) = kernels
    assert only is not None
    assert set(ids) <= set(users(variants(), only))


def test_nothing_is_checked_or_compiled_for_what_is_in_the_store(machine: Machine) -> None:
    machine.provide(need())
    machine.compiler = Fake()
    assert machine.provide(need()) == [SM75]
    assert (machine.compiler.compiled, machine.compiler.checked) == ([], [])


def test_a_damaged_wheel_is_compiled_anew_and_said(machine: Machine) -> None:
    machine.provide(need())
    wheel = next((machine.store.root / key().digest).glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:100])
    machine.provide(need())
    assert machine.compiler.compiled == [SM75, SM75]
    assert any("damaged" in line for line in machine.said)


def test_a_kernel_without_a_key_is_left_to_its_image(machine: Machine) -> None:
    assert machine.provide(Need(kernel(), None)) == []
    assert machine.compiler.compiled == []


def test_a_build_that_fails_leaves_no_wheel_and_what_was_done_before(machine: Machine) -> None:
    machine.provide(need("7.0"))
    machine.compiler.fails = True
    with pytest.raises(CheckFailed, match="nvcc died"):
        machine.provide(need("7.0"), need())
    assert [entry.digest for entry in machine.store.entries()] == [key("7.0").digest]


def test_a_build_for_other_cards_is_not_stored(machine: Machine) -> None:
    machine.compiler.numbers = (80,)
    with pytest.raises(CheckFailed, match=r"is not for 7\.5 alone"):
        machine.provide(need())
    assert machine.store.entries() == ()


def _provide(root: Path, barrier: object, log: Path) -> None:
    class Logged(Fake):
        def compile(self, kernel: Kernel, folder: Path) -> None:
            with log.open("a") as out:
                out.write("compiled\n")
            super().compile(kernel, folder)

    barrier.wait()  # type: ignore[attr-defined]
    provide([need("7.0"), need("7.5")], Store(root), Logged(), None, lambda _: None)


def test_two_builds_at_once_compile_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    barrier = spawn.Barrier(3)
    args = (tmp_path / "store", barrier, tmp_path / "log")
    workers = [spawn.Process(target=_provide, args=args) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "compiled\n" * 2  # one a key


# -- the registry


def test_another_machine_takes_it_from_the_registry_and_compiles_nothing(machine: Machine, tmp_path: Path) -> None:
    digest = pushed(machine)
    third = other(machine, tmp_path)
    assert third.provide(need(), wheels=True) == [SM75]
    assert (third.compiler.compiled, third.compiler.checked) == ([], [])
    mine, its = machine.store.get(key()), third.store.get(key())
    assert mine is not None and its is not None
    assert its.record == mine.record
    assert any(digest[:19] in line for line in third.said)


def test_a_push_leaves_what_others_may_have_fetched(machine: Machine) -> None:
    first = pushed(machine)
    with machine.store.work() as folder:
        again = machine.store.put(key(), build(folder, fill=9))
    assert remote.push(machine.repository, again, SM75) == (first, False)


def test_what_the_registry_lacks_is_compiled(machine: Machine) -> None:
    assert machine.provide(need(), wheels=True) == [SM75]
    assert machine.compiler.compiled == [SM75]


def test_what_can_be_fetched_is_fetched_before_anything_compiles(machine: Machine, tmp_path: Path) -> None:
    pushed(machine)
    third = other(machine, tmp_path)
    third.compiler.fails = True
    with pytest.raises(CheckFailed):
        third.provide(need("7.0"), need(), wheels=True)
    assert third.store.get(key()) is not None


def test_a_registry_that_is_down_is_an_error_and_not_an_hour_of_compiling(machine: Machine) -> None:
    machine.registry.on, machine.registry.faults = "/manifests/", [503] * 50
    with pytest.raises(RegistryFailure):
        machine.provide(need(), wheels=True)
    assert machine.compiler.compiled == []


def _rewrite(machine: Machine, name: str, data: bytes) -> None:
    """Put other bytes under a file's name, with a manifest that agrees with them: a lie that has its digests right."""
    kind, raw = machine.registry.manifests[key().digest]
    content = json.loads(raw)
    from images.registry import digest_of

    for layer in content["layers"]:
        if layer["annotations"]["org.opencontainers.image.title"].endswith(name):
            layer["digest"], layer["size"] = digest_of(data), len(data)
            machine.registry.blobs[digest_of(data)] = data
    machine.registry.manifests[key().digest] = (kind, json.dumps(content).encode())


@pytest.mark.parametrize("lie", ["blob", "wheel", "record", "other key", "other archs", "extra file", "kind"])
def test_a_registry_that_lies_is_refused(machine: Machine, tmp_path: Path, lie: str) -> None:
    pushed(machine)
    folder = build(tmp_path / "lie", "7.0") if lie == "other key" else build(tmp_path / "lie", numbers=(80,))
    wheel, record = next(folder.glob("*.whl")).read_bytes(), (folder / "kernel.json").read_bytes()
    if lie == "blob":
        for digest in machine.registry.blobs:
            machine.registry.blobs[digest] = machine.registry.blobs[digest][:-1] + b"!"
    elif lie == "wheel":
        _rewrite(machine, ".whl", wheel)
    elif lie == "record":
        _rewrite(machine, ".json", b"{}")
    elif lie in ("other key", "other archs"):
        _rewrite(machine, ".whl", wheel)
        _rewrite(machine, ".json", record)
    else:
        kind, raw = machine.registry.manifests[key().digest]
        content = json.loads(raw)
        if lie == "kind":
            content["artifactType"] = "application/vnd.docker.something"
        else:
            content["layers"].append(json.loads(json.dumps(content["layers"][0])))
            content["layers"][-1]["annotations"]["org.opencontainers.image.title"] = "more.py"
        machine.registry.manifests[key().digest] = (kind, json.dumps(content).encode())
    third = other(machine, tmp_path)
    with pytest.raises(Unsafe) as caught:
        third.provide(need(), wheels=True)
    assert caught.value.exit_code == 7
    assert third.store.entries() == ()
    assert third.compiler.compiled == []


def test_a_tag_that_points_at_another_kernel_is_refused(machine: Machine, tmp_path: Path) -> None:
    pushed(machine)
    machine.registry.manifests[key("7.0").digest] = machine.registry.manifests[key().digest]
    third = other(machine, tmp_path)
    with pytest.raises(Unsafe, match="not what its key says") as caught:
        third.provide(need("7.0"), wheels=True)
    assert "archs is ('7.5',), not ('7.0',)" in caught.value.cause


# -- what is said before


def test_where_each_one_is(machine: Machine, tmp_path: Path) -> None:
    pushed(machine)
    third = other(machine, tmp_path)
    third.provide(need("7.0"))
    needs = [need("7.0"), need("7.5"), need("8.0"), Need(kernel("9.0"), None)]
    found = find_wheels(needs, third.store, third.repository)
    assert [one.where for one in found] == ["store", "registry", "not built", "unlocked"]
    assert [one.where for one in find_wheels(needs, third.store)] == ["store", "not built", "not built", "unlocked"]
    lines = [wheel_line(one, "REPO", 2) for one in found]
    assert lines[0].endswith("in the store")
    assert lines[1].endswith("in REPO")
    assert "to compile, about" in lines[2]


def test_too_little_memory_is_said_before_anything_starts() -> None:
    cards = (parse_arch("9.0"),)
    flash = make_kernel("flash-attn", "2.8.3", torch="2.11.0", cuda="13.0", python="3.11", lock="x", cards=cards)
    with pytest.raises(CardstockError, match=r"needs 6\.00 GB of memory, the engine has 5\.00 GB") as caught:
        check_memory([kernel(), flash], 5_000_000_000)
    assert "CARDSTOCK_KERNEL_JOBS" in caught.value.do
    check_memory([kernel(), flash], 16_000_000_000)
    check_memory([flash], None)


# -- selectors


def wanted(*archs: str, **said: object) -> Selectors:
    return read_selectors(matrix(), archs, **said)  # type: ignore[arg-type]


def ids(selectors: Selectors) -> list[str]:
    return [kernel.id for kernel in choose_kernels(matrix(), variants(), selectors)]


def test_the_selectors_are_those_of_the_variants() -> None:
    assert ids(wanted("7.5")) == [SM75]
    assert ids(wanted("8.6", cuda="12.4", attention="flash-attn")) == ["flash-attn2.7.4.post1-torch2.6.0-cu124-sm80"]
    assert ids(wanted(only=["cu124-*-xformers-sm75"])) == [SM75]


def test_globs_also_mean_kernels_and_reach_those_beside_the_variants() -> None:
    assert ids(wanted(only=["xformers*-torch2.5.1-cu124-*"])) == ["xformers0.0.28.post3-torch2.5.1-cu124-sm75"]
    assert "flash-attn2.8.3.post2-torch2.11.0-cu130-sm90" in ids(wanted("9.0", every=True))
    assert "flash-attn2.8.3.post2-torch2.11.0-cu130-sm90" not in ids(wanted("9.0", every=True, cuda="12.4"))


def test_flash_attention_below_ampere_is_refused_by_its_rule() -> None:
    with pytest.raises(NoImageFits, match="flash-attn-needs-ampere"):
        ids(wanted("7.5", attention="flash-attn"))


def test_variants_that_compile_nothing() -> None:
    with pytest.raises(NothingSelected, match="no attention kernel is compiled"):
        ids(wanted("9.0"))


# -- the command


class Out:
    """A report that is kept."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.report = Report(self.out, self.err)


def test_export_gives_pip_what_it_needs(machine: Machine, tmp_path: Path) -> None:
    out = Out()
    wheels = command.Wheels(machine.store, None, out.report)
    made = command.make_wheels(wheels, [need()], machine.compiler)
    (path,) = command.export_wheels(wheels, made, tmp_path / "a folder")
    assert path.parent == tmp_path / "a folder"
    assert path.read_bytes() == next((machine.store.root / key().digest).glob("*.whl")).read_bytes()
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".whl"]
    assert f"pip install torch==2.6.0 '{path}'" in out.err.getvalue()


def test_several_kernels_are_exported_into_folders_of_their_own(machine: Machine, tmp_path: Path) -> None:
    wheels = command.Wheels(machine.store, None, Out().report)
    made = command.make_wheels(wheels, [need("7.0"), need("7.5")], machine.compiler)
    paths = command.export_wheels(wheels, made, tmp_path / "out")
    assert [path.parent.name for path in paths] == [kernel.id for kernel in made]
    assert paths[0].name == paths[1].name
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_a_push_needs_a_place(machine: Machine) -> None:
    wheels = command.Wheels(machine.store, None, Out().report)
    with pytest.raises(UsageError, match="where to"):
        command.push_wheels(wheels, command.make_wheels(wheels, [need()], machine.compiler))


def test_an_unlocked_kernel_cannot_be_made_by_itself(machine: Machine) -> None:
    wheels = command.Wheels(machine.store, None, Out().report)
    with pytest.raises(UsageError, match="is not locked"):
        command.make_wheels(wheels, [Need(kernel(), None)], machine.compiler)


def test_the_list_as_table_and_json(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = pushed(machine)
    third = other(machine, tmp_path)
    third.provide(need("7.0"))
    out = Out()
    wheels = command.Wheels(third.store, third.repository, out.report)
    needs = [need("7.0"), need("7.5"), need("8.0")]
    command.list_wheels(wheels, needs, variants(), as_json=False)
    rows = out.out.getvalue().splitlines()
    assert [row.split()[0] for row in rows] == ["key", *(n.key.digest[:12] for n in needs if n.key)]
    assert "store" in rows[1] and third.repository.name in rows[2] and "not built" in rows[3]
    assert "2 of 3" in out.err.getvalue()
    assert capsys.readouterr().out == ""
    command.list_wheels(wheels, needs, variants(), as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [one["where"] for one in listed] == ["store", "registry", "not built"]
    assert listed[0]["key"] == key("7.0").digest
    assert listed[1]["variants"] == ["cu124-vllm0.8.5.post1-xformers-sm75"]
    assert Path(listed[0]["path"]).is_file()
    assert digest.startswith("sha256:")


def test_keys_of_the_real_locks() -> None:
    states = dict.fromkeys((k.lock for k in variants().kernels), "locked")
    needs = needs_of(variants().kernels, ROOT / "dockerfiles" / "locks", states)  # type: ignore[arg-type]
    keyed = [n for n in needs if n.key]
    assert {n.kernel.lock for n in keyed} >= {"cu124-vllm", "cu128-vllm"}
    assert len({n.key.digest for n in keyed if n.key}) == len(keyed)
    assert needs_of(variants().kernels, ROOT / "dockerfiles" / "locks", {})[0].key is None
    assert SOURCE not in {n.key.source_sha256 for n in keyed if n.key}
