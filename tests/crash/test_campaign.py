"""Kills at random and at each phase, two at once, a full disk, engine and registry started again: what is left then.

It takes minutes, so `invoke test` leaves this folder out; `invoke test --crash` runs it, and `weekly.yml`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from images.catalogue.store import check_image, fetch_catalogue
from images.core import process
from images.core.errors import CardstockError
from images.docker.container_spec import ContainerSpec
from images.docker.engine import Engine
from images.registry.client import Repository
from tests.crash.conftest import Shop
from tests.crash.machine import BASE, Machine, Tally
from tests.engine.faulty import Fault, faulty
from tests.engine.test_build import SmallCheckout
from tests.helpers.small_publisher import SM75

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

SEED = int(os.environ.get("CARDSTOCK_CRASH_SEED", "14"))
KILLS = int(os.environ.get("CARDSTOCK_CRASH_KILLS", "8"))  # at random, of each kind
PULLED = "crash/pulled:x"
# Requests of one publishing, in order; the engine's own pull and the proof lie between them.
PHASES = (
    "GET /v2/team/qwen/manifests/catalogue",
    "POST /v2/team/qwen/blobs/uploads",
    "PUT /v2/team/qwen/blobs/uploads",
    "PUT /v2/team/qwen/manifests/sha256:",
    "PUT /v2/team/qwen/manifests/sha256-",
    "PUT /v2/team/qwen/manifests/catalogue",
    f"PUT /v2/team/qwen/manifests/{SM75}-",
    f"PUT /v2/team/qwen/manifests/{SM75}",
    "PUT /v2/team/qwen/manifests/sm75",
)


def tags(name: str) -> dict[str, str]:
    """Tag -> digest, of all that people use."""
    repository = Repository(name)
    found = {tag: repository.manifest(tag) for tag in repository.tags() if not tag.startswith("sha256-")}
    return {tag: manifest.digest for tag, manifest in found.items() if manifest and tag != "catalogue"}


def nothing_unproven(shop: Shop, tally: Tally, when: str) -> None:
    """Whatever happened: tags name what went through a proof, and what the catalogue has can be pulled."""
    strangers = {tag: digest for tag, digest in tags(shop.repository).items() if digest not in shop.proven()}
    tally.expect(not strangers, f"{when}: tags name what was not proven: {strangers}")
    catalogue, _ = fetch_catalogue(Repository(shop.repository))
    for image in catalogue.images if catalogue else ():
        try:
            check_image(Repository(shop.repository), image)
        except CardstockError as error:
            tally.expect(False, f"{when}: a pull is refused: {error}")


def published(shop: Shop, machine: Machine, tally: Tally, when: str, number: int = 0) -> None:
    """Run again without a fault: it ends well, all names one image, and nothing is left of what was killed."""
    child = machine.child(*shop.words(number))
    code = child.end()
    tally.expect(code == 0, f"{when}: run again it ends with {code}: {child.text[-600:]}")
    nothing_unproven(shop, tally, when)
    named = tags(shop.repository)
    tally.expect(len(named) == 3 and len(set(named.values())) == 1, f"{when}: tags name {named}")
    tally.expect(machine.left() == [], f"{when}: left: {machine.left()}")
    with machine.engine() as engine:
        held = [name for facts in engine.images("dev.cardstock.variant") for name in facts.digests]
    tally.expect(not [name for name in held if shop.registry.host in name], f"{when}: the engine holds {held}")
    written = shop.roots[number] / "build/catalogue.json"
    tally.expect(written.is_file(), f"{when}: no catalogue.json")


def fresh(shop: Shop) -> None:
    """An empty registry, and nothing proven."""
    shop.registry.stop()
    shutil.rmtree(shop.registry.folder / "data", ignore_errors=True)
    (shop.folder / "proofs").unlink(missing_ok=True)
    for root in shop.roots:
        shutil.rmtree(root / "build", ignore_errors=True)
    shop.registry.start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_publish_killed_at_each_phase(machine: Machine, shop: Shop, tally: Tally, number: signal.Signals) -> None:
    for place in PHASES:
        fresh(shop)
        with faulty(shop.registry.port) as plan:
            child = machine.child(*shop.words(port=plan.port))
            plan.faults = [Fault(place, partial(child.kill, number))]
            code = child.end()
        tally.tried(f"publish killed at a phase, {number.name}")
        when = f"publish, {number.name} at {place}"
        tally.expect(code == (-9 if number == signal.SIGKILL else 143), f"{when}: ended with {code}")
        nothing_unproven(shop, tally, when)
        published(shop, machine, tally, when)
    assert tally.new() == []


def test_publish_killed_at_random(machine: Machine, shop: Shop, tally: Tally) -> None:
    chance = random.Random(SEED)  # noqa: S311
    for _ in range(KILLS):
        fresh(shop)
        after = chance.uniform(0.5, 8)
        child = machine.child(*shop.words())
        time.sleep(after)
        child.kill()
        child.end()
        tally.tried("publish killed at random")
        nothing_unproven(shop, tally, f"publish, SIGKILL after {after:.2f} s")
        published(shop, machine, tally, f"publish, SIGKILL after {after:.2f} s")
    assert tally.new() == []


def test_two_publish_the_same_inputs(machine: Machine, shop: Shop, tally: Tally, tmp_path: Path) -> None:
    """Each request of the one holds until the other has published."""
    with faulty(shop.registry.port) as plan:
        assert machine.child(*shop.words(port=plan.port)).end() == 0
        asked = list(plan.asked)
    wanted = [line for line in asked if "/manifests/" in line and ("PUT" in line or "sha256" not in line)]
    wanted = [re.sub(r"(sha256[:-]).*", r"\1", line) for line in wanted]  # digests are others each time
    for place in dict.fromkeys(wanted):
        fresh(shop)
        inside: list[int] = []
        with faulty(shop.registry.port) as plan:

            def act(inside: list[int] = inside) -> None:
                inside.append(machine.child(*shop.words(1), home=tmp_path / "second").end())

            plan.faults = [Fault(place, act)]
            outer = machine.child(*shop.words(port=plan.port))
            code = outer.end()
        tally.tried("two machines publish, one inside the other")
        when = f"two publishers, the second inside {place}"
        tally.expect((code, inside) == (0, [0]), f"{when}: ended with {code}, {inside}: {outer.text[-500:]}")
        published(shop, machine, tally, when)
    assert tally.new() == []


def test_two_publish_on_one_machine(machine: Machine, shop: Shop, tally: Tally) -> None:
    for _ in range(3):
        fresh(shop)
        both = [machine.child(*shop.words()) for _ in range(2)]
        codes = [one.end() for one in both]
        tally.tried("two publish at once on one machine")
        text = "\n".join(one.text for one in both)
        tally.expect(codes == [0, 0], f"two publish at once: {codes}: {text[-800:]}")
        tally.expect("waiting for the publishing" in text, f"nobody is told for whom: {text[-800:]}")
        published(shop, machine, tally, "two publish at once")
    assert tally.new() == []


def test_registry_and_engine_crash_while_published(machine: Machine, shop: Shop, tally: Tally) -> None:
    chance = random.Random(SEED)  # noqa: S311
    for what in ("registry", "engine", "engine", "registry"):
        fresh(shop)
        child = machine.child(*shop.words())
        time.sleep(chance.uniform(1.5, 5))
        if what == "registry":
            shop.registry.stop()
            time.sleep(1)
            shop.registry.start()
        else:
            machine.crash(containerd=chance.random() < 0.5)
            machine.start()
        code = child.end()
        tally.tried(f"{what} crashed while published")
        tally.expect(code in (0, 1, 5, 6), f"{what} crashed: ended with {code}: {child.text[-500:]}")
        tally.expect("defect" not in child.text and "Traceback" not in child.text, f"{what}: {child.text[-900:]}")
        nothing_unproven(shop, tally, f"{what} crashed while published")
        published(shop, machine, tally, f"{what} crashed while published")
    assert tally.new() == []


# -- pulling


def forget(other: Machine) -> None:
    """No image, no layers."""
    with other.engine() as engine:
        for facts in engine.images("dev.cardstock.variant"):
            engine.untag(facts.id, force=True)
    shutil.rmtree(other.layout.home / "pulled", ignore_errors=True)


def pulled(shop: Shop, other: Machine, tally: Tally, when: str) -> None:
    """Run again: it ends well, the image is there and is the right one, and nothing is left."""
    child = other.child("pull", shop.repository, PULLED)
    code = child.end()
    tally.expect(code == 0, f"{when}: run again it ends with {code}: {child.text[-600:]}")
    catalogue, _ = fetch_catalogue(Repository(shop.repository))
    assert catalogue is not None
    with other.engine() as engine:
        facts = engine.inspect(PULLED)
        right = facts is not None and facts.id == catalogue.current[SM75].config
        tally.expect(right, f"{when}: the engine has {facts and facts.id}")
        if right:
            ran = engine.run(PULLED, ["-c", "x"], entrypoint=["/opt/venv/bin/python"], check=False)
            tally.expect(ran.code == 0, f"{when}: it does not run: {ran}")
    lying = list((other.layout.home / "pulled").iterdir()) if (other.layout.home / "pulled").is_dir() else []
    tally.expect(not lying and other.left() == [], f"{when}: left: {lying} {other.left()}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pull_killed(machine: Machine, other: Machine, shop: Shop, tally: Tally, number: signal.Signals) -> None:
    chance = random.Random(SEED)  # noqa: S311
    assert machine.child(*shop.words()).end() == 0
    for _ in range(KILLS):
        forget(other)
        child = other.child("pull", shop.repository, PULLED)
        time.sleep(after := chance.uniform(0.3, 2.5))
        child.kill(number)
        child.end()
        tally.tried(f"pull killed at random, {number.name}")
        pulled(shop, other, tally, f"pull, {number.name} after {after:.2f} s")
    assert tally.new() == []


def test_two_pull_at_once(machine: Machine, other: Machine, shop: Shop, tally: Tally) -> None:
    assert machine.child(*shop.words()).end() == 0
    for broken_off in (False, True, False, True):
        forget(other)
        if broken_off:
            catalogue, _ = fetch_catalogue(Repository(shop.repository))
            assert catalogue is not None
            digest = catalogue.current[SM75].digest.replace(":", "-")
            (other.layout.home / "pulled" / digest).mkdir(parents=True)
        both = [other.child("pull", shop.repository, PULLED) for _ in range(2)]
        codes = [one.end() for one in both]
        tally.tried("two pull at once")
        text = "\n".join(one.text for one in both)
        tally.expect(codes == [0, 0], f"two pull at once: {codes}: {text[-800:]}")
        pulled(shop, other, tally, "two pull at once")
    assert tally.new() == []


def test_registry_and_engine_crash_while_pulled(machine: Machine, other: Machine, shop: Shop, tally: Tally) -> None:
    chance = random.Random(SEED)  # noqa: S311
    assert machine.child(*shop.words()).end() == 0
    for what in ("registry", "engine", "registry", "engine"):
        forget(other)
        child = other.child("pull", shop.repository, PULLED)
        time.sleep(chance.uniform(0.5, 2))
        if what == "registry":
            shop.registry.stop()
            time.sleep(1)
            shop.registry.start()
        else:
            other.crash(containerd=chance.random() < 0.5)
            other.start()
        code = child.end()
        tally.tried(f"{what} crashed while pulled")
        tally.expect(code in (0, 1, 5, 6), f"{what} crashed: ended with {code}: {child.text[-500:]}")
        tally.expect("defect" not in child.text and "Traceback" not in child.text, f"{what}: {child.text[-900:]}")
        pulled(shop, other, tally, f"{what} crashed while pulled")
    assert tally.new() == []


def test_pull_onto_a_full_disk(machine: Machine, shop: Shop, tally: Tally) -> None:
    """The engine's disk fills up under it; then there is room, and the same again goes on."""
    disk = Path(tempfile.mkdtemp(prefix="disk-", dir="/tmp"))
    if process.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)], check=False).code:
        pytest.skip("no file system can be mounted here: not run")
    try:
        assert machine.child(*shop.words()).end() == 0
        small = Machine(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")), disk)
        try:
            for leave in (0, 1, 3, 6):
                forget(small)
                fill = disk / "fill"
                size = shutil.disk_usage(disk).free - leave * 2**20
                with suppress(OSError), fill.open("wb") as out:
                    for _ in range(max(0, size) >> 16):
                        out.write(b"\0" * (1 << 16))
                child = small.child("pull", shop.repository, PULLED)
                code = child.end()
                tally.tried("pull onto a full disk")
                told = code == 0 or (code == 1 and "disk" in child.text and "registry answers" not in child.text)
                tally.expect(told, f"full disk, {leave} MiB left: ended with {code}: {child.text[-600:]}")
                tally.expect("defect" not in child.text, f"full disk: {child.text[-900:]}")
                fill.unlink()
                pulled(shop, small, tally, f"pull after a full disk ({leave} MiB left)")
        finally:
            small.end()
    finally:
        process.run(["umount", "--lazy", str(disk)], check=False)
        disk.rmdir()
    assert tally.new() == []


# -- building


def test_builds(machine: Machine, tally: Tally, tmp_path: Path) -> None:
    """Two at once, and killed at random; then once more."""
    chance = random.Random(SEED)  # noqa: S311
    with machine.engine() as engine:
        engine.tag(BASE, _local_base())
    for case in ["two"] * 3 + ["kill"] * (KILLS // 2):
        root = tmp_path / f"build{chance.randrange(10**8)}"
        with machine.engine() as engine:
            made = SmallCheckout(root, engine, seconds=2)
            children = [machine.child("build", str(root), "2") for _ in range(2 if case == "two" else 1)]
            if case == "kill":
                time.sleep(chance.uniform(0.5, 5))
                children[0].kill()
            codes = [child.end() for child in children]
            tally.tried("two build at once" if case == "two" else "build killed at random")
            text = "\n".join(child.text for child in children)
            tally.expect(case == "kill" or codes == [0, 0], f"two builds: {codes}: {text[-900:]}")
            again = machine.child("build", str(root), "2")
            tally.expect(again.end() == 0, f"build after {case}: {again.text[-900:]}")
            names = {made.job.staging: False, **dict.fromkeys(made.job.tags, True)}
            there = {name: engine.inspect(name) is not None for name in names}
            tally.expect(there == names, f"build after {case}: {there}")
            tally.expect(machine.left() == [], f"build after {case}: left {machine.left()}")
            for name in made.job.tags:
                engine.untag(name, force=True)
    assert tally.new() == []


def _local_base() -> str:
    from images.build.build import local_base

    return local_base()


# -- serving


def test_a_served_container_comes_back(machine: Machine, tally: Tally) -> None:
    spec = ContainerSpec(
        BASE, ("sleep", "100000"), name="served", restart="always", network="none", healthcheck=False, tmpfs=()
    )
    specs = [spec, replace(spec, name="served-as-before", restart="unless-stopped")]
    with machine.engine() as engine:
        for one in specs:
            engine.containers.start(one, {})
    for how in (False, True, False):
        machine.crash(containerd=how)
        machine.start()
        for one in specs:
            tally.tried("engine crashed under a server")
            with machine.engine() as engine:
                tally.expect(_running(engine, one.name), f"{one.name} ({one.restart}) stays down")
    with machine.engine() as engine:
        for one in specs:
            engine.containers.remove(one.name)
    assert tally.new() == []


def _running(engine: Engine, name: str) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = engine.containers.find(name)
        if found and found.status == "running":
            return True
        time.sleep(0.5)
    return False
