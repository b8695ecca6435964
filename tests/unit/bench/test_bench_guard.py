"""The bench of the guard: its rows, and its attacks against a server that refuses or answers everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import guard, guard_cost
from bench.guard_attacks import ATTACKS, Attack, Target
from images.core.errors import CheckFailed
from images.docker.container_spec import Mount, PublishedPort
from tests.helpers.nonempty import nonempty


class Refusing(BaseHTTPRequestHandler):
    """Reads nothing and says 400 to everything but a small structured question."""

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(min(length, 2**16))
        while length > len(body) and (length := length - 2**16) > 0:
            self.rfile.read(min(length, 2**16))
        self.send_response(200 if b'"choice": ["red", "blue"]' in body or self.path == "/health" else 400)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


CHEAP = [attack for attack in ATTACKS if not attack.name.startswith(("25", "ten", "eight", "a text", "bodies"))]


@pytest.mark.parametrize("attack", nonempty(CHEAP), ids=lambda attack: attack.name)
def test_attacks_tell_what_they_were_answered(port: int, attack: Attack) -> None:
    replies = attack.fire(Target(port, "tiny", patience=20))
    assert {reply.status for reply in replies} == {400}


def test_attacks_are_of_the_issue_and_have_names_of_their_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) > 12
    assert all(attack.refused and not attack.refused & {0, 200} for attack in ATTACKS)


def test_rows_of_both_sides_and_of_a_server_that_ended() -> None:
    ours = [guard.Side(0.1, 0.01, 5.0)] * len(ATTACKS)
    peers = [guard.Side(9.0, None, None, ended=True), *[guard.Side(2.0, 0.5, 900.0)] * (len(ATTACKS) - 1)]
    rows = list(guard.rows("cpu@x", ours, peers))
    assert len(rows) == 3 * len(ATTACKS)
    assert (rows[0].ours, rows[0].peer, rows[0].unit) == (0.1, 9.0, "s") and "ends" in rows[0].measures
    assert (rows[1].ours, rows[1].peer) == (0.01, None)
    assert rows[5].ratio == pytest.approx(5 / 900)


def test_a_container_of_the_bench() -> None:
    spec = guard.server_spec("an/image:x", Path("/m"), Path("/checkout/rootfs"), guard.BARE)
    assert spec.memory == guard.MEMORY and spec.ports == (PublishedPort(8000, guard.PORT),)
    assert Mount("/checkout/rootfs", "/opt/cardstock") in spec.mounts
    assert dict(spec.env)["CARDSTOCK_GUARD"] == "off" and "CARDSTOCK_DEFAULT_ARGS" in dict(spec.env)


def test_both_ways_take_turns(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def seconds(_line: object, _body: bytes, *, bare: bool) -> float:
        asked.append(bare)
        return 0.2 if bare else 0.3

    monkeypatch.setattr(guard_cost, "seconds", seconds)
    ours, bare = guard_cost.pairs(port, b"", 6)
    assert (ours, bare) == ([0.3] * 6, [0.2] * 6)
    assert asked[:4] == [True, False, False, True] and asked.count(True) == asked.count(False) == 16
    (row,) = guard_cost.rows("cpu@x", "a question", ours, bare)
    assert row.ratio == pytest.approx(1.5) and "median of 6" in row.measures


def test_an_answer_that_is_no_answer_ends_the_bench(port: int) -> None:
    with pytest.raises(CheckFailed, match="answered 400"):
        guard_cost.pairs(port, b"{}", 1)
    assert len(guard_cost.bodies()) == 3
