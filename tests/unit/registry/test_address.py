"""Names of repositories: which address answers for them, and what is the same host."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.registry.address import host_of, is_loopback, parse_repository, same_origin, without_query


@pytest.mark.parametrize(
    "name", ["wheels", "team/wheels", "host.example/Team", "host.example/a:tag", "host.example/", "h@x/y", "a.b/../c"]
)
def test_a_name_that_is_no_repository(name: str) -> None:
    with pytest.raises(UsageError, match="is not a repository"):
        parse_repository(name)


@pytest.mark.parametrize(
    "name, url",
    [
        ("registry.example.com/team/wheels", "https://registry.example.com/v2/team/wheels"),
        ("127.0.0.1:5000/team/wheels", "http://127.0.0.1:5000/v2/team/wheels"),
        ("docker.io/team/wheels", "https://registry-1.docker.io/v2/team/wheels"),
        ("index.docker.io/team/wheels", "https://registry-1.docker.io/v2/team/wheels"),
        ("docker.io/wheels", "https://registry-1.docker.io/v2/library/wheels"),
    ],
)
def test_the_address_that_answers(name: str, url: str) -> None:
    assert parse_repository(name).url == url
    assert parse_repository(name).name == name


@pytest.mark.parametrize(
    "host, is_it",
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.3.0.1", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example:80", False),
        ("registry.example", False),
    ],
)
def test_plain_http_is_for_this_machine_alone(host: str, is_it: bool) -> None:
    assert is_loopback(host) == is_it


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("https://a.example/v2/", "https://a.example/v2/x?y=1", True),
        ("https://a.example/", "https://A.example:443/", True),
        ("https://a.example/", "http://a.example/", False),
        ("https://a.example/", "https://a.example:8443/", False),
        ("https://a.example/", "https://b.a.example/", False),
        ("https://a.example/", "https://a.example@b.example/", False),
        ("https://a.example/", "https://[", False),
        ("https://a.example/", "https://a.example:port/", False),
    ],
)
def test_a_login_may_go_to_the_same_origin(one: str, other: str, same: bool) -> None:
    assert same_origin(one, other) == same


def test_what_is_shown_of_an_address_holds_no_secret() -> None:
    assert without_query("https://me:secret@a.example/path?signature=secret") == "https://a.example/path"
    assert host_of("https://me:secret@a.example:8443/path") == "a.example:8443"
