"""What a container starts, where it may write, and how its health is asked for."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from images.core import process

HERE = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"


def load(name: str) -> ModuleType:
    loader = SourceFileLoader(f"cardstock_{name}", str(HERE / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


sys.path.insert(0, str(HERE))
entrypoint: Any = load("entrypoint")
healthcheck: Any = load("healthcheck.py")
VLLM = {"CARDSTOCK_ENGINE": "vllm", "PATH": "/usr/bin:/bin"}
SERVE = [sys.executable, str(HERE / "start_vllm.py")]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_without_words_the_model_in_models_is_served(models: Path) -> None:
    got = entrypoint.command([], VLLM, models)
    assert got == [*SERVE, "--model", str(models), "--port", "8000"]


def test_the_transformers_engine_is_the_server_beside_the_entrypoint(models: Path) -> None:
    got = entrypoint.command([], {"CARDSTOCK_ENGINE": "transformers", "CARDSTOCK_PORT": "81"}, models)
    assert got == [sys.executable, str(HERE / "server.py"), "--model", str(models), "--port", "81"]


@pytest.mark.parametrize("own", ['["--dtype", "half", "--enforce-eager"]', "--dtype half --enforce-eager"])
def test_the_users_flags_win_over_the_images_one_by_one(models: Path, own: str) -> None:
    environment = {**VLLM, "CARDSTOCK_DEFAULT_ARGS": own}
    for user in (["--dtype=float32"], ["--dtype", "float32"]):
        got = entrypoint.command([*user, "--model", "m", "--port", "9"], environment, models)
        assert got == [*SERVE, "--enforce-eager", *user, "--model", "m", "--port", "9"]
    got = entrypoint.command(["--max_model_len", "8", "--model=m"], environment, models)
    own_first = ["--port", "8000", "--dtype", "half", "--enforce-eager"]
    assert got[len(SERVE) :] == [*own_first, "--max_model_len", "8", "--model=m"]


def test_a_flag_with_several_values_is_kept_or_dropped_whole(models: Path) -> None:
    environment = {**VLLM, "CARDSTOCK_DEFAULT_ARGS": "--served-model-name a b --x -1"}
    assert entrypoint.command(["--model", "m", "--port", "1"], environment, models)[len(SERVE) :] == [
        "--served-model-name", "a", "b", "--x", "-1", "--model", "m", "--port", "1"
    ]  # fmt: skip
    got = entrypoint.command(["--served_model_name", "c", "--model", "m"], environment, models)
    assert "a" not in got and "b" not in got and "c" in got


def test_serve_takes_a_model(models: Path) -> None:
    assert entrypoint.command(["serve", "org/name", "--seed", "1"], VLLM, models)[len(SERVE) :] == [
        "--port", "8000", "--model", "org/name", "--seed", "1"
    ]  # fmt: skip
    assert entrypoint.command(["serve"], VLLM, models)[len(SERVE) :][:2] == ["--model", str(models)]


def test_another_program_is_run_as_it_is(models: Path) -> None:
    assert entrypoint.command(["sh", "-c", "true"], VLLM, models)[1:] == ["-c", "true"]
    with pytest.raises(entrypoint.Refused, match="no such program"):
        entrypoint.command(["no-such-thing"], VLLM, models)


def test_help_needs_no_model(tmp_path: Path) -> None:
    assert entrypoint.command(["--help"], VLLM, tmp_path)[-1] == "--help"


def test_the_model_is_found_or_asked_for(tmp_path: Path) -> None:
    with pytest.raises(entrypoint.Refused, match=r"no model in[\s\S]*do: mount"):
        entrypoint.command([], VLLM, tmp_path)
    assert "org/m" in entrypoint.command([], {**VLLM, "CARDSTOCK_MODEL": "org/m"}, tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    assert str(tmp_path / "a") in entrypoint.command([], VLLM, tmp_path)
    (tmp_path / "b" / "config.json").write_text("{}")
    with pytest.raises(entrypoint.Refused, match=r"several models .*: a, b"):
        entrypoint.command([], VLLM, tmp_path)


@pytest.mark.parametrize("environment", [{}, {"CARDSTOCK_ENGINE": "sglang"}])
def test_an_unknown_engine_is_refused(models: Path, environment: dict[str, str]) -> None:
    with pytest.raises(entrypoint.Refused, match="CARDSTOCK_ENGINE"):
        entrypoint.command([], environment, models)


@pytest.mark.parametrize("own", ["[1]", '["--x"', '[["a"]]', "--x 'a", "[" * 9000])
def test_broken_default_flags_are_refused(models: Path, own: str) -> None:
    with pytest.raises(entrypoint.Refused, match=r"CARDSTOCK_DEFAULT_ARGS[\s\S]*do: -e CARDSTOCK_DEFAULT_ARGS="):
        entrypoint.command([], {**VLLM, "CARDSTOCK_DEFAULT_ARGS": own}, models)


# -- preflight


CARD = {"CARDSTOCK_ENGINE": "vllm", "CARDSTOCK_ARCHS": "7.5"}


def ends(code: str, folder: Path) -> Path:
    program = folder / "preflight.py"
    program.write_text(code)
    return program


@pytest.mark.parametrize(
    ("code", "result", "told"),
    [
        ("raise SystemExit(4)", 4, ""),
        ("", 0, ""),
        ("raise SystemExit(1)", 0, "preflight: broke off (1); going on"),
        ("import os; os.abort()", 0, "preflight: broke off (-6); going on"),
        ("import yaml", 0, "preflight: broke off (1); going on"),  # nothing of the environment is in its reach
    ],
)
def test_only_a_refusal_keeps_the_server_from_starting(
    code: str, result: int, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert entrypoint.preflight([], CARD, ends(code, tmp_path)) == result
    assert told in capfd.readouterr().err


def test_a_driver_that_hangs_does_not_keep_the_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entrypoint, "PREFLIGHT_SECONDS", 0.1)
    assert entrypoint.preflight([], CARD, ends("import time; time.sleep(60)", tmp_path)) == 0
    assert "timed out" in capfd.readouterr().err
    assert entrypoint.preflight([], CARD | {"PATH": "/"}, tmp_path / "missing.py") == 0


@pytest.mark.parametrize("words", [["bash"], ["python", "-c", "pass"], ["--help"], ["serve", "--version"], ["-h"]])
def test_what_serves_nothing_is_not_held_up(words: list[str], tmp_path: Path) -> None:
    assert entrypoint.preflight(words, CARD, ends("raise SystemExit(4)", tmp_path)) == 0


@pytest.mark.parametrize("words", [[], ["serve"], ["serve", "org/name"], ["--max-model-len", "8"]])
def test_whatever_serves_is_asked_first(words: list[str], tmp_path: Path) -> None:
    program = ends("raise SystemExit(4)", tmp_path)
    assert entrypoint.preflight(words, CARD, program) == 4
    assert entrypoint.preflight(words, CARD | {"CARDSTOCK_ARCHS": ""}, program) == 0  # the image for the CPU


def test_preflight_can_be_left_out_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = ends("raise SystemExit(4)", tmp_path)
    assert entrypoint.preflight([], CARD | {"CARDSTOCK_SKIP_PREFLIGHT": "1"}, program) == 0
    assert "CARDSTOCK_SKIP_PREFLIGHT" in capsys.readouterr().err
    for no in ("", "0"):
        assert entrypoint.preflight([], CARD | {"CARDSTOCK_SKIP_PREFLIGHT": no}, program) == 4


def test_the_entrypoint_ends_with_the_refusals_code(tmp_path: Path) -> None:
    environment = CARD | {"HOME": str(tmp_path), "CARDSTOCK_VARIANT": "cu1-sm75", "LD_LIBRARY_PATH": ""}
    done = process.run([str(HERE / "entrypoint")], env=environment | {"CUDA_VISIBLE_DEVICES": ""}, check=False)
    assert done.code == 4, done.err  # whether this machine has a card or none: none may be seen
    assert "preflight: cu1-sm75 needs an NVIDIA card" in done.err


def test_what_is_written_goes_below_the_cache(tmp_path: Path) -> None:
    cache, home = tmp_path / "cache", tmp_path / "home"
    cache.mkdir()
    home.mkdir()
    environment = {"HOME": str(home), "HF_HOME": str(tmp_path / "mine"), "USER": "me"}
    assert entrypoint.cache_folder(environment, [cache, tmp_path / "t"]) == cache
    set_ = entrypoint.places(environment, cache)
    assert "HF_HOME" not in set_ and "HOME" not in set_ and "USER" not in set_
    assert set_["TRITON_CACHE_DIR"] == str(cache / "triton") and set_["LOGNAME"] == "cardstock"
    assert not (tmp_path / "t").exists()


def test_a_cache_that_cannot_be_written_to_gives_way_to_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a numeric user who does not own the volume; root may write anywhere, so the answer is staged."""
    cache, spare = tmp_path / "cache", tmp_path / "spare"
    cache.mkdir()
    real = entrypoint.writable
    monkeypatch.setattr(entrypoint, "writable", lambda path: not str(path).startswith(str(cache)) and real(path))
    environment = {"HF_HOME": str(cache / "hf"), "HOME": str(cache / "home")}
    set_ = entrypoint.places(environment, entrypoint.cache_folder(environment, [cache, spare]))
    assert set_["HF_HOME"] == str(spare / "huggingface") and set_["HOME"] == str(spare / "home")
    assert (spare / "home").is_dir()
    monkeypatch.setattr(entrypoint, "writable", lambda path: False)
    with pytest.raises(entrypoint.Refused, match="nowhere to write"):
        entrypoint.cache_folder({}, [cache, spare])


