"""Asking the services, as a real HTTP server on loopback answers."""

from __future__ import annotations

import pytest

from images.advisories import lookup
from images.advisories.lookup import Services
from images.core.errors import RegistryFailure
from images.core.site import SiteSettings
from tests.helpers.advisory_services import TORCH, AdvisoryServices, advisory_services, hole


def asking(services: AdvisoryServices) -> Services:
    return Services(services.site, sleep=lambda _: None)


def refused(ask: object) -> RegistryFailure:
    with pytest.raises(RegistryFailure) as error:
        ask()  # type: ignore[operator]
    assert error.value.exit_code == 6
    assert "nothing was looked up, and nothing is written" in error.value.what
    return error.value


def test_packages_are_asked_about_in_one_question_and_holes_one_by_one() -> None:
    records = {"GHSA-63cw-57p8-fm3p": TORCH, "CVE-2026-0007": hole("CVE-2026-0007", "vllm")}
    named = {"torch==2.6.0": ["GHSA-63cw-57p8-fm3p"], "vllm==0.8.5": ["CVE-2026-0007"]}
    with advisory_services(records=records, named=named) as services:
        found = asking(services).python([("torch", "2.6.0"), ("vllm", "0.8.5"), ("numpy", "2.0"), ("torch", "2.6.0")])
        assert services.seen.count("POST /v1/querybatch") == 1
    assert sorted(one.id for one in found) == ["CVE-2026-0007", "CVE-2026-24747"]


def test_a_long_list_comes_in_pages_and_many_packages_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_BATCH", 2)
    names = [f"CVE-2026-{number:04}" for number in range(5)]
    records = {name: hole(name, "torch") for name in names}
    with advisory_services(records=records, named={"torch==2.6.0": names}, page=2) as services:
        found = asking(services).python([("torch", "2.6.0"), ("a", "1"), ("b", "1")])
        assert services.seen.count("POST /v1/querybatch") == 2 + 2  # two batches, the first of three pages
    assert [one.id for one in found] == names


def test_a_fault_that_passes_is_asked_again() -> None:
    broken = {"/v1/querybatch": [(503, b"busy"), (429, b"slow down")]}
    with advisory_services(broken=broken) as services:
        assert asking(services).python([("torch", "2.6.0")]) == []
        assert services.seen.count("POST /v1/querybatch") == 3


@pytest.mark.parametrize(
    "answers",
    [
        [(500, b"")] * 10,
        [(404, b"no such thing")],
        [(200, b"<html>a portal</html>")],
        [(200, b"[]")],
        [(200, b'{"results": []}')],
        [(200, b'{"results": [{"vulns": [{}]}]}')],
        [(200, b"[" * 100_000)],
    ],
)
def test_an_answer_that_is_none_is_no_look_up(answers: list[tuple[int, bytes]]) -> None:
    with advisory_services(broken={"/v1/querybatch": answers}) as services:
        refused(lambda: asking(services).python([("torch", "2.6.0")]))


def test_details_that_are_not_given_are_no_look_up() -> None:
    with advisory_services(named={"torch==2.6.0": ["CVE-2026-0007"]}) as services:
        refused(lambda: asking(services).python([("torch", "2.6.0")]))


def test_an_answer_has_a_limit_of_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_ANSWER", 100)
    monkeypatch.setattr(lookup, "_TRACKER", 100)
    with advisory_services(named={"torch==2.6.0": ["CVE-2026-0007"] * 50}, tracker={"a": "b" * 200}) as services:
        assert "longer than 100 bytes" in refused(lambda: asking(services).python([("torch", "2.6.0")])).cause
        assert "longer than 100 bytes" in refused(lambda: asking(services).debian({"a": "1"})).cause


def test_a_list_without_an_end_is_no_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_PAGES", 3)
    with advisory_services(named={"torch==2.6.0": ["CVE-2026-0007"] * 50}, page=1) as services:
        assert "no end" in refused(lambda: asking(services).python([("torch", "2.6.0")])).cause


def test_too_many_holes_are_no_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_HOLES", 1)
    with advisory_services(named={"torch==2.6.0": ["CVE-2026-0001", "CVE-2026-0002"]}) as services:
        assert "2 holes at once" in refused(lambda: asking(services).python([("torch", "2.6.0")])).cause


def test_a_service_that_is_not_there_is_said_with_what_to_do() -> None:
    with advisory_services() as services:
        pass
    error = refused(lambda: asking(services).python([("torch", "2.6.0")]))
    assert error.what.startswith("OSV does not answer")
    assert "CARDSTOCK_OSV" in error.do
    error = refused(lambda: asking(services).debian({"openssl": "3"}))
    assert error.what.startswith("Debian's security tracker does not answer")


def test_debians_list_is_asked_for_once() -> None:
    data = {"openssl": {"CVE-2026-0009": {"releases": {"bookworm": {"status": "open", "urgency": "high"}}}}}
    with advisory_services(tracker=data) as services:
        found = asking(services).debian({"openssl": "3.0.11-1"})
        assert services.seen == ["GET /tracker"]
    assert [one.id for one in found] == ["CVE-2026-0009"]


def test_the_addresses_are_those_of_the_site() -> None:
    assert SiteSettings().osv == "https://api.osv.dev"
    assert SiteSettings().debian_tracker.startswith("https://security-tracker.debian.org/")
