"""Which Host and Origin headers are answered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import hosts  # type: ignore[import-not-found,unused-ignore]

NAMES = hosts.read_list("models.example.org, *.lan.example.org")


@pytest.mark.parametrize(
    ("header", "answered"),
    [
        ("127.0.0.1", True), ("127.0.0.1:8000", True), ("192.168.1.7:8000", True), ("[::1]:8000", True),
        ("[::1]", True),        ("localhost", True), ("LOCALHOST:8000", True), ("localhost.", True),
        ("models.example.org", True), ("Models.Example.Org:443", True), ("models.example.org.", True),
        ("a.lan.example.org", True), ("lan.example.org", False), ("evil-lan.example.org", False),
        ("evil.example", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False),
        ("models.example.org.evil.example", False), ("", False), (":8000", False), ("localhost:", False),
        ("localhost:x", False), ("localhost:99999", False), ("2130706433", False),
        # headers that a server may read as part of a URL (CVE-2026-48746)
        ("a/health?", False), ("127.0.0.1/x", False), ("x/?", False), ("localhost#", False), ("localhost?x", False),
        ("evil@localhost", False), ("localhost@evil", False), ("[::1", False), ("[evil]", False), ("local host", False),
        ("localhost\t", False), ("localhost\n", False), ("localhost\\", False), ("%6cocalhost", False),
        ("[::1]evil.example", False), ("::1", False), ("lócalhost", False),
    ],
)  # fmt: skip
def test_addresses_and_localhost_are_answered_and_names_by_the_list(header: str, answered: bool) -> None:
    assert hosts.host_allowed(header, NAMES) is answered


def test_a_star_answers_every_name_but_no_header_that_is_none() -> None:
    star = frozenset("*")
    assert hosts.host_allowed("evil.example:8000", star)
    assert not any(hosts.host_allowed(header, star) for header in ("", "a/b", "a?b", "a#b", "a@b", "[evil]x"))


@pytest.mark.parametrize(
    ("origin", "host", "answered"),
    [
        (None, "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True), ("http://localhost", "localhost:80", True),
        ("https://models.example.org", "models.example.org", True), ("http://[::1]:8000", "[::1]:8000", True),
        ("HTTP://LOCALHOST:8000", "localhost:8000", True),
        ("https://app.example.org", "127.0.0.1:8000", True),
        ("http://app.example.org", "127.0.0.1:8000", False), ("https://app.example.org:8443", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False), ("http://localhost:8000", "127.0.0.1:8000", False),
        ("https://evil.example", "127.0.0.1:8000", False), ("null", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False), ("file://", "localhost", False), ("http://localhost/", "localhost", False),
        ("http://evil@localhost", "localhost", False), ("http://localhost:x", "localhost", False),
        ("http://[::1", "[::1]", False), ("chrome-extension://abc", "abc", False),
    ],
)  # fmt: skip
def test_pages_of_the_own_host_and_those_of_the_list_are_answered(
    origin: str | None, host: str, answered: bool
) -> None:
    assert hosts.origin_allowed(origin, host, hosts.read_list("https://app.example.org/")) is answered
    assert hosts.origin_allowed(origin, host, frozenset("*"))


def test_a_list_is_parted_by_commas_and_spaces() -> None:
    assert hosts.read_list(" A, b  c,,\n") == {"a", "b", "c"} and hosts.read_list("") == frozenset()
