"""What the facts of the cards and their driver mean: a lost one, MIG, compute mode, NVLink fabric, the driver. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from images.cards import NO_DRIVER, LocalCard, LocalMachine, read_driver
from images.core import human_bytes
from images.matrix import Matrix, parse_driver
from images.run.doctor.facts import Facts, ThisHost, Unknown
from images.run.doctor.finding import Finding, unknown

_FABRIC = (
    "sudo systemctl enable --now nvidia-fabricmanager (the package of the driver's very version), then look at "
    "nvidia-smi -q -d FABRIC; in a virtual machine, whoever runs the host starts it"
)


def check_cards(facts: Facts) -> tuple[Finding, ...]:
    """The cards, and a line more for each thing that keeps one from being used."""
    if isinstance(facts.cards, Unknown):
        do = "see whether nvidia-smi answers; restart the machine if it hangs"
        return (unknown("cards", "wrong", facts.cards, do),)
    machine = facts.cards
    if not machine.cards:
        return (Finding("cards", "ok", f"none: {machine.why}"), *_lost(machine))
    listed = ", ".join(_card(card) for card in machine.cards)
    return (_first(machine, listed), *_lost(machine), *_modes(machine), *_fabric(machine, facts.this_host))


def _first(machine: LocalMachine, listed: str) -> Finding:
    if unsliced := [card for card in machine.cards if card.mig and not card.slices]:
        return Finding(
            "cards",
            "warning",
            f"{listed}: MIG is on, and {unsliced[0].name} has no instance",
            "make one (nvidia-smi mig -cgi 0 -C), or switch MIG off (nvidia-smi -mig 0)",
        )
    return Finding("cards", "ok", listed)


def _card(card: LocalCard) -> str:
    parts = f", MIG: {len(card.slices)} instances" if card.mig else ""
    memory = f", {human_bytes(card.memory)}" if card.memory else ""
    return f"{card.name} ({card.arch}{memory}{parts})"


def _lost(machine: LocalMachine) -> Iterator[Finding]:
    for lost in machine.lost:
        rest = f"; the other {len(machine.cards)} are used" if machine.cards else ""
        yield Finding("lost card", "warning" if machine.cards else "wrong", f"{lost}{rest}", lost.fault.do)


def _modes(machine: LocalMachine) -> Iterator[Finding]:
    for card in machine.cards:
        which = "" if card.index is None else f"card {card.index}, "
        if card.compute_mode == "prohibited":
            told = f"{which}{card.name}: no process may use it (compute mode prohibited)"
            yield Finding("compute mode", "wrong", told, _default(card))
        elif card.compute_mode:
            told = f"{which}{card.name}: {card.compute_mode}: one process may use it, so no server beside another"
            yield Finding("compute mode", "warning", told, _default(card))


def _default(card: LocalCard) -> str:
    return f"sudo nvidia-smi -i {card.uuid if card.index is None else card.index} -c DEFAULT"


def _fabric(machine: LocalMachine, host: ThisHost) -> Iterator[Finding]:
    """The NVLink fabric of boards with NVSwitches: CUDA starts on none of their cards before it is up.

    Cards of 9.0 and newer tell how it is; of older ones only the program that sets it up can be looked for.
    """
    for card in [card for card in machine.cards if card.fabric][:1]:
        told = f"the NVLink fabric of {card.name}: {card.fabric}; until then CUDA ends with error 802, not ready"
        yield Finding("fabric manager", "wrong", told, _FABRIC)
        return
    older = [card for card in machine.cards if card.arch.major < 9]
    if host.switches and older and not host.fabric_manager:
        told = f"{host.switches} NVSwitches, and no nv-fabricmanager runs here: CUDA ends with error 802, not ready"
        yield Finding("fabric manager", "warning", told, _FABRIC)


def check_driver(facts: Facts, matrix: Matrix) -> Finding:
    """The driver: whether there is one, whether it answers, whether a stack runs on it."""
    machine = facts.cards
    if isinstance(machine, Unknown):
        return Finding("driver", "wrong", "not known", "see the line above")
    if not machine.cards and (broken := _broken(machine, facts.this_host)):
        return broken
    if not machine.driver and not machine.cards:
        in_windows = "; in WSL2 the driver is Windows' own" if facts.this_host.wsl else ""
        return Finding("driver", "ok", f"none, and no card on the PCI bus: not needed to build{in_windows}")
    text = f"{machine.driver}, CUDA {machine.cuda}" if machine.cuda else machine.driver
    found = read_driver(machine.driver)
    if found is None:
        do = "nvidia-smi --query-gpu=driver_version --format=csv; say it with --driver where an image is chosen"
        return Finding("driver", "warning", f"{text or 'its version'}: is of no form that is known here", do)
    oldest = min(parse_driver(toolkit.floor) for toolkit in matrix.toolkits.values())
    if found < oldest:
        return Finding("driver", "wrong", f"{text}: older than every stack's", f"install driver {oldest} or newer")
    return Finding("driver", "ok", text)


def _broken(machine: LocalMachine, host: ThisHost) -> Finding | None:
    """A driver that does not answer, or that serves none of the cards that are there."""
    silent = machine.fault is not None and machine.fault.code not in NO_DRIVER
    if not host.gpus and not silent and not machine.lost:
        return None
    count = f"none serves the {host.gpus} NVIDIA card(s) on the PCI bus: " if host.gpus else ""
    code = f" (NVML error {machine.fault.code})" if machine.fault and silent else ""
    do = machine.do or "install NVIDIA's driver (or load it: restart), then nvidia-smi"
    return Finding("driver", "wrong", f"{count}{machine.why}{code}", do)
