"""A container's published ports, as an engine tells them."""

from __future__ import annotations

from typing import Any

import pytest

from images.core.errors import EngineUnreachable
from images.docker.published_ports import check_published, host_port_of


def told(ports: Any, running: bool = True) -> dict[str, Any]:
    return {"State": {"Running": running}, "NetworkSettings": {"Ports": ports}}


def test_the_port_of_the_machine_is_the_first_that_leads_there() -> None:
    ports = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18000"}, {"HostIp": "::1", "HostPort": "18001"}]}
    assert host_port_of(told(ports), 8000) == 18000
    check_published(told(ports), [8000])


@pytest.mark.parametrize("ports", [None, {}, {"8000/tcp": None}, {"8000/tcp": []}, {"9000/tcp": [{"HostPort": "1"}]}])
def test_an_engine_without_a_bridge_publishes_none_and_is_told_so(ports: Any) -> None:
    with pytest.raises(EngineUnreachable, match="published no port") as caught:
        check_published(told(ports), [8000])
    assert '"bridge": "none"' in str(caught.value.cause)


def test_a_container_that_has_ended_has_no_ports_any_more() -> None:
    for attributes in (told({}, running=False), {}):
        with pytest.raises(EngineUnreachable):
            host_port_of(attributes, 8000)
        check_published(attributes, [8000])  # its end is told elsewhere
