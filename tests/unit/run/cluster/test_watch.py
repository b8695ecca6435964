"""Who is in the cluster: `ray status` read, hosts that never joined told from those that dropped out."""

from __future__ import annotations

import pytest

from images.core.errors import CheckFailed
from images.run.cluster.hosts import parse_hosts
from images.run.cluster.status import read_status
from images.run.cluster.watch import HostContainer, Watch, likely, wrong_interface
from tests.helpers.clusters import CARDS

HOSTS = parse_hosts(CARDS)
BOX1, BOX2 = HOSTS.hosts

# Ray 2.60.0's own words; two nodes that serve with a stage each.
SERVING = """\
======== Autoscaler status: 2026-11-21 15:45:38.053176 ========
Node status
---------------------------------------------------------------
Active:
 1 node_8b061044c970d9c393ce5de923bec257676e29abc6d8ed24c4876d18
 1 node_c4b2727b515d65de1829d30c460f977764a4d9e2f66c5b3cb6e2cb25
Pending:
 (no pending nodes)
Recent failures:
 (no failures)

Resources
---------------------------------------------------------------
Total Usage:
 0.0/2.0 CPU
 2.0/2.0 GPU (2.0 used of 2.0 reserved in placement groups)
 0.0/1.0 host-box1
 0.0/1.0 host-box2
 0B/38.20GiB memory
 0B/190.73MiB object_store_memory

From request_resources:
 (none)
Pending Demands:
 (no resource demands)
"""
# The same of a cluster with an autoscaler (ray/autoscaler/v2/utils.py), one of whose nodes has nothing to do.
IDLE = """\
======== Autoscaler status: 2026-11-21 15:45:38 ========
Node status
---------------------------------------------------------------
Active:
 1 headgroup
Idle:
 1 box2
Pending:
 (no pending nodes)
Recent failures:
 (no failures)

Resources
---------------------------------------------------------------
Total Usage:
 0.0/16.0 GPU
 0.0/1.0 host-box1
 0.0/1.0 host-box2
From request_resources:
 (none)
Pending Demands:
 {'GPU': 1.0} * 4 (PACK): 1+ pending placement groups
"""


def test_status() -> None:
    status = read_status(SERVING)
    assert (status.nodes, status.slots, status.taken) == (2, 2, 2)
    assert status.joined(HOSTS.hosts) == {"box1", "box2"}
    assert set(status.resources) == {"CPU", "GPU", "host-box1", "host-box2"}


def test_status_with_an_autoscaler() -> None:
    status = read_status(IDLE)
    assert (status.nodes, status.slots, status.taken) == (2, 16, 0)


def test_a_lost_host_is_not_in_the_status() -> None:
    lost = SERVING.replace(" 0.0/1.0 host-box2\n", "").replace("2.0/2.0 GPU", "1.0/1.0 GPU")
    assert read_status(lost).joined(HOSTS.hosts) == {"box1"}


def test_a_host_is_not_taken_for_one_whose_name_begins_alike() -> None:
    assert read_status(SERVING.replace("host-box1", "host-box10")).joined(HOSTS.hosts) == {"box2"}


def test_status_of_a_head_that_just_came_up() -> None:
    status = read_status("No cluster status. It may take a few seconds for the Ray internal services to start up.\n")
    assert (status.nodes, status.joined(HOSTS.hosts)) == (0, frozenset())


def test_no_status() -> None:
    with pytest.raises(CheckFailed) as caught:
        read_status("Ray cluster is not found at 10.0.0.1:6379\n")
    assert "not found at 10.0.0.1" in caught.value.cause


