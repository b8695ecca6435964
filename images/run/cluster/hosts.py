"""hosts.yaml: the machines of a cluster. Pure; every error names file, line, key and what would be right."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from images.cards import MOST_CARDS
from images.core import Location, UsageError, closest, compose_yaml, line_of, plain_values
from images.docker import is_device

# A host's name becomes a Ray resource and a file's name; a network card's name has at most 15 bytes in Linux.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]
Interface = Annotated[str, Field(pattern=r"^[^\s/:,=^]{1,15}$")]
Folder = Annotated[str, Field(pattern=r"^/[^:\x00]+$")]
Port = Annotated[int, Field(ge=1024, le=65535)]
EXAMPLE = "docs/cluster.md has an example"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Host(_Part):
    """One machine. ``devices`` are its cards as its driver numbers them, or their UUIDs; none where it has no card.

    ``card`` is a card's name as `fit` takes it, and ``memory`` its GB where it is another than it is sold with.
    ``interface`` is the network card that the others reach it by; ``engine`` its Docker endpoint (ssh://…, tcp://…)
    or the name of a docker context; "" for the engine of this machine. ``cdi``: a file that is written for this host
    asks its engine for the cards by CDI; an engine that is reached is asked what it has.
    """

    name: Name
    address: str
    interface: Interface = ""
    card: str = ""
    memory: Annotated[float, Field(gt=0, le=2048)] | None = None
    devices: tuple[int | str, ...] = ()
    folder: Folder | None = None
    engine: str = ""
    cdi: bool = False

    @field_validator("devices", mode="before")
    @classmethod
    def _devices(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            found = ip_address(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an IP address; Ray and NCCL are told numbers, not names") from None
        if found.is_loopback or found.is_unspecified:
            raise ValueError(f"{value} is reached from its own machine only; say the address that the others reach")
        return value

    @field_validator("devices")
    @classmethod
    def _each_once(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a device is named twice")
        return value

    @field_validator("devices")
    @classmethod
    def _as_docker(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for device in value:
            if not is_device(str(device)):
                raise ValueError(f"{device!r} is no device: 0, or 'GPU-…', or in quotes '0:1' for a MIG instance")
            if isinstance(device, int) and device >= MOST_CARDS:
                raise ValueError(f"device {device} is more than a machine has; a MIG instance such as '1:0' is quoted")
        return value

    @property
    def memory_text(self) -> str:
        """Its memory as `fit` takes it; "" for what the card is sold with."""
        return f"{self.memory:g}" if self.memory else ""

    @property
    def slots(self) -> int:
        """How many parts of the model it takes: one a card; one on a machine without any."""
        return len(self.devices) or 1


class Hosts(_Part):
    """A cluster: the first host is the head, which has the API at ``port``; ``folder`` holds the model on each host.

    ``model`` is what `fit` is asked for ("72b-awq"); "": the config.json in ``folder`` here. ``network`` is a docker
    network that all engines share; "": the hosts' own network. ``environment`` is given to every container.
    """

    hosts: Annotated[tuple[Host, ...], Field(min_length=2)]
    folder: Folder
    model: str = ""
    variant: str = ""
    driver: str = ""
    interface: Interface = ""
    port: Port = 8000
    ray_port: Port = 6379
    network: str = ""
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(default_factory=dict)

    @field_validator("hosts", mode="before")
    @classmethod
    def _hosts(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hosts")
    @classmethod
    def _differ(cls, value: tuple[Host, ...], info: ValidationInfo) -> tuple[Host, ...]:
        for key in ("name", "address"):
            seen = [getattr(host, key) for host in value]
            if twice := next((one for one in seen if seen.count(one) > 1), None):
                raise ValueError(f"two hosts have the {key} {twice}")
        if len({host.slots for host in value}) > 1:
            told = ", ".join(f"{host.name} {host.slots}" for host in value)
            raise ValueError(f"each host must bring as many devices as the others, not {told}")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Hosts:
        if missing := [host.name for host in self.hosts if not self.interface_of(host)]:
            raise ValueError(f"no interface is named for {', '.join(missing)}")
        return self

    @property
    def head(self) -> Host:
        """The host that the others join, and that serves."""
        return self.hosts[0]

    def interface_of(self, host: Host) -> str:
        """The network card by which ``host`` is reached."""
        return host.interface or self.interface

    def folder_of(self, host: Host) -> str:
        """Where the model lies on ``host``; in its container it is /models, as on every other."""
        return host.folder or self.folder


def parse_hosts(text: str, name: str = "hosts.yaml") -> Hosts:
    """The cluster that ``text`` describes. Raises UsageError with file, line and key; ``name`` stands in it."""
    lines: dict[Location, int] = {}
    data = plain_values(compose_yaml(text, name, EXAMPLE), (), lines, name)
    try:
        return Hosts.model_validate(data)
    except ValidationError as error:
        raise _told(error, lines, name) from None


def _told(error: ValidationError, lines: dict[Location, int], name: str) -> UsageError:
    """The first fault, an unknown key before others, because it explains a missing one."""
    faults = error.errors(include_url=False)
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    at: Location = tuple(fault["loc"])
    do = EXAMPLE
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = list((Host if at[0] == "hosts" else Hosts).model_fields)
        message = f"unknown key {at[-1]!r}"
        do = f"nearest: {closest(str(at[-1]), known)}. Known here: {', '.join(known)}"
    elif fault["type"] == "missing":
        message = f"the key {at[-1]!r} is missing"
    elif fault["type"] == "string_pattern_mismatch":
        message = f"{fault['input']!r} is not of the form {fault['ctx']['pattern']}"
    elif fault["type"] == "too_short":
        message, do = (
            "a cluster has at least two hosts",
            "on one machine: ./inv serve, or the line that ./inv fit ends with",
        )
    key = ".".join(str(part) for part in at) or "the file"
    more = f" ({len(faults) - 1} more after this one)" if len(faults) > 1 else ""
    return UsageError(f"{name}: {key}: {message}{more}", do=do, where=f"{name}:{line_of(lines, at)}")
