"""Every command that is given a file's name, given each kind of thing that is not that file: never a defect."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from images.commands.cluster import read_hosts
from images.commands.pull import saved_catalogue
from images.core import CardstockError, UsageError, print_error, read_site
from images.core.report import as_told
from images.matrix.reader import read_matrix
from images.run.fit.find import read_model
from images.run.serve.source import find_source
from tests.helpers.nonempty import nonempty

DEEP = b'{"a": ' + b"[" * 50_000
BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 9)
)
ODD: Mapping[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path),
    "empty": lambda path: path.write_bytes(b""),
    "latin-1": lambda path: path.write_bytes(b"hosts: M\xfcnchen"),
    "deep": lambda path: path.write_bytes(DEEP),
    "bomb": lambda path: path.write_bytes(BOMB),
    "in itself": lambda path: path.write_bytes(b"a: &a [*a]"),
    "tag": lambda path: path.write_bytes(b"a: !!python/object/apply:os.getcwd []"),
    "tagged number": lambda path: path.write_bytes(b"a: !!int x"),
    "no such day": lambda path: path.write_bytes(b"a: 2026-02-31"),
    "long number": lambda path: path.write_bytes(b'{"a": ' + b"9" * 5000 + b"}"),
    "list": lambda path: path.write_bytes(b"[]"),
    "null": lambda path: path.write_bytes(b"null"),
    "not a number": lambda path: path.write_bytes(b'{"hidden_size": NaN}'),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "zero bytes": lambda path: path.write_bytes(bytes(4096)),
    "large": lambda path: path.write_bytes(b"x" * (5 << 20)),
    "text for numbers": lambda path: path.write_bytes(b'{"hidden_size": "x", "text_config": [], "vision_config": 3}'),
}
READERS: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "cluster --hosts": ("hosts.yaml", lambda path: read_hosts(str(path))),
    "pull --offline": ("catalogue.json", lambda path: saved_catalogue(str(path))),
    "fit --model FOLDER": ("config.json", lambda path: read_model(str(path.parent))),
    "fit --model FILE": ("config.json", lambda path: read_model(str(path))),
    "serve --model": ("config.json", lambda path: find_source(str(path.parent))),
    "site.yaml": ("site.yaml", lambda path: read_site(path.parent, {})),
    "matrix.yaml": ("matrix.yaml", read_matrix),
}
# An empty site.yaml says nothing, and one that is null neither.
NOTHING_WRONG = {("site.yaml", "empty"), ("site.yaml", "null")}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_told_as_what_it_is(tmp_path: Path, reader: str, odd: str) -> None:
    name, read = READERS[reader]
    ODD[odd](tmp_path / name)
    if (reader, odd) in NOTHING_WRONG:
        return
    with pytest.raises((CardstockError, OSError)) as caught:
        read(tmp_path / name)
    told = as_told(caught.value)
    assert "defect" not in str(told)
    assert len(str(told)) < 2000


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"site.yaml"}))  # a checkout need not have that one
def test_a_file_that_is_not_there(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    with pytest.raises(UsageError) as caught:
        read(tmp_path / name)
    assert caught.value.do


def test_each_error_names_its_file(tmp_path: Path) -> None:
    for name, read in nonempty(READERS.values()):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
        err = io.StringIO()
        try:
            read(tmp_path / name)
        except (CardstockError, OSError) as error:
            assert print_error(error, err=err) == 2
        assert str(tmp_path) in err.getvalue() or name in err.getvalue()
