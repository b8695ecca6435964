"""What runs inside an acted container, with a server that behaves: healthy, ended, or in no hurry."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from images.proof.acting import worker
from images.proof.acting.prepare import loaded_from
from images.proof.on_card.runs.run import Failed

SERVER = """
import http.server, os, sys, time
print("preflight: x fits Tesla T4 (7.5), driver 580", flush=True)
print("Using AttentionBackendEnum.TRITON_ATTN backend.", flush=True)
print("PYTHONPATH=" + os.environ["PYTHONPATH"], flush=True)
print("words: " + " ".join(sys.argv[1:]), flush=True)
how = os.environ["HOW"]
if how == "ends":
    print("ValueError: Minimum capability: 75. Current capability: 70.", flush=True)
    sys.exit(1)
if how == "waits":
    time.sleep(60)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "entrypoint").write_text(SERVER)
    told, cache = tmp_path / "told", tmp_path / "cache"
    told.write_text("1 torch.cuda\n2 torch.cuda\n2 triton.backends.nvidia.driver\n")
    cache.mkdir()
    (cache / "k.ptx").write_text(".target sm_75\n")
    monkeypatch.setattr(worker, "IN_IMAGE", tmp_path)
    monkeypatch.setattr(worker, "CACHE", cache)
    monkeypatch.setattr(worker, "PORT", free_port())
    monkeypatch.setattr(worker, "check_tiny", lambda server, token_ids, pictures: ({"said": {"text": "Hello"}}, []))
    monkeypatch.setenv("CARDSTOCK_ACTED_TOLD", str(told))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/acted", "/checkout", "/own"]))
    return tmp_path


def serve(place: Path, how: str, limit: float, monkeypatch: pytest.MonkeyPatch, kind: str = "tiny") -> dict[str, Any]:
    monkeypatch.setenv("HOW", how)
    out = place / "out.json"
    worker.serve(kind, place / "tiny", ["--dtype", "half"], limit, out)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def test_a_healthy_server_is_asked_and_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = serve(place, "serves", 30, monkeypatch)
    assert (told["how"], told["wrong"], told["answers"]) == ("healthy", "", {"said": {"text": "Hello"}})
    assert told["chose"]["attention"] == "TRITON_ATTN"
    assert told["chose"]["preflight"] == "preflight: x fits Tesla T4 (7.5), driver 580"
    assert told["kernels"] == {"sm_75": 1}
    assert told["changed"] == ["torch.cuda", "triton.backends.nvidia.driver"]
    log = (place / "out.server.log").read_text()
    assert "PYTHONPATH=/acted:/own\n" in log  # not the checkout, whose folders have names that packages may have
    assert (
        f"--model {place}/tiny --served-model-name model --max-model-len 2048 --max-num-seqs 8 --dtype half --port"
        in log
    )


def test_what_is_wrong_with_answers_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ["text: !!!!", "red: x"]
    monkeypatch.setattr(worker, "check_tiny", lambda server, token_ids, pictures: ({"said": {}}, wrong))
    assert serve(place, "serves", 30, monkeypatch)["wrong"] == "text: !!!!; red: x"

    def broken(*_: Any) -> Any:
        raise Failed("picture: said nothing", {"said": {"picture": ""}})

    monkeypatch.setattr(worker, "check_shaped", broken)
    told = serve(place, "serves", 30, monkeypatch, "3b")
    assert (told["wrong"], told["answers"]) == ("picture: said nothing", {"said": {"picture": ""}})

    def gone(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(worker, "check_tiny", gone)
    assert serve(place, "serves", 30, monkeypatch)["wrong"] == "ConnectionResetError: gone"


def test_a_server_that_ends_tells_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = serve(place, "ends", 30, monkeypatch)
    assert (told["how"], told["error"]) == ("ended", "it ended with 1")
    assert told["chose"]["refusals"] == ["ValueError: Minimum capability: 75. Current capability: 70."]
    assert told["tail"][-1].startswith("ValueError")


def test_a_server_that_does_not_get_healthy_is_ended_in_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = serve(place, "waits", 1, monkeypatch)
    assert (told["how"], told["error"]) == ("late", "not healthy after 1 s")
    assert told["chose"]["attention"] == "TRITON_ATTN"


def test_a_loaded_library_is_found_by_its_name() -> None:
    assert loaded_from("libc.so.6").name.startswith("libc.so")
    with pytest.raises(OSError, match="no-such"):
        loaded_from("libno-such.so.1")
