"""By which words an engine gives cards, and whether it runs on this machine: with recorded answers of engines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from images.docker.container_spec import ALL_CARDS, NO_CARDS, ContainerSpec, Gpus
from images.docker.gpu_access import NO_TOOLS, GpuTools, by_way, gpu_tools, spec_by_way, way_to_cards
from images.docker.whose_machine import free_below, is_local, this_machine
from tests.helpers.docker_info import HERE, docker_info

HOOK = GpuTools(("nvidia-container-runtime-hook",))
SPECIFIED = GpuTools(("nvidia-ctk",), ("/etc/cdi/nvidia.yaml",))
NO_CGROUPS = GpuTools(("nvidia-container-runtime-hook",), no_cgroups=True)


@pytest.mark.parametrize(
    ("engine", "tools", "way"),
    [
        ("nvidia-runtime", NO_TOOLS, "nvidia"),
        ("nvidia-runtime", SPECIFIED, "nvidia"),
        ("nothing", NO_TOOLS, ""),
        ("nothing", HOOK, "nvidia"),
        ("nothing", SPECIFIED, ""),  # it does not read CDI
        ("cdi-26-no-devices-told", NO_TOOLS, ""),
        ("cdi-26-no-devices-told", SPECIFIED, "cdi"),
        ("cdi-28", NO_TOOLS, "cdi"),
        ("cdi-28", HOOK, "nvidia"),
        ("cdi-28-of-another-maker", NO_TOOLS, ""),
        ("rootless-nvidia", HOOK, ""),
        ("rootless-nvidia", NO_CGROUPS, "nvidia"),
        ("rootless-cdi", HOOK, "cdi"),
        ("podman-4.9", NO_TOOLS, ""),
        ("podman-4.9", HOOK, ""),
        ("podman-4.9", SPECIFIED, "cdi"),
        ("desktop-wsl2", NO_TOOLS, "nvidia"),
    ],
)
def test_how_an_engine_gives_cards(engine: str, tools: GpuTools, way: str) -> None:
    assert way_to_cards(docker_info(engine), tools) == way


def test_a_container_is_asked_for_as_its_engine_gives_cards() -> None:
    spec = ContainerSpec("debian", gpus=Gpus(2))
    assert spec_by_way(spec, "cdi").gpus.cdi_names == ("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    assert spec_by_way(spec, "nvidia") == spec == spec_by_way(spec, "")
    assert by_way(NO_CARDS, "cdi") == NO_CARDS
    asked = by_way(ALL_CARDS, "cdi")
    assert by_way(asked, "nvidia") == asked, "who says CDI gets it"


@pytest.mark.parametrize(
    ("engine", "endpoint", "local"),
    [
        ("nothing", "unix:///var/run/docker.sock", True),
        ("rootless-nvidia", "unix:///run/user/1000/docker.sock", True),
        ("podman-4.9", "unix:///run/user/1000/podman/podman.sock", True),
        ("desktop-linux", "unix:///home/me/.docker/desktop/docker.sock", False),
        ("colima", "unix:///home/me/.colima/default/docker.sock", False),
        ("nothing", "tcp://127.0.0.1:2375", True),
        ("nothing", "ssh://me@localhost", True),
        ("nothing", "ssh://me@gpu-host-2", False),
        ("colima", "tcp://127.0.0.1:2375", False),
    ],
)
def test_an_engine_is_local_when_it_shares_the_kernel(engine: str, endpoint: str, local: bool) -> None:
    assert is_local(endpoint, docker_info(engine), HERE) == local


def test_a_forwarded_socket_of_a_like_machine_and_wsl2() -> None:
    smaller = replace(docker_info("nothing"), memory=HERE.memory // 2)
    assert not is_local("unix:///tmp/forwarded.sock", smaller, HERE)
    wsl = replace(HERE, kernel="5.15.167.4-microsoft-standard-WSL2")
    assert is_local("unix:///var/run/docker.sock", docker_info("desktop-wsl2"), wsl)
    silent = replace(docker_info("nothing"), kernel="")
    assert is_local("unix:///x", silent, HERE) and not is_local("tcp://127.0.0.1:1", silent, HERE)


def test_settings_and_specifications_are_read_whatever_they_are(tmp_path: Path) -> None:
    folder, settings = tmp_path / "cdi", tmp_path / "config.toml"
    folder.mkdir()
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    (folder / "nvidia.yml").write_bytes(b"kind: nvidia.com/gpu\n\xff\xfe")
    (folder / "other.yaml").write_text("kind: vendor.example/nic\n")
    settings.write_text("[nvidia-container-cli]\n#no-cgroups = true\nno-cgroups = false\n")
    found = gpu_tools([folder, tmp_path / "none"], settings)
    assert (found.specifications, found.no_cgroups) == ((str(folder / "nvidia.yml"),), False)
    settings.write_text("[nvidia-container-cli]\nno-cgroups = true\n")
    assert gpu_tools([folder], settings).no_cgroups


def test_the_free_space_of_a_folder_that_is_not_here_is_not_known(tmp_path: Path) -> None:
    assert free_below(tmp_path) is not None
    assert free_below(tmp_path / "of" / "another" / "machine") is None


def test_memory_is_read_where_engines_read_it(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    assert this_machine(told).memory == 8 * 2**30
    told.write_text("nothing\n")
    assert this_machine(told).memory == this_machine(tmp_path / "none").memory > 2**28
