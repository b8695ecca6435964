"""A generated section of a page: only what stands between its marks is replaced, and a page without them is told."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.render.document import Section

SECTION = Section("docs/page.md", "rows", "the rows")
BEGIN, END = SECTION.marks


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    filled = SECTION.fill(f"before\n{BEGIN}\nyesterday\n{END}\nafter\n", "today")
    assert filled == f"before\n{BEGIN}\ntoday\n{END}\nafter\n"
    assert SECTION.fill(filled, "today") == filled


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_the_marks_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"docs/page\.md has no place for the rows"):
        SECTION.fill(text, "new")


def test_other_pages_stay_and_a_page_that_is_not_there_is_told() -> None:
    pages = {"docs/page.md": f"{BEGIN}\n{END}", "other": "text"}
    assert SECTION.fill_in(pages, "new") == {"docs/page.md": f"{BEGIN}\nnew\n{END}", "other": "text"}
    with pytest.raises(UsageError, match="no place"):
        SECTION.fill_in({"other": "text"}, "new")
