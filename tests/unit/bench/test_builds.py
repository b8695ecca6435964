"""What the benches of builds, levels and sizes say of what they measured; engines and registries stand in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import start as starting
from bench.builds import BuildTimes, noop, proven_variants, seconds
from bench.devel import compressed_bytes, repository_of
from bench.devel import rows_of as rows_on_devel
from bench.levels import chosen_variants, rows_of_levels
from bench.record import BenchMachine, BenchRecord, Row, RunConditions
from bench.stages import ONLY, Workbench
from images.core.errors import CheckFailed, NothingSelected, RegistryFailure
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.container_spec import ContainerSpec
from images.docker.containers import ContainerState
from images.docker.engine import Engine
from images.matrix.model import Base
from images.proof.smoke.record import LevelResult, ProofRecord
from images.registry import MANIFEST, Repository, digest_of
from images.render.checkout import Checkout
from images.render.labels import EVIDENCE, INPUT, PROVEN
from tests.helpers.matrices import variants
from tests.helpers.registries import registry

ROOT = Path(__file__).parents[3]
CPU, T4 = "cpu-vllm0.32.0-sdpa", "cu124-vllm0.8.5.post1-xformers-sm75"


def tools(labels: dict[str, dict[str, str]]) -> Workbench:
    """A workbench whose engine has images of these variants with these labels."""

    class Having:
        def inspect(self, reference: str) -> Any:
            result = labels.get(reference.partition(":")[2])
            return None if result is None else SimpleNamespace(labels=result)

    checkout = Checkout(ROOT)
    return Workbench(checkout, checkout.matrix(), cast("Engine", Having()), SiteSettings(), Report())


def test_only_what_a_build_would_leave_alone_is_timed() -> None:
    variant = variants().valid[CPU]
    digest = tools({}).job(variant).input_hash
    done = {INPUT: digest, PROVEN: "yes", EVIDENCE: "server: passed"}
    assert proven_variants(tools({CPU: done})) == [(variant, None)]
    assert proven_variants(tools({CPU: {**done, INPUT: "0" * 64}})) == []
    assert tools({CPU: done}).image_label(variant) == f"{CPU}@{digest[:12]}"
    with pytest.raises(NothingSelected):
        noop(tools({}))


def test_at_once_stands_against_the_sum_and_against_separate_machines() -> None:
    result = list(BuildTimes(100.0, (120.0, 30.0, 30.0)).rows("cold", "as many machines, each cold"))
    assert [(row.ours, row.peer, row.against) for row in result] == [
        (100.0, 180.0, "one after the other"),
        (100.0, 360.0, "as many machines, each cold"),
    ]
    assert len(list(BuildTimes(1.0, (1.0, 2.0)).rows("nothing new", ""))) == 1
    clock = iter([3.0, 5.5])
    assert seconds(lambda: None, lambda: next(clock)) == 2.5


def record(*levels: LevelResult) -> ProofRecord:
    return ProofRecord(CPU, "image", "sha256:0", "2026-11-21T12:00:00Z", None, None, "26.1", levels)


def served(healthy: float) -> LevelResult:
    return LevelResult(4, "server", "passed", "", healthy + 10, {"seconds to healthy": healthy, "seconds to stop": 1.5})


def test_levels_are_medians_and_what_did_not_run_says_why() -> None:
    audit = LevelResult(1, "audit", "not run", "no card in it")
    runs = [record(audit, LevelResult(2, "stack", "passed", "", took), served(took)) for took in (3.0, 9.0, 4.0)]
    rows = {row.measures.partition("; ")[0].rpartition(", ")[2]: row for row in rows_of_levels(CPU, "x", runs)}
    assert all(row.measures.endswith("; runs: 3") for row in rows.values())
    assert (rows["audit"].ours, rows["audit"].why) == (None, "no card in it")
    assert rows["stack"].ours == 4.0
    assert (rows["canary"].ours, rows["canary"].why) == (None, "not asked for")
    assert rows["server"].ours == 14.0


class Servers:
    """Containers that get healthy ``after`` so many looks; a clock that a look moves on by a second."""

    def __init__(self, *after: int) -> None:
        self.after, self.looks, self.now, self.said = list(after), 0, 0.0, list[str]()

    def start(self, spec: ContainerSpec, environment: Mapping[str, str]) -> None:
        self.said.append(f"start {spec.image} with {spec.mounts[0].source}")

    def find(self, name: str) -> ContainerState:
        self.looks, self.now = self.looks + 1, self.now + 1
        state = "healthy" if self.looks > self.after[0] else "starting"
        health = {"Status": state if self.after[0] >= 0 else "unhealthy"}
        return ContainerState(name, {"State": {"Status": "running", "Running": True, "Health": health}})

    def log(self, name: str) -> str:
        return "No module named 'uvloop'"

    def restart(self, name: str, seconds: int) -> None:
        self.said.append("restart")
        self.after, self.looks = self.after[1:], 0

    def stop(self, name: str, seconds: int) -> ContainerState | None:
        self.said.append("stop")
        self.now += 2
        return None

    def remove(self, name: str) -> None:
        self.said.append("remove")


def test_a_server_is_started_ended_and_started_again_with_what_it_kept() -> None:
    servers = Servers(60, 40)
    clock = starting.Clock(lambda: servers.now, lambda _: None)
    found = starting.measure_start(servers, "an-image", Path("/a/model"), clock)
    assert found == starting.StartTimes(first=61.0, end=2.0, again=41.0)
    assert servers.said == ["start an-image with /a/model", "stop", "restart", "remove"]
    cost = starting.ImportCost(torch=1.5, server=6.0, modules=5000, opened=4800)
    rows = list(starting.rows(CPU, "x", [found, starting.StartTimes(55.0, 4.0, 30.0)], cost))
    assert [(row.ours, row.peer) for row in rows] == [
        (58.0, None), (35.5, 58.0), (6.0, 1.5), (5000, None), (4800, None), (3.0, None)
    ]  # fmt: skip


def test_the_cost_of_imports_is_that_of_the_run_with_the_least_and_files_are_counted_in_another() -> None:
    seconds = iter([5.0, 4.0, 6.0, 9.0])
    asked = []

    class Running:
        def run(self, image: str, words: list[str], *, entrypoint: list[str], files: dict[str, bytes]) -> Any:
            asked.append((image, entrypoint, words))
            assert b"def importer" in files[words[0]]
            told = {"torch": 1.0, "server": next(seconds), "modules": 7}
            return SimpleNamespace(out="a warning\n" + json.dumps(told | ({"opened": 8} if "count" in words else {})))

    cost = starting.import_cost(cast("Engine", Running()), "an-image", "vllm")
    assert (cost, cost.ratio) == (starting.ImportCost(1.0, 4.0, 7, 8), 4.0)
    place = "/tmp/imports_inside.py"
    assert asked == [("an-image", ["/opt/venv/bin/python"], [place, "vllm", *more]) for more in ([], [], [], ["count"])]


def test_a_server_that_does_not_get_healthy_is_removed_and_its_log_shown() -> None:
    servers = Servers(-1)
    with pytest.raises(CheckFailed, match="did not get healthy"):
        starting.measure_start(servers, "an-image", Path("/m"), starting.Clock(lambda: servers.now, lambda _: None))
    assert servers.said[-1] == "remove"


def test_a_server_that_needs_a_card_is_not_started() -> None:
    (row,) = starting.measure(tools({T4: {INPUT: "0" * 64}}), variants().valid[T4])
    assert (row.ours, row.why, row.image) == (None, "no card", f"{T4}@{'0' * 12}")


def test_the_image_for_the_cpu_is_measured_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both: dict[str, dict[str, str]] = {CPU: {}, T4: {}}
    monkeypatch.delenv(ONLY, raising=False)
    assert [variant.id for variant in chosen_variants(tools(both))] == [CPU]
    monkeypatch.setenv(ONLY, "cu124*")
    assert [variant.id for variant in chosen_variants(tools(both))] == [T4]
    with pytest.raises(NothingSelected):
        chosen_variants(tools({}))


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("nvidia/cuda:12.4.1-devel-ubuntu22.04", "registry-1.docker.io/nvidia/cuda"),
        ("debian:bookworm-slim", "registry-1.docker.io/library/debian"),
        ("registry.example.com:5000/a/b:1", "registry.example.com:5000/a/b"),
        (f"nvidia/cuda@sha256:{'0' * 64}", "registry-1.docker.io/nvidia/cuda"),
    ],
)
def test_an_images_repository(image: str, repository: str) -> None:
    assert repository_of(image) == repository


def test_layers_of_the_manifest_for_x86_are_added_up() -> None:
    plain = json.dumps({"mediaType": MANIFEST, "layers": [{"size": 3_000}, {"size": 4_000}]}).encode()
    listed = [
        {"digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": digest_of(plain), "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    media = "application/vnd.docker.distribution.manifest.list.v2+json"
    index = json.dumps({"mediaType": media, "manifests": listed}).encode()
    with registry() as (host, shelf):
        shelf.manifests |= {"12.4": (media, index), digest_of(plain): (MANIFEST, plain)}
        shelf.manifests["arm"] = (media, json.dumps({"mediaType": media, "manifests": listed[:1]}).encode())

        def size(tag: str) -> int:
            return compressed_bytes(Base(image=f"nvidia/cuda:{tag}", digest=None), lambda _: Repository(f"{host}/cuda"))

        assert size("12.4") == 7_000
        for tag, what in (("arm", "linux/amd64"), ("none", "has no none")):
            with pytest.raises(RegistryFailure, match=what):
                size(tag)


def test_the_devel_base_is_added_or_said_to_be_out_of_reach() -> None:
    name = "cu124-transformers5.24.0-sdpa-sm75"
    machine = BenchMachine("X", 2, 1, "Linux", "3.11.7")
    around = RunConditions(machine, None, "2026-11-21T12:00:00Z", "abc", "def")
    result = [("all, gzip", 2387.0, 2962.0), ("all, zstd", 1973.0, 2401.0), ("the rest, gzip", 357.0, 932.0)]
    kept = [Row("sizes", f"{name}: {what}", ours, peer, "MB") for what, ours, peer in result]
    sizes = BenchRecord("sizes", around, (*kept, Row("sizes", f"{CPU}: all, gzip", 1.0, 2.0, "MB")))
    bases = {"12.4": Base(image="nvidia/cuda:12.4.1-devel-ubuntu22.04", digest=None)}
    (row,) = rows_on_devel(sizes, variants().valid, bases, lambda _: 3_900_000_000)
    assert (row.ours, row.peer) == (2387.0, 3900 + 2962.0)

    def unreachable(_: Base) -> int:
        raise RegistryFailure("registry out of reach")

    (row,) = rows_on_devel(sizes, variants().valid, bases, unreachable)
    assert (row.ours, row.peer) == (2387.0, None)
    assert row.against.endswith("not run, registry out of reach")