def test_joined_dropped_and_back() -> None:
    watch, events = Watch(HOSTS).look(frozenset({"box1"}), {})
    assert [(one.kind, one.host) for one in events] == [("joined", "box1")]
    assert "8 cards" in events[0].what
    watch, events = watch.look(frozenset({"box1", "box2"}), {})
    assert [(one.kind, one.host) for one in events] == [("joined", "box2")]
    assert watch.complete
    watch, events = watch.look(frozenset({"box1"}), {"box2": HostContainer("exited", 137)})
    assert [(one.kind, one.host) for one in events] == [("dropped", "box2")]
    assert "its container has ended with 137" in events[0].what
    assert "killed" in events[0].do
    watch, events = watch.look(frozenset({"box1"}), {"box2": HostContainer("exited", 137)})
    assert events == []
    watch, events = watch.look(frozenset({"box1", "box2"}), {})
    assert [(one.kind, one.host) for one in events] == [("back", "box2")]


def test_when_the_head_went_the_others_are_not_blamed() -> None:
    watch, _ = Watch(HOSTS).look(frozenset({"box1", "box2"}), {})
    gone = {"box1": HostContainer("running"), "box2": HostContainer("running")}
    watch, events = watch.look(frozenset(), gone, anew=True)
    assert events == []
    assert not watch.complete
    watch, events = watch.look(frozenset({"box1", "box2"}), {})
    assert [one.kind for one in events] == ["back", "back"]


def test_a_host_that_took_the_head_with_it_is_blamed() -> None:
    watch, _ = Watch(HOSTS).look(frozenset({"box1", "box2"}), {})
    watch, events = watch.look(frozenset({"box1"}), {"box2": HostContainer("exited", 137)}, anew=True)
    assert [(one.kind, one.host) for one in events] == [("dropped", "box2")]


def test_never_joined_is_another_thing_than_dropped_out() -> None:
    watch, _ = Watch(HOSTS).look(frozenset({"box1"}), {})
    (never,) = watch.never({"box2": HostContainer("running")})
    assert never.what == "box2 never joined; its container runs"
    watch, _ = watch.look(frozenset({"box1", "box2"}), {})
    watch, _ = watch.look(frozenset({"box1"}), {"box2": HostContainer("running")})
    assert watch.never({"box2": HostContainer("running")}) == []


@pytest.mark.parametrize(
    ("box", "do"),
    [
        (
            HostContainer("running", log="Failed to connect to GCS at address 10.0.0.1:6379 within 5 seconds."),
            "10.0.0.1:6379 must answer",
        ),
        (
            HostContainer("exited", 1, "RuntimeError: Version mismatch: The cluster was started with Ray: 2.55.0"),
            "the same image on all",
        ),
        (HostContainer("exited", 1, "Unauthenticated: InvalidAuthToken"), "RAY_AUTH_TOKEN is another one"),
        (HostContainer("exited", 1, "something else"), "docker logs cardstock-box2 on box2"),
        (HostContainer("unreachable"), "see that box2 is on, and that ssh://box2 answers"),
    ],
)
def test_why_a_host_did_not_join(box: HostContainer, do: str) -> None:
    assert do in likely(HOSTS, BOX2, box)


def test_the_head_is_not_told_to_reach_itself() -> None:
    assert "docker logs cardstock-box1" in likely(HOSTS, BOX1, HostContainer("running", log="GCS"))


@pytest.mark.parametrize(
    ("interfaces", "what", "do"),
    [
        ({"lo": ("127.0.0.1",), "ens3": ("10.0.0.2",)}, "no network card 'eno2'; it has ens3, lo", "interface: ens3"),
        (
            {"eno2": ("192.168.1.7",), "ib0": ("10.0.0.2",)},
            "does not have the address 10.0.0.2, but 192.168.1.7",
            "interface: ib0",
        ),
        ({"eno2": ()}, "but no address", "mend the address"),
    ],
)
def test_wrong_interface(interfaces: dict[str, tuple[str, ...]], what: str, do: str) -> None:
    wrong = wrong_interface(BOX2, "eno2", interfaces)
    assert wrong is not None
    assert what in wrong[0]
    assert do in wrong[1]


def test_right_interface() -> None:
    assert wrong_interface(BOX2, "eno2", {"eno2": ("fe80::1", "10.0.0.2")}) is None