def test_a_folder_that_code_is_loaded_from_goes_before_one_that_is_mounted_noexec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, spare = tmp_path / "cache", tmp_path / "spare"
    cache.mkdir()
    jit = {"CARDSTOCK_JIT": "triton"}
    monkeypatch.setattr(entrypoint, "runs_code", lambda folder: folder == spare)
    assert entrypoint.cache_folder(jit, [cache, spare]) == spare
    monkeypatch.setattr(entrypoint, "runs_code", lambda folder: False)
    with pytest.raises(entrypoint.Refused, match="mounted noexec") as caught:
        entrypoint.cache_folder(jit, [cache, spare])
    assert "--tmpfs /tmp:exec" in str(caught.value)
    for others in ({"CARDSTOCK_JIT": "none"}, {**jit, "CARDSTOCK_SKIP_PREFLIGHT": "1"}):
        assert entrypoint.cache_folder(others, [cache, spare]) == cache
    assert entrypoint.prepared(["sh"], jit, [cache, spare])["TRITON_CACHE_DIR"] == str(cache / "triton")


def test_a_root_that_is_read_only_ends_in_a_sentence_and_holds_up_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrypoint, "writable", lambda path: False)
    caches = [tmp_path / "cache", tmp_path / "spare"]
    with pytest.raises(entrypoint.Refused, match="a read-only root without a tmpfs"):
        entrypoint.prepared([], {}, caches)
    assert entrypoint.prepared(["sh"], {"A": "b"}, caches) == {"A": "b"}
    assert entrypoint.prepared(["--help"], {"A": "b"}, caches) == {"A": "b"}


