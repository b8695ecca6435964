"""The doctor: what facts mean, how it ends, and that no question to the machine can hang or break it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.cards import pci
from images.cards.nvml_errors import explain, explain_card
from images.cards.this_machine import LocalCard, LocalMachine, LostCard, MigInstance
from images.commands import doctor as command
from images.core.errors import CheckFailed, EngineUnreachable, RegistryFailure
from images.core.report import Report
from images.docker import gpu_access
from images.docker.facts import HostFacts, host_of
from images.docker.gpu_access import NO_TOOLS, GpuTools
from images.matrix.arch import Arch
from images.matrix.model import Matrix
from images.matrix.variants import Variants, make_variants
from images.registry import ping as registry
from images.render.checkout import Checkout
from images.run.doctor import gather
from images.run.doctor.advice import advise, doctor_json, healthy
from images.run.doctor.checks import BUILD_DISK, GB, IMAGE_DISK, check_facts
from images.run.doctor.facts import Authorities, EngineFacts, Facts, RegistryReach, ThisHost, Unknown
from images.run.doctor.finding import Finding
from tests.helpers.contexts import context
from tests.helpers.docker_info import docker_info
from tests.helpers.registries import registry as running_registry

ROOT = Path(__file__).parents[4]
TI = LocalCard("NVIDIA GeForce RTX 2080 Ti", "GPU-1", Arch(7, 5), 11811160064)
HOST = HostFacts("28.5.1", "Ubuntu 24.04", "x86_64", "/var/lib/docker", 32 * GB, 8, ("nvidia", "runc"), (), ())
ENGINE = EngineFacts("unix:///var/run/docker.sock", False, HOST, (0, 20, 0), 100 * GB)
FACTS = Facts(
    this_host=ThisHost("x86_64", 32 * GB, Path("/home/me/.cache/cardstock"), 100 * GB, 1),
    cards=LocalMachine("535.104.05", "12.2", (TI,)),
    engine=ENGINE,
    embeddable="",
    tools=GpuTools((), ()),
    authorities=Authorities(Path("/etc/ssl/certs/ca-certificates.crt"), 140, (), ""),
    index="pip (26.1)",
    registries=(RegistryReach("registry-1.docker.io", 401),),
)
BARE = replace(
    FACTS, this_host=replace(FACTS.this_host, gpus=0), cards=LocalMachine(why="no NVIDIA driver: libnvidia-ml.so.1")
)
SILENT = Unknown("no Docker engine answers", do="invoke engine --start, or set DOCKER_HOST")


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return Checkout(ROOT).matrix()


@pytest.fixture(scope="module")
def variants(matrix: Matrix) -> Variants:
    return make_variants(matrix)


def named(facts: Facts, matrix: Matrix) -> dict[str, Finding]:
    return {one.name: one for one in check_facts(facts, matrix)}


@pytest.mark.parametrize("facts", [FACTS, BARE], ids=["card", "no card"])
def test_a_machine_in_order_has_nothing_to_do(facts: Facts, matrix: Matrix) -> None:
    found = check_facts(facts, matrix)
    assert {one.state for one in found} == {"ok"}
    assert [one.name for one in found] == [
        *("machine", "cards", "driver", "engine", "buildx", "GPU runtime", "disk", "memory", "package index"),
        *("registry registry-1.docker.io", "proxy CA"),
    ]


def engine(**changes: Any) -> Facts:
    return replace(FACTS, engine=replace(ENGINE, **changes))


def host(facts: Facts = FACTS, **changes: Any) -> Facts:
    return replace(facts, engine=replace(ENGINE, host=replace(HOST, **changes)))


NO_RUNTIME = host(runtimes=("runc",))
CDI = replace(NO_RUNTIME, tools=GpuTools((), ("/etc/cdi/nvidia.yaml",)))
BROKEN: list[tuple[Facts, str, str, str, str]] = [
    (replace(FACTS, this_host=replace(FACTS.this_host, machine="aarch64")), "machine", "wrong", "aarch64", "x86-64"),
    (replace(FACTS, cards=Unknown("the driver did not answer")), "cards", "wrong", "did not answer", "nvidia-smi"),
    (replace(FACTS, cards=Unknown("the driver did not answer")), "driver", "wrong", "not known", "above"),
    (
        replace(FACTS, cards=LocalMachine("535.1", "12.2", (replace(TI, mig=True),))),
        "cards",
        "warning",
        "MIG is on",
        "-cgi",
    ),
    (replace(FACTS, cards=BARE.cards), "driver", "wrong", "1 NVIDIA card", "install NVIDIA's driver"),
    (replace(FACTS, cards=LocalMachine("440.33.01", "10.2", (TI,))), "driver", "wrong", "older", "driver 450.80.02"),
    (replace(FACTS, engine=SILENT, embeddable="needs root"), "engine", "wrong", "needs root", "as root on Debian"),
    (
        replace(FACTS, engine=Unknown("the Docker engine did not answer")),
        "engine",
        "wrong",
        "not answer",
        "docker info",
    ),
    (engine(endpoint="ssh://far", local=False), "engine", "warning", "another machine", "DOCKER_HOST"),
    (replace(engine(buildx=None), embeddable="not Debian"), "buildx", "wrong", "not there", "docker-buildx-plugin"),
    (engine(buildx=(0, 9, 1)), "buildx", "warning", "0.9.1", "0.13"),
    (NO_RUNTIME, "GPU runtime", "wrong", "nothing gives", "nvidia-container-toolkit"),
    (CDI, "GPU runtime", "wrong", "/etc/cdi/nvidia.yaml", '"cdi": true'),
    (engine(free=IMAGE_DISK - 1), "disk", "wrong", "too little", "docker system df"),
    (engine(free=BUILD_DISK - GB), "disk", "warning", "17.0 GB", "1.00 GB more"),
    (
        replace(FACTS, engine=SILENT, this_host=replace(FACTS.this_host, free=GB)),
        "disk",
        "wrong",
        ".cache/cardstock",
        "free some",
    ),
    (host(memory=3 * GB), "memory", "wrong", "3.00 GB", "4.00 GB"),
    (host(memory=6 * GB), "memory", "warning", "one object at a time", "wheels"),
    (replace(FACTS, index=Unknown("pip exited", "no route")), "package index", "warning", "no route", "PIP_INDEX_URL"),
    (replace(FACTS, registries=(RegistryReach("r.io", 403),)), "registry r.io", "warning", "HTTP 403", "proxy"),
    (replace(FACTS, registries=(RegistryReach("r.io", Unknown("x", do="y")),)), "registry r.io", "warning", "x", "y"),
    (replace(FACTS, authorities=Unknown("ca: no file", do="correct it")), "proxy CA", "wrong", "no file", "correct it"),
    (replace(FACTS, authorities=Authorities(None, 0, (), "HTTPS_PROXY")), "proxy CA", "warning", "HTTPS_PROXY", "ca-"),
    (replace(FACTS, authorities=Authorities(Path("/ca"), 0, (), "")), "proxy CA", "wrong", "no certificate", "PEM"),
    (replace(FACTS, authorities=Authorities(None, 0, ("PIP_CERT=/x",), "")), "proxy CA", "wrong", "/x", "unset"),
]


LOST = LostCard(3, "0000:3b:00.0", explain_card(15, "0000:3b:00.0"))
BLOCKED = LocalMachine(why="Windows does not give its card to WSL2", fault=explain(17, wsl=True))


def no_answer(code: int, gpus: int = 1) -> Facts:
    fault = explain(code)
    this_host = replace(FACTS.this_host, gpus=gpus)
    return replace(FACTS, this_host=this_host, cards=LocalMachine(why=fault.what, fault=fault))


def with_cards(*cards: LocalCard, **host: Any) -> Facts:
    this_host = replace(FACTS.this_host, **host)
    return replace(FACTS, this_host=this_host, cards=LocalMachine("535.104.05", "12.2", cards))


def on(engine: str, tools: GpuTools = NO_TOOLS, local: bool = True) -> Facts:
    return replace(FACTS, engine=replace(ENGINE, host=docker_info(engine), local=local), tools=tools)


HOOK = GpuTools(("nvidia-container-runtime-hook",))
A100, H100 = (replace(TI, name=name, arch=arch) for name, arch in (("A100", Arch(8, 0)), ("H100", Arch(9, 0))))
BROKEN += [
    (
        replace(FACTS, cards=LocalMachine("535.1", "12.2", (TI,) * 7, lost=(LOST,))),
        "lost card",
        "warning",
        "3b:00",
        "restart",
    ),
    (replace(FACTS, cards=LocalMachine("535.1", "12.2", (), "none", lost=(LOST,))), "lost card", "wrong", "bus", "Xid"),
    (
        replace(FACTS, cards=LocalMachine("535.1", "12.2", (), "no card answers", lost=(LOST,))),
        "driver",
        "wrong",
        "no card answers",
        "restart",
    ),
    (no_answer(999), "driver", "wrong", "999", "daemon-reload"),
    (no_answer(999, gpus=0), "driver", "wrong", "999", "daemon-reload"),
    (no_answer(4), "driver", "wrong", "no permission", "/dev/nvidia"),
    (no_answer(17, gpus=0), "driver", "wrong", "blocks", "in a container"),
    (no_answer(9), "driver", "wrong", "not loaded", "modprobe"),
    (
        replace(FACTS, this_host=replace(FACTS.this_host, gpus=0, wsl=True), cards=BLOCKED),
        "driver",
        "wrong",
        "WSL2",
        "wsl --update",
    ),
    (replace(FACTS, cards=LocalMachine("N/A", "12.4", (TI,))), "driver", "warning", "N/A", "--driver"),
    (replace(FACTS, cards=LocalMachine("", "", (TI,))), "driver", "warning", "no form", "--driver"),
    (
        with_cards(replace(TI, compute_mode="prohibited", index=0)),
        "compute mode",
        "wrong",
        "no process",
        "-i 0 -c DEFAULT",
    ),
    (with_cards(replace(TI, compute_mode="exclusive process")), "compute mode", "warning", "one process", "-i GPU-1"),
    (with_cards(replace(H100, fabric="it is not up yet")), "fabric manager", "wrong", "802", "nvidia-fabricmanager"),
    (with_cards(*[A100] * 8, switches=6), "fabric manager", "warning", "6 NVSwitches", "nvidia-fabricmanager"),
    (on("desktop-linux", HOOK, local=False), "engine", "warning", "virtual machine", "docker context use default"),
    (
        on("desktop-linux", HOOK, local=False),
        "GPU runtime",
        "wrong",
        "Docker Desktop's virtual machine",
        "Docker Engine",
    ),
    (on("colima", HOOK, local=False), "engine", "warning", "virtual machine", "docker context"),
    (on("rootless-nvidia", HOOK), "GPU runtime", "wrong", "rootless", "no-cgroups=true --in-place"),
    (on("nvidia-runtime", replace(HOOK, no_cgroups=True)), "GPU runtime", "warning", "no-cgroups", "=false --in-place"),
    (on("rootless-nothing"), "GPU runtime", "wrong", "nothing gives", "~/.config/docker/daemon.json"),
    (on("podman-4.9", HOOK), "GPU runtime", "wrong", "podman", "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
]


@pytest.mark.parametrize(("facts", "name", "state", "what", "do"), BROKEN)
def test_what_is_not_in_order_says_what_to_do(
    facts: Facts, name: str, state: str, what: str, do: str, matrix: Matrix
) -> None:
    found = named(facts, matrix)[name]
    assert found.state == state
    assert what in found.what
    assert do in found.do


def test_every_kind_of_trouble_has_something_to_do(matrix: Matrix) -> None:
    result = [one for facts, *_ in BROKEN for one in check_facts(facts, matrix) if one.state != "ok"]
    assert [one for one in result if not one.do] == []


RIGHT: list[tuple[Facts, str, str]] = [
    (replace(FACTS, engine=SILENT), "engine", "./inv engine --start"),
    (replace(FACTS, engine=SILENT), "buildx", "no engine"),
    (replace(FACTS, engine=SILENT), "GPU runtime", "no engine"),
    (engine(buildx=None), "buildx", "fetches it"),
    (engine(free=None), "disk", "another machine"),
    (replace(NO_RUNTIME, tools=GpuTools(("nvidia-container-runtime-hook",), ())), "GPU runtime", "--gpus all"),
    (host(CDI, runtimes=("runc",), cdi=("/etc/cdi",)), "GPU runtime", "not --gpus"),
    (
        host(
            replace(FACTS, tools=GpuTools(("nvidia-cdi-hook",), ())),
            runtimes=("runc",),
            cdi=("/etc/cdi",),
            devices=("nvidia.com/gpu=all",),
        ),
        "GPU runtime",
        "--gpus all, or --device",
    ),
    (replace(FACTS, registries=(RegistryReach("r.io", 200),)), "registry r.io", "answers"),
    (
        replace(
            FACTS, cards=LocalMachine("550.54", "12.4", (replace(TI, mig=True, slices=(MigInstance("a", "b", GB),)),))
        ),
        "cards",
        "MIG: 1 instances",
    ),
]


SPECIFIED = GpuTools(("nvidia-ctk",), ("/etc/cdi/nvidia.yaml",))
RIGHT += [
    (no_answer(12, gpus=0), "driver", "not needed to build"),
    (no_answer(9, gpus=0), "driver", "not needed to build"),
    (replace(BARE, this_host=replace(BARE.this_host, wsl=True)), "driver", "Windows' own"),
    (with_cards(*[A100] * 8, switches=6, fabric_manager=True), "cards", "A100"),
    (replace(FACTS, cards=LocalMachine("NVIDIA UNIX x86_64 Kernel Module 550", "12.4", (TI,))), "driver", "Module 550"),
    (replace(FACTS, cards=LocalMachine("R570", "12.8", (TI,))), "driver", "R570"),
    (on("cdi-28"), "GPU runtime", "--device nvidia.com/gpu=all (not --gpus)"),
    (on("cdi-26-no-devices-told", SPECIFIED), "GPU runtime", "--device nvidia.com/gpu=all"),
    (on("rootless-cdi", HOOK), "GPU runtime", "--device nvidia.com/gpu=all"),
    (on("rootless-nvidia", replace(HOOK, no_cgroups=True)), "GPU runtime", "--gpus all"),
    (on("podman-4.9", SPECIFIED), "GPU runtime", "podman run --device nvidia.com/gpu=all"),
    (on("desktop-wsl2"), "GPU runtime", "--gpus all"),
]


@pytest.mark.parametrize(("facts", "name", "what"), RIGHT)
def test_what_is_in_order_says_how(facts: Facts, name: str, what: str, matrix: Matrix) -> None:
    found = named(facts, matrix)[name]
    assert (found.state, what in found.what) == ("ok", True), found


def test_it_ends_with_the_image_of_this_card_and_driver(matrix: Matrix, variants: Variants) -> None:
    advice = advise(FACTS, matrix, variants, {})
    assert advice.command == "./inv build --only 'cu124-vllm0.8.5.post1-xformers-sm75' --gpus all"
    assert "RTX 2080 Ti" in advice.lines[0]
    pulled = advise(FACTS, matrix, variants, {}, "ghcr.io/me/qwen")
    assert (pulled.command, pulled.lines) == ("./inv pull --from ghcr.io/me/qwen", advice.lines)


@pytest.mark.parametrize("driver", ["N/A", "", "R570", "NVIDIA UNIX x86_64 Kernel Module 550", "550.54"])
def test_a_drivers_version_of_another_form_ends_nothing(driver: str, matrix: Matrix, variants: Variants) -> None:
    facts = replace(FACTS, cards=LocalMachine(driver, "12.4", (TI,)))
    assert healthy(check_facts(facts, matrix))
    assert advise(facts, matrix, variants, {}).command.startswith("./inv build --only 'cu1")


def test_a_card_that_no_stack_serves_is_told_why_and_what_helps(matrix: Matrix, variants: Variants) -> None:
    old = replace(
        FACTS, cards=LocalMachine("535.104.05", "12.2", (LocalCard("Tesla K80", "GPU-2", Arch(3, 7), 12 * GB),))
    )
    advice = advise(old, matrix, variants, {})
    assert advice.command == "./inv build --only 'cpu*'"
    assert "Tesla K80: no image" in advice.lines


def test_without_a_card_it_says_what_can_be_done(matrix: Matrix, variants: Variants) -> None:
    advice = advise(BARE, matrix, variants, {})
    assert "build and audit every image" in advice.lines[0]
    assert advice.command == "./inv build --only 'cpu*'"
    data = doctor_json(check_facts(BARE, matrix), advice)
    assert data["ok"] is True
    assert data["fits"] is None


def run(monkeypatch: pytest.MonkeyPatch, facts: Facts, matrix: Matrix, variants: Variants, as_data: bool) -> str:
    monkeypatch.setattr(command, "gather_facts", lambda root, hosts: facts)
    monkeypatch.delenv("CARDSTOCK_REPOSITORY", raising=False)
    err = io.StringIO()
    command.examine_machine(context(Report(io.StringIO(), err), locked={}), command.DoctorOptions(json=as_data))
    return err.getvalue()


def test_nothing_wrong_ends_well_also_with_warnings(
    monkeypatch: pytest.MonkeyPatch, matrix: Matrix, variants: Variants
) -> None:
    lines = run(monkeypatch, engine(free=BUILD_DISK - GB), matrix, variants, False).splitlines()
    assert any(line.startswith("warning disk") for line in lines)
    assert lines[-1].startswith("next: ./inv build --only 'cu124")


def test_something_wrong_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, matrix: Matrix, variants: Variants, capsys: pytest.CaptureFixture[str]
) -> None:
    err = io.StringIO()
    monkeypatch.setattr(command, "gather_facts", lambda root, hosts: NO_RUNTIME)
    with pytest.raises(CheckFailed, match="wrong: GPU runtime"):
        command.examine_machine(context(Report(io.StringIO(), err), locked={}), command.DoctorOptions())
    assert "once what is wrong above is mended:\nNVIDIA GeForce RTX 2080 Ti: cu124" in err.getvalue()
    with pytest.raises(CheckFailed, match="wrong: GPU runtime"):
        run(monkeypatch, NO_RUNTIME, matrix, variants, True)
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False
    assert [one["name"] for one in data["checks"] if one["state"] == "wrong"] == ["GPU runtime"]
    assert data["command"].startswith("./inv build")


def test_a_named_repository_is_asked_and_pulled_from(
    monkeypatch: pytest.MonkeyPatch, matrix: Matrix, variants: Variants, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def gathered(root: Path, hosts: list[str]) -> Facts:
        asked.extend(hosts)
        return FACTS

    monkeypatch.setattr(command, "gather_facts", gathered)
    monkeypatch.setenv("CARDSTOCK_REPOSITORY", "r.example/team/qwen")
    command.examine_machine(
        context(Report(io.StringIO(), io.StringIO()), locked={}), command.DoctorOptions(["localhost:5000"], json=True)
    )
    assert asked == ["registry-1.docker.io", "localhost:5000", "r.example"]
    assert json.loads(capsys.readouterr().out)["command"] == "./inv pull --from r.example/team/qwen"


def test_hosts_of_bases_and_of_named_repositories(matrix: Matrix) -> None:
    bases = [base.image for base in matrix.bases.values()]
    hosts = command.registry_hosts([*bases, "ghcr.io/me/images", "localhost:5000", "ghcr.io", "library/debian"])
    assert hosts == ["registry-1.docker.io", "ghcr.io", "localhost:5000"]


# The edge


def asks(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.5, /, **instead: Any) -> Facts:
    """`gather` with every question answered at once, but for those replaced; this machine's CAs are read for real."""
    answers: dict[str, Callable[..., Any]] = {
        "read_machine": lambda: BARE.cards,
        "_engine": lambda: ENGINE,
        "_embeddable": lambda: "",
        "_index": lambda seconds: "pip (26.1)",
        "answer": lambda host, **_: 401,
    }
    for name, function in (answers | instead).items():
        monkeypatch.setattr(gather, name, function)
    return gather.gather_facts(ROOT, ["r.io"], seconds=seconds)


