"""Kernel wheels with a real engine and a real registry: made once, carried to other machines, refused when they lie.

What takes minutes, the compiling, is stood in for by a stage that copies a ready wheel and counts its runs;
tests/engine/test_kernels_build.py is about the compiling itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.build import build as building
from images.build.build import build_images
from images.build.job import Job, make_job
from images.build.plan import make_plan
from images.core import process
from images.core.errors import CheckFailed, RegistryFailure, Unsafe
from images.core.home import Layout
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker import base_image as bases
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.engine import Engine
from images.kernels import remote
from images.kernels.compiler import Compiler, empty_cache
from images.kernels.key import Key, key_of
from images.kernels.store import Store
from images.matrix.kernel import Kernel
from images.registry import Repository, digest_of
from images.render import lock
from images.render.checkout import Checkout
from images.render.dockerfile import compile_templates, render
from images.render.lock_files import Lock
from images.render.lock_state import lock_inputs
from tests.engine.real_registry import RealRegistry
from tests.helpers import wheels
from tests.helpers.contexts import all_locked
from tests.helpers.matrices import ROOT, matrix, text, variants

# Both cards run the 8.0 code of flash-attn, so they share one kernel.
CARDS = ("cu124-vllm0.8.5.post1-flash-attn-sm86", "cu124-vllm0.8.5.post1-flash-attn-sm89")
RUNTIME = """FROM base AS runtime
RUN mkdir -p /opt/venv/bin
COPY --chmod=755 rootfs/python /opt/venv/bin/python
COPY --from=kernels / /opt/wheels/
ENV CARDSTOCK_VARIANT={{ variant.id | quoted }}
"""
KERNEL = """FROM base AS kernels
COPY wheels/{{ kernel.id | arg }}/ /out/
RUN --mount=type=cache,id=SALT,target=/count --mount=type=bind,from=kernel-build,target=/run/build \\
    echo SALT >>/count/n && echo "runs: $(wc -l </count/n)" && COMMAND
