"""The demo page for real: `./inv demo` before the server of the cpu image, headless Chromium, and people with curl."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from bench import firing, payloads
from images.commands.demo import who_answers
from images.core import process
from images.proof.tiny_model import picture
from images.run.demo import Answering
from tests.engine import browser
from tests.engine.cpu_server import CpuServer, free_port, image_for_the_cpu
from tests.engine.slow_server import SlowServer
from tests.helpers.contexts import context
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

SHOTS = ROOT / "build/demo"
MB = 1000**2
# The model is taught to answer these two (golden.json).
SEVERAL = ("What are these?", "green and yellow")
ONE = ("What colour is the square?", "red")

# The first test of a new machine waits for the environment and for the server.
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class RunningPage:
    """`./inv demo` under way: its address, process, and what it has printed."""

    url: str
    pid: int
    log: Path
    folder: Path

    @property
    def uploads(self) -> Path:
        """Where it keeps what people give it."""
        return self.folder / "uploads"

    def post(self, path: str, **options: Any) -> requests.Response:
        """POST, past any proxy."""
        return session().post(self.url + path, timeout=60, **options)

    def ask(self, files: list[dict[str, Any]], text: str = "What is this?", tokens: int = 8) -> tuple[str, str]:
        """Ask as a program does, through gradio's own API: the last event's name and data."""
        asked = self.post("/gradio_api/call/chat", json={"data": [{"text": text, "files": files}, "", tokens, 0]})
        assert asked.status_code == 200, asked.text
        ident = asked.json()["event_id"]
        result = session().get(f"{self.url}/gradio_api/call/chat/{ident}", timeout=120).text
        event, data = result.strip().rpartition("event: ")[2].split("\n", 1)
        return event, data.removeprefix("data: ")

    def upload(self, path: Path) -> requests.Response:
        """Upload a file."""
        with path.open("rb") as file:
            return self.post("/gradio_api/upload", files={"files": (path.name, file)})


def session() -> requests.Session:
    made = requests.Session()
    made.trust_env = False
    return made


def given(path: str) -> dict[str, Any]:
    """A file as gradio's API is told of it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def server(cpu_server: CpuServer) -> Iterator[SlowServer]:
    """The cpu server, slow enough for a browser on a busy machine to draw each state of an answer."""
    made = SlowServer(cpu_server.url, 0.5)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def page(server: SlowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    """The page of the cpu server; at the end Ctrl-C, which must end all of it and leave nothing."""
    port, log = free_port(), tmp_path_factory.mktemp("demo") / "log"
    argv = [str(ROOT / "inv"), "demo", "--server", server.url, "--port", str(port)]
    url, pid = f"http://127.0.0.1:{port}", process.start_daemon(argv, log)
    try:
        end = time.monotonic() + 600  # the first use installs gradio
        while f"open {url}" not in log.read_text():
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        (path,) = session().post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"x")}, timeout=60).json()
        folder = Path(path).parents[2]  # FOLDER/uploads/HASH/a.png
        yield RunningPage(url, pid, log, folder)
    finally:
        os.kill(pid, signal.SIGINT)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    assert "stopped; what was uploaded is removed" in log.read_text()
    assert not folder.exists()
    with pytest.raises(requests.ConnectionError):
        session().get(url, timeout=5)