def test_gathered_facts_are_facts(monkeypatch: pytest.MonkeyPatch, matrix: Matrix) -> None:
    facts = asks(monkeypatch, 60)
    assert facts.engine == ENGINE
    assert facts.registries == (RegistryReach("r.io", 401),)
    assert facts.this_host.memory > 0
    assert isinstance(facts.authorities, Authorities)
    assert facts.authorities.missing == ()


@pytest.mark.parametrize("question", ["read_machine", "_engine", "_embeddable", "_index", "answer"])
def test_no_question_can_hang_or_break_the_others(monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    never = threading.Event()

    def hang(*_: object, **__: object) -> None:
        never.wait()

    facts = asks(monkeypatch, **{question: hang})
    never.set()
    result = [facts.cards, facts.engine, facts.embeddable, facts.index, facts.registries[0].answer]
    late = [
        one for one in result if "did not answer within 0.5 s" in (one.what if isinstance(one, Unknown) else str(one))
    ]
    assert len(late) == 1


def test_the_time_of_a_question_runs_from_when_it_is_asked() -> None:
    never = threading.Event()
    late = gather.PendingAnswer("x", never.wait, 1000, clock=iter([0.0, 1001.0]).__next__)
    assert late.answer() == Unknown("x did not answer within 1000 s")
    never.set()


def test_an_error_is_told_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise EngineUnreachable("no", cause="because", do="this")

    def crash() -> None:
        raise RuntimeError("a defect")

    facts = asks(monkeypatch, _engine=refuse, read_machine=crash)
    assert facts.engine == Unknown("no", "because", "this")
    assert facts.cards == Unknown("the NVIDIA driver: RuntimeError", "a defect")


def test_nvidias_cards_are_counted_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (("0", "0x10de", "0x030000"), ("1", "0x10de", "0x030200"), ("2", "0x10de", "0x040300")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "3").mkdir()
    assert pci.addresses(bus=tmp_path) == ("0", "1")
    assert pci.addresses(bus=tmp_path / "none") == ()


def test_tools_and_specifications_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a.yaml", "kind: nvidia.com/gpu"), ("b.json", "{}"), ("c.txt", "nvidia.com/gpu")):
        (tmp_path / name).write_text(text)
    program = tmp_path / "nvidia-ctk"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_access.gpu_tools([tmp_path, tmp_path / "none"], tmp_path / "none.toml") == GpuTools(
        ("nvidia-ctk",), (str(tmp_path / "a.yaml"),)
    )


def test_certificates_are_counted(tmp_path: Path) -> None:
    import certifi

    (tmp_path / "empty").write_text("no certificate")
    assert gather.certificates(Path(certifi.where())) > 50
    assert gather.certificates(tmp_path / "empty") == 0
    assert gather.certificates(tmp_path / "none") == 0


def test_a_registry_says_that_it_is_one_and_silence_is_told() -> None:
    with running_registry() as (host, shelf):
        assert registry.answer(host) == 404
        shelf.login = "Basic x"
        assert registry.answer(host) == 401
    with pytest.raises(RegistryFailure, match="does not answer"):
        registry.answer(host)


def test_an_engines_machine_is_read_also_where_it_says_little() -> None:
    result = host_of({"ServerVersion": "29.0.0", "Runtimes": {"runc": {}, "nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]})
    assert result.runtimes == ("nvidia", "runc")
    assert result.cdi == ("/etc/cdi",)
    result = host_of({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}], "CDISpecDirs": None})
    assert (result.devices, result.cdi, result.memory) == (("nvidia.com/gpu=0",), (), 0)


def test_healthy_means_nothing_wrong() -> None:
    assert healthy([Finding("a", "ok", ""), Finding("b", "warning", "")])
    assert not healthy([Finding("a", "ok", ""), Finding("b", "wrong", "")])


def test_a_process_is_found_by_its_short_name(tmp_path: Path) -> None:
    for number, name in (("1", "systemd"), ("77", "nv-fabricmanage"), ("self", "python")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n")
    assert gather.runs(gather.FABRIC_MANAGER, tmp_path)
    assert not gather.runs("python", tmp_path)


# Where nothing is built: the installed package


def test_who_builds_nothing_is_asked_for_nothing_that_builds_need(matrix: Matrix) -> None:
    bare = replace(FACTS, engine=replace(ENGINE, buildx=None, free=10 * GB), embeddable="no root")
    states = {one.name: one.state for one in check_facts(bare, matrix)}
    assert (states["buildx"], states["disk"]) == ("wrong", "warning")
    told = {one.name: one.state for one in check_facts(bare, matrix, builds=False)}
    assert told["disk"] == "ok"
    assert {"buildx", "memory", "package index"}.isdisjoint(told)
    assert set(told) < set(states)


def test_who_builds_nothing_pulls(matrix: Matrix, variants: Variants) -> None:
    advice = advise(FACTS, matrix, variants, {}, builds=False)
    assert advice.command == "./inv pull --from REPO"
    assert "REPO is where images are published" in advice.lines[-1]
    named_one = advise(FACTS, matrix, variants, {}, "ghcr.io/me/qwen", builds=False)
    assert named_one.command == "./inv pull --from ghcr.io/me/qwen"
    assert not any("REPO" in line for line in named_one.lines)
    without = advise(BARE, matrix, variants, {}, builds=False)
    assert without.command == "./inv pull --from REPO --name cpu-vllm0.32.0-sdpa"
    old = replace(
        FACTS, cards=LocalMachine("535.104.05", "12.2", (LocalCard("Tesla K80", "GPU-2", Arch(3, 7), 12 * GB),))
    )
    refused = advise(old, matrix, variants, {}, "r.example/x", builds=False)
    assert "Tesla K80: no image" in refused.lines
    assert refused.command == "./inv pull --from r.example/x --name cpu-vllm0.32.0-sdpa"