def test_where_tmp_cannot_be_written_to_temporary_files_go_below_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = entrypoint.writable
    monkeypatch.setattr(entrypoint, "writable", lambda path: str(path) != "/tmp" and real(path))
    assert entrypoint.prepared([], {}, [tmp_path, tmp_path / "t"])["TMPDIR"] == str(tmp_path / "tmp")
    assert (tmp_path / "tmp").is_dir()


def test_no_temporary_folder_at_all_is_no_defect(tmp_path: Path) -> None:
    """As with --read-only and without --tmpfs: nothing of it is looked for while the program is read."""
    broken = "import sys, runpy, tempfile; tempfile.gettempdir = None; sys.argv = ['entrypoint', '--help']"
    code = f"{broken}; sys.path.insert(0, {str(HERE)!r}); runpy.run_path({str(HERE / 'entrypoint')!r})"
    assert process.run([sys.executable, "-B", "-c", code], check=False).code == 0


def test_the_program_replaces_the_entrypoint(tmp_path: Path) -> None:
    show = "import json, os, sys; print(json.dumps([os.getpid(), os.environ['HOME'], sys.argv[1:]]))"
    done = process.run(
        [str(HERE / "entrypoint"), sys.executable, "-c", show, "a b", "$(x)"], env={"HOME": str(tmp_path)}
    )
    pid, home, words = json.loads(done.out)
    assert pid > 0 and home == str(tmp_path) and words == ["a b", "$(x)"]
    failed = process.run([str(HERE / "entrypoint"), "--x"], env={"CARDSTOCK_ENGINE": "none"}, check=False)
    assert failed.code == 2 and "CARDSTOCK_ENGINE" in failed.err and "Traceback" not in failed.err


