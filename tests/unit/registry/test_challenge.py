"""WWW-Authenticate, as RFC 9110 has it and as registries write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.registry.challenge import Challenge, Scheme, parse_challenges

REALM = "https://auth.example.com/token"
SCOPE = "repository:team/wheels:pull,push"
BEARER = f'Bearer realm="{REALM}",service="registry",scope="{SCOPE}"'
Read = list[tuple[str, dict[str, str]]]


def read(*headers: str) -> Read:
    return [(challenge.name, dict(challenge.parameters)) for challenge in parse_challenges(headers)]


ALL = {"realm": REALM, "service": "registry", "scope": SCOPE}


@pytest.mark.parametrize(
    "headers, found",
    [
        ([BEARER], [("Bearer", ALL)]),
        ([f'{BEARER}, Basic realm="x"'], [("Bearer", ALL), ("Basic", {"realm": "x"})]),
        ([f'Basic realm="x",{BEARER}'], [("Basic", {"realm": "x"}), ("Bearer", ALL)]),
        ([BEARER, 'Basic realm="x"'], [("Bearer", ALL), ("Basic", {"realm": "x"})]),
        (['Basic realm="x"', BEARER], [("Basic", {"realm": "x"}), ("Bearer", ALL)]),
        (["Negotiate", BEARER], [("Negotiate", {}), ("Bearer", ALL)]),
        ([f"Negotiate, {BEARER}"], [("Negotiate", {}), ("Bearer", ALL)]),
        ([f"Negotiate YII+/a1==, {BEARER}"], [("Negotiate", {}), ("Bearer", ALL)]),
        ([f'Digest realm="x", nonce=abc=, {BEARER}'], [("Digest", {"realm": "x", "nonce": "abc="}), ("Bearer", ALL)]),
        (["Basic"], [("Basic", {})]),
    ],
    ids=[
        "one",
        "two in one header",
        "in the other order",
        "two headers",
        "two headers in the other order",
        "a scheme without parameters",
        "and in one header",
        "a token68",
        "another scheme with parameters",
        "Basic alone",
    ],
)
def test_several_challenges(headers: list[str], found: Read) -> None:
    assert read(*headers) == found


@pytest.mark.parametrize(
    "header, found",
    [
        (f"Bearer realm={REALM},service=registry", {"realm": REALM, "service": "registry"}),
        (f'bearer  REALM = "{REALM}" ,\tService = registry', {"realm": REALM, "service": "registry"}),
        (f'Bearer realm="{REALM}" service="registry"', {"realm": REALM, "service": "registry"}),
        (f'Bearer realm="{REALM}",service=""', {"realm": REALM, "service": ""}),
        (f'Bearer realm="{REALM}",service=,scope="x"', {"realm": REALM, "service": "", "scope": "x"}),
        (f'Bearer service=,realm="{REALM}"', {"service": "", "realm": REALM}),
        (r'Basic realm="a \"b\", c"', {"realm": 'a "b", c'}),
        (f'Bearer ,, realm="{REALM}",,', {"realm": REALM}),
        ('Bearer realm="one",realm="two"', {"realm": "one"}),
        (f'Bearer realm="{REALM}";service="registry"', {"realm": REALM, "service": "registry"}),
        (f"Bearer realm='{REALM}',service='registry'", {"realm": REALM, "service": "registry"}),
        (f'Bearer realm="{REALM}?a=b,c",error="invalid_token"', {"realm": f"{REALM}?a=b,c", "error": "invalid_token"}),
        (f"Bearer realm={REALM}?a=b", {"realm": f"{REALM}?a=b"}),
    ],
    ids=[
        "unquoted",
        "spaced",
        "no comma",
        "empty",
        "nothing",
        "nothing first",
        "escaped",
        "empty members",
        "twice",
        "semicolons",
        "other quotes",
        "a comma in quotes",
        "an equals sign",
    ],
)
def test_parameters_as_registries_write_them(header: str, found: dict[str, str]) -> None:
    (challenge,) = parse_challenges([header])
    assert challenge.parameters == found


@pytest.mark.parametrize("header", ["", ",", "=", '"', 'realm="x"', "\u20ac", '="x", "y"'])
def test_what_is_no_challenge(header: str) -> None:
    assert read(header) == []


def test_a_broken_one_leaves_the_others() -> None:
    assert read(f'=,"x, {BEARER}')[-1] == ("Bearer", ALL)
    assert read('Bearer realm="x', 'Basic realm="y"')[-1] == ("Basic", {"realm": "y"})


def test_what_they_mean() -> None:
    bearer, basic, other = parse_challenges(['BEARER scope="a b"', "basic", "Negotiate"])
    assert [bearer.scheme, basic.scheme, other.scheme] == [Scheme.BEARER, Scheme.BASIC, Scheme.OTHER]
    assert bearer.scopes == ("a", "b")
    assert (basic.realm, basic.service, basic.scopes) == ("", "", ())


def test_no_more_than_sixteen_are_read() -> None:
    assert len(parse_challenges(["Basic, " * 1000] * 10)) == 16


@given(st.lists(st.text(st.sampled_from('Ba =,"\\\t;é'), max_size=40), max_size=4))
def test_any_header_is_read_without_an_error(headers: list[str]) -> None:
    assert "" not in [challenge.name for challenge in parse_challenges(headers)]


@pytest.mark.parametrize(
    ("scope", "lets"),
    [
        ("repository:team/x:pull,push", True),
        ("repository:team/x:push,pull", True),  # Go's maps have no order, so a registry says either
        ("repository:team/x:*", True),
        ("repository:team/other:pull repository:team/x:push,delete", True),
        ("repository:team/x:pull", False),
        ("repository:team/push:pull", False),
        ("repository:team/x:pushes", False),
        ("", False),
    ],
)
def test_whether_a_scope_lets_one_push(scope: str, lets: bool) -> None:
    assert Challenge("bearer", {"scope": scope}).lets_push is lets