FROM scratch AS wheels
COPY --from=kernels /out/ /
"""
PYTHON = """#!/bin/sh
echo '{"pins": {"torch": "2.6.0"}, "cuda": "12.4", "python": "3.11.2", "kernel_archs": null}'
"""


class KernelCheckout:
    """A small checkout whose kernels take no time, with a lock, and builds in it."""

    def __init__(self, root: Path, engine: Engine, *, command: str = "true") -> None:
        self.root, self.engine, self.checkout = root, engine, Checkout(root)
        kernel = variants().valid[CARDS[0]].kernel
        assert kernel is not None
        self.kernel: Kernel = kernel
        for name in ("rootfs", "locks", "templates"):
            (root / "dockerfiles" / name).mkdir(parents=True)
        for name in ("images/device_code", "images/kernels/inside"):
            (root / name).mkdir(parents=True)
        (root / "dockerfiles/rootfs/python").write_text(PYTHON)
        (root / "matrix.yaml").write_text(text().replace("image: cardstock/qwen2.5-vl", f"image: test/{root.name}"))
        shutil.copy(ROOT / "advisories.yaml", root)
        wheels.build(root / "dockerfiles/wheels" / kernel.id, of=kernel)
        self._lock()
        templates = root / "dockerfiles/templates"
        (templates / "Dockerfile.j2").write_text(RUNTIME)
        (templates / "kernel.j2").write_text(KERNEL.replace("SALT", root.name).replace("COMMAND", command))
        only = variants().valid
        self.checkout.write_generated(
            render(matrix(), type(variants())({name: only[name] for name in CARDS}, ()), self.checkout.templates(), {})
        )

    def _lock(self) -> None:
        """What makes the stack a locked one: the answer to what it asks for, with the source's hash."""
        asked = lock_inputs(matrix(), "cu124", "vllm")
        line = f"flash-attn=={self.kernel.version} \\\n    --hash=sha256:{wheels.SOURCE}"
        parts = {"": {"torch": "torch==2.6.0"}, "flash-attn": {"flash-attn": line}}
        lock.write_lock(
            Lock(asked.digest(), parts, asked.lines(), {"flash-attn": wheels.SOURCE}), self.checkout.locks, asked.name
        )

    @property
    def key(self) -> Key:
        return key_of(self.kernel, wheels.SOURCE)

    @property
    def jobs(self) -> list[Job]:
        templates = compile_templates(self.checkout.templates())
        made = self.checkout.matrix()
        return [make_job(self.checkout, made, templates, variants().valid[name], "locked") for name in CARDS]

    def build(self, *, repository: Repository | None = None, only: slice = slice(None)) -> list[building.BuiltImage]:
        made = all_locked(self.root, self.engine, Report(io.StringIO(), io.StringIO()))
        plan = make_plan(made, [made.variants.valid[name] for name in CARDS[only]], self.engine)
        return build_images(made, plan, building.BuildSettings(smoke=False, wheels=repository))

    @property
    def runs(self) -> int:
        """How often the compiling stage ran, as its last run said; 0 if it never did."""
        log = self.root / "build/logs" / f"kernel-{self.kernel.id}.log"
        said = [line for line in (log.read_text().splitlines() if log.exists() else []) if " runs: " in line]
        return int(said[-1].rpartition(" ")[2]) if said else 0

    def compiled_along(self) -> bool:
        """Whether a build of images ran the compiling stage itself."""
        logs = (self.root / "build/logs").glob("cu124-*.log")
        return any("[kernels" in log.read_text() or " runs: " in log.read_text() for log in logs)

    def wheel_in(self, job: Job) -> str:
        """The sha256 of the wheel inside a built image."""
        ran = self.engine.run(job.tags[0], ["-c", "sha256sum /opt/wheels/*.whl"], entrypoint=["/bin/sh"])
        return str(ran.out).split()[0]

    def clean(self) -> None:
        for job in self.jobs:
            for name in (*job.tags, job.staging):
                self.engine.untag(name, force=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of this test's own; the engine stays the one that is there."""
    monkeypatch.setenv("DOCKER_CONFIG", os.environ.get("DOCKER_CONFIG", str(tmp_path / "none")))
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(building, "disk_needed", lambda jobs: 0)  # these images take as good as nothing
    return tmp_path / "home"


Make = Callable[..., KernelCheckout]


@pytest.fixture
def make(tmp_path: Path, engine: Engine, home: Path) -> Iterator[Make]:
    projects: list[KernelCheckout] = []

    def one(on: Engine = engine, **settings: str) -> KernelCheckout:
        name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
        projects.append(KernelCheckout(tmp_path / f"project{name}{len(projects)}", on, **settings))
        return projects[-1]

    yield one
    for project in projects:
        project.clean()


def repository(registry: RealRegistry) -> Repository:
    return Repository(f"{registry.host}/team/wheels", sleep=lambda _: None)


def test_two_variants_that_share_a_key_compile_once_and_get_the_stored_wheel(make: Make, home: Path) -> None:
    project = make()
    assert [one.outcome for one in project.build()] == ["built", "built"]
    stored = Store(home / "wheels").get(project.key)
    assert stored is not None
    assert project.runs == 1
    assert [project.wheel_in(job) for job in project.jobs] == [stored.record.sha256] * 2
    assert not project.compiled_along()
    project.clean()  # the images are gone, the wheel is not
    project.build(only=slice(1))
    assert project.runs == 1


def test_a_damaged_store_is_noticed_and_made_anew(make: Make, home: Path) -> None:
    project = make()
    project.build(only=slice(1))
    wheel = next((home / "wheels" / project.key.digest).glob("*.whl"))
    whole = hashlib.sha256(wheel.read_bytes()).hexdigest()
    os.truncate(wheel, 10)
    project.clean()
    project.build(only=slice(1))
    assert project.wheel_in(project.jobs[0]) == whole


def test_a_failed_compile_leaves_its_log_and_no_wheel(make: Make, home: Path) -> None:
    project = make(command="sh -c 'echo nvcc error: no such thing; exit 7'")
    with pytest.raises(CheckFailed, match="did not build; nothing was stored") as caught:
        project.build()
    assert "exit code: 7" in caught.value.cause
    assert "nvcc error: no such thing" in (project.root / caught.value.where.partition(" ")[0]).read_text()
    assert Store(home / "wheels").entries() == ()
    assert project.engine.inspect(project.jobs[0].tags[0]) is None


def test_a_compile_for_other_cards_is_not_stored(make: Make, home: Path) -> None:
    project = make()
    wheels.build(project.root / "dockerfiles/wheels" / project.kernel.id, of=project.kernel, numbers=(90,))
    with pytest.raises(CheckFailed, match=r"is not for 8\.0 alone"):
        project.build()
    assert Store(home / "wheels").entries() == ()


def test_a_machine_with_an_empty_engine_takes_it_from_the_registry(
    make: Make, engine: Engine, registry: RealRegistry, second: Layout, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make()
    project.build(only=slice(1))
    stored = Store(home / "wheels").get(project.key)
    assert stored is not None
    digest, new = remote.push(repository(registry), stored, project.kernel.id)
    assert new and remote.push(repository(registry), stored, project.kernel.id) == (digest, False)

    monkeypatch.setenv("CARDSTOCK_HOME", str(second.home))
    embedded.start(second)
    monkeypatch.setenv("DOCKER_HOST", second.endpoint)
    other = connect(second)
    base = bases.local_reference("bookworm")
    with engine.export_tar(base) as chunks:
        (second.home / "base.tar").write_bytes(b"".join(chunks))
    other.import_tar(second.home / "base.tar", base)
    third = make(other, command="false")  # a compile would fail
    third.build(repository=repository(registry))
    assert third.runs == 0 and not third.compiled_along()
    assert {third.wheel_in(job) for job in third.jobs} == {stored.record.sha256}
    third.clean()


@pytest.fixture
def stored_wheel(registry: RealRegistry, tmp_path: Path) -> tuple[Repository, Store, Key, str]:
    """A registry with one wheel, the store it came from, its key, its digest."""
    store, key = Store(tmp_path / "first"), wheels.key()
    with store.work() as folder:
        stored = store.put(key, wheels.build(folder))
    place = repository(registry)
    return place, store, key, remote.push(place, stored, "x")[0]


Wheel = tuple[Repository, Store, Key, str]


def test_what_a_real_registry_keeps_comes_back(stored_wheel: Wheel, tmp_path: Path) -> None:
    place, store, key, digest = stored_wheel
    fetched = remote.fetch(place, key, Store(tmp_path / "other"))
    mine = store.get(key)
    assert fetched is not None and mine is not None
    assert fetched.record == mine.record
    assert place.tags() == (key.digest,)
    by_digest = place.manifest(digest)
    assert by_digest is not None and by_digest.digest == digest
    assert by_digest.content["artifactType"] == remote.KIND


def test_a_blob_changed_on_the_registrys_disk_is_refused(
    stored_wheel: Wheel, registry: RealRegistry, tmp_path: Path
) -> None:
    place, store, key, _ = stored_wheel
    stored = store.get(key)
    assert stored is not None
    blob = registry.blob(f"sha256:{stored.record.sha256}")
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Unsafe, match="not what its digest says"):
        remote.fetch(place, key, Store(tmp_path / "other"))
    blob.write_bytes(data[:-5])
    with pytest.raises((Unsafe, RegistryFailure)):
        remote.fetch(place, key, Store(tmp_path / "other"))
    assert Store(tmp_path / "other").entries() == ()


def test_a_tag_pointed_at_another_wheel_is_refused(stored_wheel: Wheel, tmp_path: Path) -> None:
    place, _, key, _ = stored_wheel
    found = place.manifest(key.digest)
    assert found is not None
    other = wheels.key("7.0")
    place.put_manifest(found.raw, other.digest)
    with pytest.raises(Unsafe, match="not what its key says") as caught:
        remote.fetch(place, other, Store(tmp_path / "other"))
    assert caught.value.exit_code == 7


def test_a_record_that_says_more_than_the_wheel_holds_is_refused(stored_wheel: Wheel, tmp_path: Path) -> None:
    place, _, key, _ = stored_wheel
    lie = wheels.build(tmp_path / "lie", numbers=(90,))  # its record says 7.5
    found = place.manifest(key.digest)
    assert found is not None
    content = json.loads(found.raw)
    for layer, path in zip(content["layers"], (lie / "kernel.json", next(lie.glob("*.whl"))), strict=True):
        layer["digest"], layer["size"] = digest_of(path.read_bytes()), path.stat().st_size
        place.upload(path, layer["digest"])
    content["config"] |= {name: content["layers"][0][name] for name in ("digest", "size")}
    place.put_manifest(json.dumps(content).encode(), key.digest)
    with pytest.raises(Unsafe, match="not what its key says") as caught:
        remote.fetch(place, key, Store(tmp_path / "other"))
    assert "holds 9.0" in caught.value.cause


def test_a_registry_killed_in_between_is_waited_for(registry: RealRegistry, tmp_path: Path) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if not registry.answers():
            registry.start()

    store, key = Store(tmp_path / "first"), wheels.key()
    with store.work() as folder:
        stored = store.put(key, wheels.build(folder))
    place = Repository(f"{registry.host}/team/wheels", sleep=wait)
    registry.stop(signal.SIGKILL)
    remote.push(place, stored, "x")
    registry.stop(signal.SIGKILL)
    assert remote.fetch(place, key, Store(tmp_path / "other")) is not None
    assert waits == [0.5, 0.5]


def test_the_command_line_exports_what_pip_installs(
    make: Make, home: Path, registry: RealRegistry, tmp_path: Path
) -> None:
    project = make()
    project.build(only=slice(1))

    def inv(*words: str) -> process.Finished:
        script = "import sys; from pathlib import Path; from images.commands import options, program\n"
        script += f"options.ROOT = Path({str(project.root)!r})\n"
        script += "sys.argv = ['inv', *sys.argv[1:]]; sys.exit(program.main())"
        argv = [sys.executable, "-c", script, "kernels", "--only", project.kernel.id, *words]
        return process.run(argv, cwd=ROOT, check=False, env={"PYTHONPATH": str(ROOT)})

    wheels_at = f"{registry.host}/team/wheels"
    pushed = inv("--wheels", wheels_at, "--push", "--export", str(tmp_path / "out"))
    assert pushed.code == 0, pushed.err
    assert project.runs == 1
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert f"pip install torch==2.6.0 {wheel}" in pushed.err
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(tmp_path / "t")]
    process.run([*pip, str(wheel)])
    assert (tmp_path / "t/flash_attn/_C.so").is_file()
    listed = json.loads(inv("--list", "--json").out)
    assert [one["where"] for one in listed] == ["store"]
    shutil.rmtree(home / "wheels")
    assert [one["where"] for one in json.loads(inv("--list", "--json", "--wheels", wheels_at).out)] == ["registry"]
    bad = inv("--wheels", f"{registry.host}/Team")
    assert (bad.code, "is not a repository" in bad.err) == (2, True)


def test_a_bench_compiles_again_with_the_cache_and_can_empty_it(make: Make) -> None:
    project = make()
    compiler = Compiler(project.checkout, project.checkout.matrix(), lambda: project.engine, SiteSettings(), Report())
    project.build(only=slice(1))
    assert project.runs == 1
    again = replace(compiler, fresh=True)
    for expected in (2, 3):  # counted in the cache
        with Store(project.root / "other").work() as folder:
            again.compile(project.kernel, folder)
            assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".whl"]
        assert project.runs == expected
    empty_cache(compiler, project.root.name)
    with Store(project.root / "other").work() as folder:
        again.compile(project.kernel, folder)
    assert project.runs == 1
