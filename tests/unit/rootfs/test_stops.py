"""Texts that end an answer."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import stops  # type: ignore[import-not-found,unused-ignore]

FEW_LETTERS = st.text(alphabet="ab", max_size=12)


@given(st.lists(FEW_LETTERS, max_size=8), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_where_the_first_stop_text_to_be_whole_begins(pieces: list[str], texts: list[str]) -> None:
    """Against the plain way: after each piece, look through all that was said."""
    search, shown, said = stops.StopTexts(texts), "", ""
    for piece in pieces:
        said += piece
        out, ended = search.push(piece)
        shown += out
        found = [at for text in texts if (at := said.find(text)) >= 0]
        assert ended == bool(found)
        if ended:
            assert shown == said[: min(found)]
            return
        waits = [n for text in texts for n in range(len(text)) if said.endswith(text[:n])]
        assert shown == said[: len(said) - max(waits, default=0)]
    assert shown + search.rest() == said


class Counted(str):
    """A text that counts how often one of its letters is looked at."""

    looks = 0

    def __getitem__(self, at: object) -> str:
        Counted.looks += 1
        return str.__getitem__(self, at)  # type: ignore[index]


def test_each_letter_is_looked_at_a_few_times_however_long_the_stop_text_is() -> None:
    search = stops._Stop("x")
    text = Counted("a" * 999 + "b")
    search.text, search._shorter = text, stops._Stop(str(text))._shorter
    Counted.looks = 0
    assert search.find("a" * 5000) == -1
    assert 5000 <= Counted.looks <= 15_000, "a search that begins anew would look five million times"
