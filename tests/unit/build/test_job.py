from __future__ import annotations

import io
import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from images.build.build import check_disk, drop_replaced
from images.build.job import (
    FURTHER_IMAGE,
    ImageState,
    Job,
    describe,
    disk_needed,
    make_job,
    state_of_image,
)
from images.build.plan import input_hashes, make_plan
from images.core.errors import CardstockError, EngineUnreachable, RegistryFailure
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.build_inputs import named_contexts, pin_base
from images.docker.buildx import Steps, last_error
from images.docker.engine import Engine
from images.matrix import FIRST_IMAGE, make_variants
from images.matrix.model import Base
from images.render.checkout import Checkout
from images.render.dockerfile import compile_templates
from images.render.labels import EVIDENCE, INPUT, PROVEN, ImageContents, make_labels, parse_contents
from tests.helpers.contexts import context
from tests.helpers.matrices import ROOT, matrix, variants

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SDPA = "cu124-transformers5.24.0-sdpa-sm75"


def job(identifier: str = SM75, root: Path = ROOT) -> Job:
    checkout = Checkout(root)
    return make_job(checkout, matrix(), compile_templates(checkout.templates()), variants().valid[identifier], "locked")


class Disk:
    """An engine of which only the free space and a registry's digest are asked."""

    endpoint = "unix:///e.sock"

    def __init__(self, free: int | None, *, digest: str | None = None, embedded: bool = False) -> None:
        self._free, self._digest, self.embedded = free, digest, embedded

    def registry_digest(self, reference: str) -> str | None:
        return self._digest

    def make_room(self, need: int, say: object) -> int | None:
        return self._free


def test_a_job_names_its_image_by_variant_and_by_input() -> None:
    made = job()
    assert made.tags == (f"cardstock/qwen2.5-vl:{SM75}", f"cardstock/qwen2.5-vl:{SM75}-{made.input_hash[:12]}")
    assert made.staging.startswith("cardstock/staging:")
    assert "xformers 0.0.29.post2 from source" in describe(made)


def test_a_whole_image_has_a_hash_and_names_of_its_own() -> None:
    checkout = Checkout(ROOT)
    templates = compile_templates(checkout.templates())
    whole = make_job(checkout, matrix(), templates, variants().valid[SM75].as_whole(), "locked")
    plain = job()
    assert whole.dockerfile == plain.dockerfile
    assert whole.input_hash != plain.input_hash
    assert whole.tags == (
        f"cardstock/qwen2.5-vl:{SM75}-whole",
        f"cardstock/qwen2.5-vl:{SM75}-whole-{whole.input_hash[:12]}",
    )
    reading = ImageContents({}, "12.4", "3.11.2", None)
    given = make_labels(
        whole.variant,
        reading,
        whole.input_hash,
        evidence="",
        proven=True,
        audited=(),
        locked=True,
        revision="x",
        created="2026-11-28T00:00:00Z",
    )
    assert given["dev.cardstock.variant"] == f"{SM75}-whole"
    assert given["org.opencontainers.image.version"].startswith(f"{SM75}-whole-")
    assert state_of_image(plain, {**given, EVIDENCE: "x"}) == "outdated"


def test_any_input_file_changes_the_hash_of_those_who_use_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dockerfiles", tmp_path / "dockerfiles", ignore=shutil.ignore_patterns("rendered"))
    shutil.copytree(ROOT / "images/device_code", tmp_path / "images/device_code")
    before, other = job(root=tmp_path).input_hash, job(SDPA, tmp_path).input_hash
    assert before == job().input_hash
    lock = tmp_path / "dockerfiles/locks/cu124-vllm.txt"
    lock.write_text(lock.read_text() + "# changed\n")
    assert job(root=tmp_path).input_hash != before
    assert job(SDPA, tmp_path).input_hash == other
    (tmp_path / "dockerfiles/rootfs/opt/cardstock/new.py").write_text("x = 1\n")
    assert job(SDPA, tmp_path).input_hash != other


def test_what_an_image_is_to_its_job() -> None:
    made = job()
    right = {INPUT: made.input_hash, EVIDENCE: "stack: passed", PROVEN: "yes"}
    assert state_of_image(made, None) == "absent"
    assert state_of_image(made, {INPUT: "other"}) == "outdated"
    assert state_of_image(made, {**right, PROVEN: "no"}) == "unproven"
    assert state_of_image(made, right) == "proven"


