"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.core.files import write_atomically


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    write_atomically(path, "first")
    with pytest.raises(TypeError):
        write_atomically(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "first"
    assert [found.name for found in path.parent.iterdir()] == ["record.json"]
