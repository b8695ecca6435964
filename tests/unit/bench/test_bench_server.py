"""What the bench of the server on transformers tells."""

from __future__ import annotations

from bench import server
from bench.firing import Memory, Reply
from tests.helpers.nonempty import nonempty


def measured(*harms: server.Harm) -> server.Measured:
    rest = [server.Harm(1.0, 0.1, 10.0)] * (len(server.ATTACKS) - len(harms))
    return server.Measured((*harms, *rest), 0.02)


def test_each_attack_has_three_rows_beside_how_it_was() -> None:
    before = measured(server.Harm(24.0, 20.0, 500.0), server.Harm(9.0))
    rows = list(server.rows("cpu@1", measured(server.Harm(0.5, 0.1, 5.0)), before))
    assert len(rows) == 3 * len(server.ATTACKS) + 1
    first = [(row.ours, row.peer, row.unit) for row in rows[:3]]
    assert first == [(0.5, 24.0, "s"), (0.1, 20.0, "s"), (5.0, 500.0, "MB")]
    assert [row.against for row in rows[2:4]] == ["how it was", "how it was: it ended"] and rows[5].peer is None
    assert (rows[-1].ours, rows[-1].peer) == (0.02, 0.02)


def test_without_another_server_there_is_no_peer() -> None:
    rows = nonempty(list(server.rows("cpu@1", measured(server.Harm(2.0)), None)))
    assert all(row.peer is None and not row.against for row in rows)
    assert [row.why for row in rows[:3]] == ["the server ended"] * 3


def test_a_server_that_is_gone_is_told() -> None:
    def gone(_: object) -> str:
        return ""

    found = server.harm(Memory(gone, 7), lambda: [Reply(0)])
    assert found.megabytes is None and found.silence is None