def test_a_disk_too_small_is_told_before_anything_starts() -> None:
    need = FIRST_IMAGE["vllm"] + FIRST_IMAGE["transformers"]
    assert disk_needed([job(), job(SDPA)]) == need
    assert disk_needed([job(), job("cu124-vllm0.8.5.post1-xformers-sm70")]) == FIRST_IMAGE["vllm"] + FURTHER_IMAGE
    with pytest.raises(CardstockError, match="disk is too small") as caught:
        check_disk(Disk(5_000_000_000), [job()])  # type: ignore[arg-type]
    assert "18.0 GB needed, 5.00 GB free" in caught.value.what
    assert "--prune" in caught.value.do
    check_disk(Disk(need), [job()])  # type: ignore[arg-type]
    check_disk(Disk(None), [job()])  # type: ignore[arg-type]


def test_kernels_without_a_compiler_at_hand_are_refused_early() -> None:
    report = Report(io.StringIO(), io.StringIO())
    engine = cast(Engine, Disk(None))
    kernel = variants().valid["cu121-vllm0.7.3-xformers-sm75"].kernel
    assert kernel is not None
    with pytest.raises(RegistryFailure, match=r"no compiler for CUDA 12\.1") as caught:
        named_contexts(matrix(), [kernel], engine, SiteSettings(), report)
    assert caught.value.where.startswith("matrix.yaml:")


def test_a_tag_is_resolved_to_a_digest_by_the_users_own_engine_only() -> None:
    report, site = Report(io.StringIO(), io.StringIO()), SiteSettings()
    tag = Base(image="debian:bookworm-slim", digest=None)
    own, embedded = Disk(None, digest="sha256:" + "b" * 64), Disk(None, digest="sha256:" + "b" * 64, embedded=True)
    assert pin_base(tag, cast(Engine, own), site, report) == "debian@sha256:" + "b" * 64
    assert pin_base(tag, cast(Engine, embedded), site, report) is None
    assert pin_base(tag, cast(Engine, own), SiteSettings(bases="packages"), report) is None
    pinned = Base(image="debian:bookworm-slim", digest="sha256:" + "c" * 64)
    assert pin_base(pinned, cast(Engine, embedded), site, report) == "debian@sha256:" + "c" * 64


