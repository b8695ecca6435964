"""An engine that gives cards by CDI alone: a daemon of its own, with a specification of devices that leave a mark.

Its programs are those of the embedded engine; its folders, socket and specification are the test's.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.core import process
from images.core.errors import CardstockError
from images.core.home import Layout, default_layout
from images.docker import ALL_CARDS, ContainerSpec, Gpus, TemporaryContainers, docker_words, spec_by_way
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages
from images.docker.embedded.ping import engine_version
from images.docker.engine import Engine
from tests.engine.conftest import host_tar, needs_root_on_debian

SPECIFICATION = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": name, "containerEdits": {"env": [f"CARD_{name.upper()}=yes"]}} for name in ("0", "1", "all")],
}
IMAGE = "cardstock/test-cdi:host"


@pytest.fixture(scope="module")
def cdi_engine() -> Iterator[Engine]:
    needs_root_on_debian()
    whole = default_layout()
    if not packages.installed(whole):
        pytest.skip("the embedded engine is not installed here: ./inv engine --start")
    home = Path(tempfile.mkdtemp(prefix="cdi-", dir="/tmp"))
    layout = Layout(home)
    layout.root.mkdir()
    (home / "cdi").mkdir()
    (home / "cdi" / "nvidia.json").write_text(json.dumps(SPECIFICATION))
    settings: dict[str, object] = {"bridge": "none", "iptables": False, "ip6tables": False}
    settings |= {"storage-driver": "overlay2", "hosts": [layout.endpoint], "pidfile": str(layout.pidfile)}
    settings |= {"data-root": str(layout.data), "exec-root": str(layout.exec)}
    settings |= {"experimental": True, "features": {"cdi": True}, "cdi-spec-dirs": [str(home / "cdi")]}
    layout.config.write_text(json.dumps(settings))
    dockerd = str(whole.prefix / "usr" / "sbin" / "dockerd")
    process.start_daemon([dockerd, "--config-file", str(layout.config)], layout.log, env={"PATH": whole.path})
    embedded._wait_ready(layout, embedded._daemon(layout) or os.getpid(), 60)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = layout.endpoint
    try:
        engine = connect(whole)
        engine.import_tar(io.BytesIO(host_tar()), IMAGE)
        yield engine
    finally:
        os.environ.pop("DOCKER_HOST")
        if before:
            os.environ["DOCKER_HOST"] = before
        embedded.stop(layout)
        shutil.rmtree(home, ignore_errors=True)


def marks(text: str) -> set[str]:
    return {word.partition("=")[0] for word in text.replace("\0", "\n").split() if word.startswith("CARD_")}


def spec(gpus: Gpus, *words: str) -> ContainerSpec:
    return ContainerSpec(IMAGE, words or ("cat", "/proc/self/environ"), gpus=gpus, network="none")


def test_the_engine_is_asked_for_cards_by_cdi(cdi_engine: Engine) -> None:
    assert engine_version(Path(cdi_engine.endpoint.removeprefix("unix://")))
    assert cdi_engine.local and cdi_engine.way_to_cards == "cdi"
    assert marks(cdi_engine.run(IMAGE, ["cat", "/proc/self/environ"], gpus=True).out) == {"CARD_ALL"}
    assert marks(cdi_engine.run(IMAGE, ["cat", "/proc/self/environ"]).out) == set()


def test_a_container_that_stays_and_one_of_a_proof(cdi_engine: Engine) -> None:
    name = f"cdi-{uuid.uuid4().hex[:8]}"
    cdi_engine.containers.start(replace(spec(Gpus(2)), name=name), {})
    assert marks(cdi_engine.containers.ended(name, 30)[1]) == {"CARD_0", "CARD_1"}
    cdi_engine.containers.remove(name)
    proof = TemporaryContainers(name)
    with proof.running(spec(ALL_CARDS, "sleep", "60")) as container:
        assert marks(container.run(["cat", "/proc/1/environ"]).out) == {"CARD_ALL"}
    proof.close()


def test_the_printed_line_does_the_same(cdi_engine: Engine) -> None:
    words = docker_words(spec_by_way(spec(Gpus(devices=("1",))), cdi_engine.way_to_cards), foreground=True)
    assert "--gpus" not in words
    assert marks(process.run(words, env=cdi_engine.cli_env(), timeout=60).out) == {"CARD_1"}


def test_a_card_that_no_specification_names_is_refused_by_its_name(cdi_engine: Engine) -> None:
    with pytest.raises(CardstockError, match=r"(?s)unresolvable CDI devices nvidia.com/gpu=GPU-9"):
        cdi_engine.containers.start(replace(spec(Gpus(devices=("GPU-9",))), name="cdi-none"), {})