@pytest.fixture(scope="module")
def seen(page: RunningPage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a person with a browser saw."""
    folder, chromium = tmp_path_factory.mktemp("files"), browser.chromium()
    for name, content in {
        "green.png": picture.png("green"),
        "yellow.png": picture.png("yellow", 112, 112),
        "red.png": picture.png("red"),
        "notes.png": b"this is no picture",
        "big.png": picture.png("red").ljust(100 * MB, b"\0"),
    }.items():
        (folder / name).write_bytes(content)
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    plan = {
        "url": page.url,
        "browser": str(chromium.program),
        "environment": chromium.environment,
        "folder": str(SHOTS),
        "several": {"files": [str(folder / "green.png"), str(folder / "yellow.png")], "text": SEVERAL[0]},
        "one": {"files": [str(folder / "red.png")], "text": ONE[0]},
        "further": "Say hello",
        "broken": str(folder / "notes.png"),
        "big": str(folder / "big.png"),
    }
    visit = [str(browser.driver()), str(Path(__file__).with_name("demo_visit.py")), json.dumps(plan)]
    found: dict[str, Any] = json.loads(process.run(visit, timeout=500).out)
    return found


def test_three_pictures_and_questions_are_offered(seen: dict[str, Any]) -> None:
    assert len(seen["examples"]) == 3
    assert all(text.endswith("?") for text in seen["examples"])


def test_the_start_says_how_and_not_what_only_its_owner_needs(seen: dict[str, Any], server: SlowServer) -> None:
    assert "Drop pictures or a video anywhere on this page" in seen["texts"]
    assert server.url not in seen["texts"]
    assert "10 MB" not in seen["texts"]
    assert server.url in seen["about"]
    assert "10 MB" in seen["about"]


def test_an_example_is_asked_by_the_keyboard_alone(seen: dict[str, Any], server: SlowServer) -> None:
    assert seen["example"][-1]
    assert (seen["focus"], seen["focus-again"]) == ("3px", "3px")
    (message,) = server.asked[0]["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][1]["text"] == seen["examples"][1]


def test_the_hint_stays_in_the_box(seen: dict[str, Any]) -> None:
    assert seen["hints"] == ["Ask about a picture"] * 3


def test_icons_have_words(seen: dict[str, Any]) -> None:
    drawn = {name: json.loads(text) for name, text in seen["words"].items()}
    assert {name: word.strip('"') for name, (word, _) in drawn.items() if word not in ("none", "normal", '""')} == {
        "Clear": "Clear",
        "Copy message": "Copy",
        "Download": "Save",
        "Retry": "Ask again",
        "Undo": "Undo",
        "Upload a file": "Add pictures",
    }
    assert all(tip for _, tip in nonempty(drawn.values()))


def test_how_fast_it_was_stands_under_an_answer(seen: dict[str, Any]) -> None:
    assert re.match(r"\d[\d.]* s to the first token(, then [\d.]+ tokens/s)?; \d+ tokens? · tiny$", seen["under"])


def test_the_image_and_the_card_that_answer_are_known(cpu_server: CpuServer) -> None:
    image = image_for_the_cpu()
    assert who_answers(context(engine=cpu_server.engine), cpu_server.url) == Answering(image, "the CPU")


def test_a_picture_is_dropped_anywhere(seen: dict[str, Any]) -> None:
    assert seen["drop"] == "solid"
    assert seen["dropped"][-1] == ONE[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(seen: dict[str, Any], scheme: str) -> None:
    found = seen[f"narrow-{scheme}"]
    assert found["answer"][-1] == ONE[1]
    assert found["width"] == 390
    dark = max(map(int, re.findall(r"\d+", found["ground"])[:3])) < 60
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("where", ["", "narrow-light", "narrow-dark"])
def test_what_is_written_can_be_read(seen: dict[str, Any], where: str) -> None:
    found = (seen[where] if where else seen)["contrasts"]
    assert len(found) == 6
    assert min(nonempty(found.values())) >= 4.5, found


def test_the_answer_arrives_while_it_is_made(seen: dict[str, Any]) -> None:
    states = seen["several"]
    assert states[-1] == SEVERAL[1]
    assert len(states) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(states))


def test_a_question_asked_again_gets_the_same_answer(seen: dict[str, Any]) -> None:
    assert seen["again"][-1] == SEVERAL[1]


def test_a_further_question_sends_what_was_said_before(seen: dict[str, Any], server: SlowServer) -> None:
    assert seen["further"]
    first, answer, last = next(body["messages"] for body in server.asked if len(body["messages"]) > 1)
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert answer == {"role": "assistant", "content": SEVERAL[1]}
    assert last == {"role": "user", "content": "Say hello"}


def test_a_cleared_page_has_forgotten(seen: dict[str, Any]) -> None:
    assert seen["left"] == 0
    assert seen["one"][-1] == ONE[1]


def test_what_is_no_picture_is_refused_and_the_question_kept(seen: dict[str, Any]) -> None:
    assert seen["broken"].startswith("notes.png is neither a picture nor a video that can be read")
    assert seen["kept"] == "What is this?"


def test_a_hundred_megabytes_are_refused_in_the_browser(seen: dict[str, Any]) -> None:
    assert "big.png" in seen["big"]


def test_nothing_is_loaded_from_elsewhere(seen: dict[str, Any]) -> None:
    assert seen["outside"] == []


@pytest.mark.parametrize(
    "name", ["start", "several", "one", "drag", "refused", "too-large", "narrow-light", "narrow-dark"]
)
def test_a_screenshot_is_kept(seen: dict[str, Any], name: str) -> None:
    assert (SHOTS / f"{name}.png").read_bytes().startswith(picture.SIGNATURE)


@pytest.mark.parametrize("path", ["/etc/passwd", "UPLOADS/../../../../../../etc/passwd", "file:///etc/passwd"])
def test_a_path_outside_of_the_uploads_is_refused(page: RunningPage, path: str) -> None:
    event, data = page.ask([given(path.replace("UPLOADS", str(page.uploads)))])
    assert event == "error"
    assert "it was not uploaded by a user" in data
    assert "root:" not in data


def test_a_link_among_the_uploads_leads_nowhere(page: RunningPage) -> None:
    (page.uploads / "link.png").symlink_to("/etc/passwd")
    event, data = page.ask([given(str(page.uploads / "link.png"))])
    assert event == "error"
    assert "was not uploaded" in data


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "README.md")])
def test_no_file_of_this_machine_is_handed_out(page: RunningPage, path: str) -> None:
    assert session().get(f"{page.url}/gradio_api/file={path}", timeout=30).status_code == 403


def test_an_address_is_not_fetched(page: RunningPage, cpu_server: CpuServer) -> None:
    event, data = page.ask([given(f"{cpu_server.url}/v1/models")])
    assert (event, json.loads(data)["error"]) == ("error", "Addresses are not fetched: add the picture itself.")


def test_a_large_file_is_refused_while_it_comes_in(page: RunningPage, tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(picture.png("red").ljust(100 * MB, b"\0"))
    answer = page.upload(tmp_path / "big.png")
    assert answer.status_code == 413
    assert "exceeded maximum allowed size" in answer.text


def test_a_picture_larger_than_pictures_may_be_is_refused_by_its_content(page: RunningPage, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(picture.png("red").ljust(20 * MB, b"\0"))
    event, data = page.ask([given(page.upload(tmp_path / "clip.mp4").json()[0])])
    assert event == "error"
    assert json.loads(data)["error"] == "clip.mp4 is too large: it has 20 MB, a picture may have 10 MB."


def test_requests_of_strangers_and_those_that_would_fill_the_memory_are_refused(page: RunningPage) -> None:
    port = int(page.url.rpartition(":")[2])
    chat = "/gradio_api/call/chat"
    for raw, status in (
        (payloads.request(chat, payloads.wide_body("tiny", 10)), 413),
        (payloads.request(chat, payloads.wide_body("tiny", 3)), 400),
        (payloads.request(chat, b"{}", host="evil.example"), 403),
        (payloads.request(chat, b"{}", origin="https://evil.example"), 403),
    ):
        assert firing.send(port, raw).status == status
    with firing.lines_held(port, payloads.half_headers(), 300) as held:
        assert session().get(page.url, timeout=30).status_code == 200
        assert firing.closed_within(held, 60) == 300


def test_a_video_is_asked_about(page: RunningPage, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.media.test_video import video; video(Path(sys.argv[1]), 30)"
    )
    process.run([str(browser.driver()), "-c", script, str(tmp_path / "clip.mp4")], cwd=ROOT, timeout=60)
    event, data = page.ask([given(page.upload(tmp_path / "clip.mp4").json()[0])])
    assert event == "complete", data
    assert json.loads(data)[0], data


def test_a_server_that_went_away_is_named(page: RunningPage, server: SlowServer) -> None:
    server.stop()
    event, data = page.ask([], "Say hello")
    assert event == "error"
    assert json.loads(data)["error"].startswith(f"The server at {server.url} does not answer.")


def test_what_is_sent_of_pictures_and_videos() -> None:
    """tests/media, in the environment that has Pillow and av."""
    argv = [str(browser.driver()), "-m", "pytest", "-c", "/dev/null", "--noconftest", "-p", "no:cacheprovider", "-q"]
    ran = process.run([*argv, str(ROOT / "tests/media")], cwd=ROOT, check=False, timeout=120)
    assert ran.code == 0, ran.out
    assert "skipped" not in ran.out