# -- health


@pytest.mark.parametrize(
    ("command", "environment", "port"),
    [
        ([], {}, 8000),
        ([], {"CARDSTOCK_PORT": "81"}, 81),
        (["tini", "--", "/opt/cardstock/entrypoint", "--port", "82"], {"CARDSTOCK_PORT": "81"}, 82),
        (["entrypoint", "--port=83"], {}, 83),
        (["entrypoint", "--port"], {}, 8000),
    ],
)
def test_the_health_check_asks_the_port_in_use(command: list[str], environment: dict[str, str], port: int) -> None:
    assert healthcheck.port(command, environment) == port


@pytest.fixture
def answers() -> Iterator[tuple[int, list[int]]]:
    """A server whose /health answers the status at the head of the list."""
    statuses: list[int] = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[0] if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd.server_port, statuses
    httpd.shutdown()
    httpd.server_close()


def test_healthy_is_a_200_and_nothing_else(answers: tuple[int, list[int]]) -> None:
    port, statuses = answers
    assert healthcheck.healthy(port)
    statuses[0] = 503
    assert not healthcheck.healthy(port)
    done = process.run([sys.executable, str(HERE / "healthcheck.py")], env={"CARDSTOCK_PORT": str(port)}, check=False)
    assert done.code == 1
    statuses[0] = 200
    process.run([sys.executable, str(HERE / "healthcheck.py")], env={"CARDSTOCK_PORT": str(port)})


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 200\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1\r\n\r\n", False),
        (b"SSH-2.0-x 200 OK\r\n", False),
        (b"", False),
        (b"2" * 100_000, False),
    ],
)
def test_what_is_no_answer_of_http_is_not_healthy(answer: bytes, well: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection, contextlib.suppress(OSError):
                assert connection.recv(4096).startswith(b"GET /health HTTP/1.1\r\nHost: ")
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        assert healthcheck.healthy(listening.getsockname()[1]) is well
        serving.join()


def test_no_server_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert not healthcheck.healthy(1)
    assert "port 1" in capsys.readouterr().err


def test_what_the_image_knows_of_the_model_class_is_brought_into_the_cache(tmp_path: Path) -> None:
    own, cache = tmp_path / "own", tmp_path / "cache"
    (own / "modelinfos").mkdir(parents=True)
    (own / "modelinfos/qwen.json").write_text('{"hash": "new"}')
    environment = {"VLLM_CACHE_ROOT": str(cache)}
    for before in (None, '{"hash": "of an older image"}'):
        if before:
            (cache / "modelinfos/qwen.json").write_text(before)
        entrypoint.bring(environment, own)
        assert [path.name for path in (cache / "modelinfos").iterdir()] == ["qwen.json"]
        assert (cache / "modelinfos/qwen.json").read_text() == '{"hash": "new"}'


def test_a_cache_that_cannot_be_written_keeps_no_server_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    (own / "modelinfos").mkdir(parents=True)
    (own / "modelinfos/qwen.json").write_text("{}")
    (tmp_path / "file").write_text("")
    entrypoint.bring({"VLLM_CACHE_ROOT": str(tmp_path / "file")}, own)
    assert "going on" in capsys.readouterr().err
    entrypoint.bring({"VLLM_CACHE_ROOT": str(tmp_path / "file")}, tmp_path / "an image that knows nothing")
    assert capsys.readouterr().err == ""