PROGRESS = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#2 [context base] load metadata for cardstock/base
#2 DONE 3.0s
#5 [os 1/4] COPY build/mountpoints/ /etc/
#5 CACHED
#12 [cu124-a venv 1/1] RUN --mount=type=bind,source=build/x,target=/run/build/x     ["/run/build/venv-install"]
#12 ...
#13 [cu124-a runtime 2/5] COPY --from=slim /out/ /opt/venv/
#13 DONE 0.4s
#12 [cu124-b venv 1/1] RUN --mount=type=bind,source=build/x,target=/run/build/x     ["/run/build/venv-install"]
#12 0.6 Resolved 13 packages
#12 9.9 Installed
#12 DONE 75.9s
#17 [kernels 3/3] RUN --mount=type=secret,id=ca ["/run/build/device-code", "share", "/opt/venv"]
#17 117.0 kernel-build: xformers [13/33] after 115 s
#18 [cu124-a] exporting to image
#18 exporting layers
#18 DONE 6.0s
"""


def test_progress_is_the_part_people_need() -> None:
    steps = Steps()
    assert [text for line in ["", *PROGRESS.splitlines()] for text in steps.told(line)] == [
        "start cu124-a venv: venv-install",
        "done  cu124-a venv: venv-install: 1 min 16 s",
        "start kernels: device-code share /opt/venv",
        "kernel: xformers [13/33] after 115 s",
        "done  cu124-a: exporting to image: 6.0 s",
    ]


def test_a_broken_build_says_why() -> None:
    tail = "#9 1.0 fine\n#9 2.0 error: nvcc died\n#9 3.0 more\nERROR: failed to solve: exit code: 1"
    assert last_error(tail).splitlines() == ["#9 2.0 error: nvcc died", "ERROR: failed to solve: exit code: 1"]
    assert last_error("a\nb") == "a\nb"


def test_labels_tell_what_the_image_told() -> None:
    output = 'a warning\n{"pins": {"torch": "2.6.0"}, "cuda": "12.4", "python": "3.11.2", "kernel_archs": "7.5"}\n'
    reading = parse_contents(output)
    assert reading == ImageContents({"torch": "2.6.0"}, "12.4", "3.11.2", "7.5")
    told = make_labels(
        variants().valid[SM75],
        reading,
        "f" * 64,
        evidence="stack: passed",
        proven=True,
        audited=("7.5",),
        locked=True,
        revision="abc",
        created="2026-01-01T00:00:00Z",
        advisories=("2026-11-27", ["CVE-2026-0001", "CVE-2026-0002"]),
    )
    assert told["dev.cardstock.advisories"] == "2026-11-27"
    assert told["dev.cardstock.advisories-open"] == "CVE-2026-0001 CVE-2026-0002"
    assert told["dev.cardstock.pins"] == "torch==2.6.0"
    assert told["dev.cardstock.archs"] == told["dev.cardstock.kernel-archs"] == "7.5"
    assert told["dev.cardstock.min-driver"] == "525.60.13"
    assert told["dev.cardstock.cuda"] == "12.4"
    assert told["dev.cardstock.audited-archs"] == "7.5"
    assert told[PROVEN] == "yes"
    needed = {"title", "description", "version", "revision", "created", "licenses"}
    assert {f"org.opencontainers.image.{name}" for name in needed} <= set(told)


def test_the_reader_needs_no_import_of_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from images.render.labels import READ_CONTENTS_SCRIPT

    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('torch must not be imported')\n")
    (package / "version.py").write_text("cuda = '12.4'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    script = tmp_path / "read.py"
    script.write_text(READ_CONTENTS_SCRIPT)
    runpy.run_path(str(script))
    assert json.loads(capsys.readouterr().out)["cuda"] == "12.4"


def test_the_reader_tells_what_flashinfers_kernels_are_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from images.kernels.inside.jit_cache import INIT
    from images.render.labels import READ_CONTENTS_SCRIPT

    told = INIT.format(version="1.2", architectures=["sm75", "sm120"], modules=["a"])
    for package, text in (("torch", "cuda = '13.0'"), ("flashinfer_jit_cache", told)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
    (tmp_path / "torch/version.py").write_text("cuda = '13.0'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    script = tmp_path / "read.py"
    script.write_text(READ_CONTENTS_SCRIPT)
    runpy.run_path(str(script))
    assert json.loads(capsys.readouterr().out)["kernel_archs"] == "12.0;7.5"


class Shelf:
    """An engine with names of images, of which some are in use."""

    def __init__(self, *names: str, used: str = "", error: type[CardstockError] = CardstockError) -> None:
        self.names, self._used, self._error = list(names), used, error

    def images(self, label: str) -> list[Any]:
        assert label.endswith(f"={SM75}")
        return [SimpleNamespace(tags=tuple(self.names))]

    def untag(self, name: str) -> bool:
        if name == self._used:
            raise self._error(f"{name} could not be removed", cause="a container is using it")
        self.names.remove(name)
        return True


def test_a_replaced_image_that_a_container_runs_stays_and_nothing_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = job()
    old, older = f"{made.tags[0]}-000000000000", f"{made.tags[0]}-111111111111"
    shelf = Shelf(*made.tags, older, old, "mine:1", used=older)
    drop_replaced(made, cast("Engine", shelf), Report())
    assert shelf.names == [*made.tags, older, "mine:1"]
    told = "".join(capsys.readouterr())
    assert f"left as it is: {older}: a container is using it" in told
    gone = Shelf(*made.tags, older, used=older, error=EngineUnreachable)
    with pytest.raises(EngineUnreachable):
        drop_replaced(made, cast("Engine", gone), Report())


def test_a_plan_keeps_its_jobs_when_an_engine_is_asked() -> None:
    class Empty:
        def images(self, label: str) -> tuple[()]:
            return ()

        def tags(self, repository: str) -> frozenset[str]:
            return frozenset()

    plan = make_plan(context(), [variants().valid[SM75]], None)
    (made,) = plan.jobs
    there = plan.on(cast(Any, Empty()))
    assert there.jobs[0] is made
    assert (plan.state(made.variant), there.state(made.variant)) == (ImageState.UNKNOWN, ImageState.ABSENT)
    assert there.to_do() == there.to_build(there.to_do()) == (made,)


def test_inputs_are_told_of_images_that_the_matrix_has_or_would_have_with_one_family_more() -> None:
    own, twin = context(), "cu124-vllm0.8.5.post1-xformers-sm75_90"
    told = input_hashes(own, [SM75, twin, "cu124-nothing", "nobody-sm1_2", "cpu-sm75_90"])
    assert list(told) == [SM75, twin]
    assert told[SM75] == make_plan(own, [own.variants.valid[SM75]], None).jobs[0].input_hash
    families = [*own.matrix.families, ["7.5", "9.0"]]
    bigger = own.matrix.model_copy(update={"families": families})
    there = own.having(matrix=bigger, variants=make_variants(bigger))
    assert told[twin] == make_plan(there, [there.variants.valid[twin]], None).jobs[0].input_hash
