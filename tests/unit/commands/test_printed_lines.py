"""What `fit` prints as the next command is the same plan again: cards, number, split, image, driver and all."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from images.cards.this_machine import LocalCard, LocalMachine, MigInstance
from images.commands.cluster import ClusterOptions, serve_on_hosts
from images.commands.cluster import plan as cluster_plan
from images.commands.fit import lines_to_type, serve_command, show_fit
from images.commands.serve import start_server
from images.core.errors import CardstockError, NoImageFits
from images.matrix.arch import Arch
from images.run.cluster.hosts import parse_hosts
from images.run.fit.find import FitOptions, find_fit
from images.run.serve.pick import ServeOptions
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import matrix
from tests.helpers.nonempty import nonempty
from tests.helpers.typed_lines import options_of

MODELS = ("3b", "3b-awq", "7b", "7b-fp16", "7b-gptq", "32b-awq", "72b-awq")
CARDS: tuple[tuple[str, ...], ...] = (
    ("T4",),
    ("2080 Ti",),
    ("RTX 2080 Ti 22G",),
    ("3090",),
    ("A100",),
    ("a100 40g",),
    ("H100",),
    ("V100",),
    ("RTX4090D",),
    ("A100 3g.20gb",),
    ("3090", "4090"),
    ("3090", "2080 Ti"),
    ("2 x 3090 and 4090",),
    ("4090 x2, 3090",),
)
NUMBERS: tuple[dict[str, object], ...] = (
    {},
    {"count": 2},
    {"gpus": "2"},
    {"gpus": "device=0,1"},
    {"gpus": "device=1"},
    {"count": 4, "tp": 2},
    {"count": 4, "pp": 2},
    {"count": 8, "driver": "535.104"},
)
NONE = LocalMachine(why="no card")


def _docker_line(line: str, capsys: pytest.CaptureFixture[str], machine: LocalMachine = NONE) -> list[str]:
    """What `serve` prints for a line that `fit` printed."""
    options = replace(options_of(line, ServeOptions), print=True)
    start_server(context(silent()[0], locked={}, environment={}), options, machine)
    return shlex.split(capsys.readouterr().out)


@pytest.mark.parametrize("model", MODELS)
def test_the_next_command_serves_what_was_computed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    same = 0
    for cards in nonempty(CARDS):
        for number in nonempty(NUMBERS):
            options = FitOptions(model, cards, **number)  # type: ignore[arg-type]
            try:
                found = find_fit(context(silent()[0], locked={}), options, NONE)
            except CardstockError:
                continue
            (line,) = lines_to_type(found, matrix(), options)
            typed = serve_command(found, options)
            assert _docker_line(typed, capsys) == shlex.split(line), typed
            assert found.split.tp * found.split.pp == found.ask.count, typed
            same += 1
    assert same > 5


def test_what_fits_instead_is_fitted_as_it_is_printed() -> None:
    tried = 0
    for model in nonempty(MODELS):
        for cards in nonempty((("2080 Ti",), ("2080 Ti", "3090"), ("A100 1g.10gb",), ("4090 48G",))):
            try:
                find_fit(context(silent()[0], locked={}), FitOptions(model, cards), NONE)
            except NoImageFits as refused:
                for line in refused.do.partition("what fits: ")[2].split(" or "):
                    if line:
                        assert "48 GB" in line or "48G" not in cards[0]
                        assert find_fit(context(silent()[0], locked={}), options_of(line, FitOptions), NONE).sum.tokens
                        tried += 1
    assert tried > 3


@pytest.mark.parametrize(
    "options",
    [
        FitOptions("72b", ("RTX 2080 Ti",), count=8, nodes=2),
        FitOptions("72b-awq", ("2080ti",), count=8, nodes=2, tp=4, pp=4, driver="550", video=1),
        FitOptions("7b", ("4 x RTX 3090",), nodes=2, variant="cu129-vllm0.19.1-flash-attn-sm86"),
        FitOptions("72b-awq", ("3090 and 4090",), nodes=2),
        FitOptions("72b-awq", ("3090",), memory="36", nodes=2),
    ],
)
def test_a_cluster_is_what_was_computed(options: FitOptions, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_fit(context(silent()[0], locked={}), options, NONE)
    report, err = silent()
    show_fit(context(report, locked={}), options, NONE)
    capsys.readouterr()
    told = err.getvalue().splitlines()
    keys = next(line for line in told if line.startswith("hosts.yaml: ")).partition(" has ")[2]
    line = next(line for line in told if line.startswith("next: ")).removeprefix("next: ").partition("    #")[0]
    hosts = [f"  - {{name: box{at}, address: 10.0.0.{at + 1}, {keys}}}" for at in range(options.nodes)]
    text = "\n".join(["folder: /srv/model", "interface: eth0", "hosts:", *hosts])
    planned = cluster_plan(context(silent()[0], locked={}), parse_hosts(text), options_of(line, ClusterOptions))
    assert (planned.split, planned.variant) == (found.split, found.ask.variant.id)
    assert set(planned.flags[2:]) >= {str(found.load.length), f"{found.sum.utilisation:.2f}"}


def test_a_folder_of_a_config_is_what_serve_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from images.proof.tiny_model.checkpoint import write_checkpoint

    folder = write_checkpoint(tmp_path / "tiny").folder
    options = FitOptions(str(folder / "config.json"), ("T4",))
    typed = serve_command(find_fit(context(silent()[0], locked={}), options, NONE), options)
    assert f"--model {folder}" in typed
    assert _docker_line(typed, capsys)[-1]


def _rig(*cards: LocalCard) -> LocalMachine:
    return LocalMachine("570.86.10", "12.8", cards)


def _card(name: str, arch: Arch, at: int, gib: int = 24) -> LocalCard:
    return LocalCard(name, f"GPU-{at}", arch, gib * 2**30)


@pytest.mark.parametrize(
    ("gpus", "count", "docker"),
    [("", 3, "3"), ("2", 2, "2"), ("device=2,0", 2, '"device=0,2"'), ("device=GPU-1", 1, "device=GPU-1")],
)
def test_of_this_machines_cards(gpus: str, count: int, docker: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine = _rig(*(_card("NVIDIA GeForce RTX 3090", Arch(8, 6), at) for at in range(3)))
    options = FitOptions("3b", gpus=gpus)
    found = find_fit(context(silent()[0], locked={}), options, machine)
    words = _docker_line(serve_command(found, options), capsys, machine)
    assert (found.ask.count, words[words.index("--gpus") + 1]) == (count, docker)
    assert words == shlex.split(lines_to_type(found, matrix(), options)[0])


def test_a_mig_instance_is_one_card_with_its_own_memory(capsys: pytest.CaptureFixture[str]) -> None:
    parts = (
        MigInstance("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "MIG-small", 10 * 2**30),
        MigInstance("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-large", 20 * 2**30),
    )
    machine = _rig(LocalCard("NVIDIA A100-SXM4-40GB", "GPU-0", Arch(8, 0), 40 * 2**30, True, parts))
    for gpus, memory, docker in (
        ("", 20, "device=MIG-large"),
        ("device=MIG-small", 10, "device=MIG-small"),
        ("device=0:0", 10, "device=0:0"),
        ("device=0:1", 20, "device=0:1"),
    ):
        options = FitOptions("3b-awq", gpus=gpus)
        found = find_fit(context(silent()[0], locked={}), options, machine)
        assert found.ask.usable < memory * 2**30
        assert found.ask.usable > 0.9 * memory * 2**30 - 2**28
        words = _docker_line(serve_command(found, options), capsys, machine)
        assert words[words.index("--gpus") + 1] == docker
    for gpus, told in (("device=0", "name one"), ("device=0:2", "name one"), ("2", "name one")):
        with pytest.raises(CardstockError) as refused:
            find_fit(context(silent()[0], locked={}), FitOptions("3b-awq", gpus=gpus), machine)
        assert told in refused.value.do and "MIG-small" in refused.value.do
    with pytest.raises(NoImageFits, match="several MIG instances"):
        find_fit(context(silent()[0], locked={}), FitOptions("3b-awq", gpus="device=0:0,0:1"), machine)
    with pytest.raises(NoImageFits) as small:
        find_fit(context(silent()[0], locked={}), FitOptions("72b-awq"), machine)
    assert "MIG 3g.20gb" in small.value.what
    fits = small.value.do.partition("what fits: ")[2]
    assert fits and "A100" not in fits, "the same machine: its whole card is not there to be had"


def test_the_hosts_of_a_cluster_are_the_same_cards_by_whatever_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "model: 7b\nfolder: /srv/7b\ninterface: eth0\nhosts:\n"
        "  - {name: box1, address: 10.0.0.1, card: RTX 3090, devices: [0, 1]}\n"
        "  - {name: box2, address: 10.0.0.2, card: '2 x 3090', devices: [1, 2]}\n"
    )
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    serve_on_hosts(context(silent()[0], locked={}), ClusterOptions(hosts=str(path), print=True))
    assert "--tensor-parallel-size" in capsys.readouterr().out
    for wrong, told in (
        ("'1 x 3090'", "1 card named"),
        ("A100", "different cards: RTX 3090, A100"),
        ("3090 and 4090", "different cards"),
        ("MI300X", "no NVIDIA card"),
    ):
        path.write_text(text.replace("'2 x 3090'", wrong))
        with pytest.raises(CardstockError, match=told) as refused:
            serve_on_hosts(context(silent()[0], locked={}), ClusterOptions(hosts=str(path), print=True))
        assert "--card" not in refused.value.do and "--gpus" not in refused.value.do
