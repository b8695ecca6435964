"""Texts name commands as the program was called; what only a checkout has stays `./inv`, and says where it is."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from images.core.errors import UsageError
from images.core.report import Report, print_error, print_out
from images.core.typed import SOURCE, as_typed, has_command, program_name, started_as, started_in_checkout


@pytest.fixture
def installed() -> Iterator[None]:
    started_as("cardstock", ["build", "smoke", "save"])
    yield
    started_in_checkout()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("./inv pull --from X", "cardstock pull --from X"),
        ("free some (./inv engine --prune)", "free some (cardstock engine --prune)"),
        ("another ./inv serve was faster", "another cardstock serve was faster"),
        (
            "./inv --list, ./inv --help TASK, ./inv --help pull",
            "cardstock --list, cardstock --help TASK, cardstock --help pull",
        ),
        ("brought without ./inv there:", "brought without cardstock there:"),
        ("/srv/inv pull, ../inv, ./inv-old and ./inv/x", "/srv/inv pull, ../inv, ./inv-old and ./inv/x"),
        ("docs/cluster.md has an example", "https://cardstock-images.github.io/cardstock/cluster/ has an example"),
        ("no command at all", "no command at all"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_command_that_is_there_is_named_as_typed(text: str, seen: str) -> None:
    assert as_typed(text) == seen
    assert has_command(text)


@pytest.mark.parametrize(
    "text",
    [
        "./inv build --only 'cpu*'",
        "./inv --help build",
        "./inv advisories --update --write, and commit it",
        "./inv advisories --record-debian IMAGE",
        "./inv audit --record X",
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_only_a_checkout_has_says_where_one_is(text: str) -> None:
    assert as_typed(text) == f"{text} (./inv: in a checkout, git clone {SOURCE})"
    assert as_typed(text, told=False) == text
    assert as_typed(f"git clone {SOURCE}, then {text}") == f"git clone {SOURCE}, then {text}"
    assert not has_command(text)


@pytest.mark.usefixtures("installed")
def test_each_line_is_told_for_itself() -> None:
    first, second = as_typed("cause: ./inv build\ndo: ./inv pull").split("\n")
    assert first.endswith(f"git clone {SOURCE})")
    assert second == "do: cardstock pull"


def test_in_a_checkout_nothing_is_another() -> None:
    assert program_name() == "./inv"
    assert as_typed("./inv pull; ./inv build; docs/cluster.md") == "./inv pull; ./inv build; docs/cluster.md"
    assert has_command("./inv build")


@pytest.mark.usefixtures("installed")
def test_every_place_that_prints_passes_it_through(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    report = Report(out, err, live=False)
    report.line("then ./inv pull")
    report.table([["./inv cards"]], ["what"])
    report.next_command("./inv serve --model 3b-awq", "here")
    report.next_command("./inv smoke --image x", "prove it")
    print_error(UsageError("no", do="./inv pull"), err=err)
    print_out("./inv pull")
    assert err.getvalue().splitlines() == [
        "then cardstock pull",
        "next: cardstock serve --model 3b-awq    # here",
        "in a checkout: ./inv smoke --image x    # prove it",
        "error: no",
        "  do: cardstock pull",
    ]
    assert out.getvalue().splitlines()[1] == "cardstock cards"
    assert capsys.readouterr().out == "cardstock pull\n"
