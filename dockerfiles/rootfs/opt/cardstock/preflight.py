"""Whether this image's code runs on the cards and the driver of this machine; asked before the server starts.

    python3 /opt/cardstock/preflight.py       ends with 0: it does, or nobody can tell; 4: it does not, and what would

The image says of itself, in its environment: CARDSTOCK_VARIANT, CARDSTOCK_ENGINE, CARDSTOCK_ARCHS (what its code is
cut for; empty for the CPU), CARDSTOCK_MIN_DRIVER, NVIDIA_REQUIRE_CUDA, and CARDSTOCK_IMAGES (all images that a card may
be told of, the better ones first: "TAG@OLDEST-DRIVER …"). CARDSTOCK_REPOSITORY says where those are published.
Standard library only, and nothing of torch: this is over before Python could import that.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from card_state import prohibited, state_lines, unread_words  # type: ignore[import-not-found,unused-ignore]
from nvml import Machine, Seen, read_machine, visible  # type: ignore[import-not-found,unused-ignore]

FITS, NO_IMAGE_FITS = 0, 4
LOCAL_NAME = "cardstock/qwen2.5-vl"
# The last driver branch for Volta and older cards (images/matrix/drivers.py, with its evidence).
LAST_FOR_VOLTA = 580
GO_ON = "CARDSTOCK_SKIP_PREFLIGHT=1 starts the server all the same"
_ARCH = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")
_DRIVER = re.compile(r"\d+(\.\d+)*")

Capability = tuple[int, int]


@dataclass(frozen=True)
class Other:
    """An image that exists: its tag, what it is cut for (empty for the CPU), its oldest driver ("" for none)."""

    tag: str
    archs: tuple[Capability, ...]
    driver: str


@dataclass(frozen=True)
class Image:
    """What this image says of itself. ``archs`` as in CARDSTOCK_ARCHS; ``cuda`` as NVIDIA_REQUIRE_CUDA asks for it."""

    tag: str
    engine: str
    archs: tuple[str, ...]
    driver: str
    cuda: Capability | None
    others: tuple[Other, ...]
    repository: str


@dataclass(frozen=True)
class Verdict:
    """The exit code, and what people are told, line by line."""

    code: int
    lines: tuple[str, ...]


def read_image(environment: Mapping[str, str]) -> Image:
    """The image, from its environment."""
    require = re.fullmatch(r"cuda>=(\d+)\.(\d+)", environment.get("NVIDIA_REQUIRE_CUDA", ""))
    return Image(
        tag=environment.get("CARDSTOCK_VARIANT", "this image"),
        engine=environment.get("CARDSTOCK_ENGINE", ""),
        archs=tuple(environment.get("CARDSTOCK_ARCHS", "").split()),
        driver=environment.get("CARDSTOCK_MIN_DRIVER", ""),
        cuda=(int(require[1]), int(require[2])) if require else None,
        others=tuple(read_other(word) for word in environment.get("CARDSTOCK_IMAGES", "").split()),
        repository=environment.get("CARDSTOCK_REPOSITORY") or LOCAL_NAME,
    )


def read_other(word: str) -> Other:
    """ "cu124-vllm0.8.5.post1-xformers-sm75@525.60.13": the tag tells the archs; without "-sm" it is the CPU's."""
    tag, _, driver = word.partition("@")
    match = re.search(r"-sm(\d+(?:_\d+)*)$", tag)
    archs = tuple(divmod(int(number), 10) for number in match[1].split("_")) if match else ()
    return Other(tag, archs, driver)


def runs_on(arch: str, card: Capability) -> bool:
    """Whether code of ``arch`` ("7.5", "9.0a", "10.0f", "8.0+PTX") runs on a card, by the driver's rule.

    Machine code runs on the same major from its minor up; an "a" target on that card alone; PTX on whatever is newer.
    """
    match = _ARCH.fullmatch(arch)
    if match is None:
        raise ValueError(f"{arch!r} is no compute capability")
    own = (int(match[1]), int(match[2]))
    if match[3] == "a":
        return own == card
    if own[0] == card[0] and own[1] <= card[1]:
        return True
    return bool(match[4]) and not match[3] and own <= card


def readable(driver: str) -> bool:
    """Whether it has the form of a driver's version."""
    return _DRIVER.fullmatch(driver) is not None


def parts(driver: str) -> tuple[int, ...]:
    """A driver's version as numbers: 535.104.05 is (535, 104, 5). Raises ValueError for another form."""
    if not readable(driver):
        raise ValueError(f"{driver!r} is no driver version")
    return tuple(int(part) for part in driver.split("."))


def driver_runs(machine: Machine, minimum: str, cuda: Capability | None = None) -> bool:
    """Whether the driver is new enough; one whose version cannot be read is.

    A data centre's card may have a newer CUDA beside an older driver (the package cuda-compat), which NVML tells:
    ``cuda`` is what the image asks for.
    """
    if not minimum or not readable(machine.driver) or parts(machine.driver) >= parts(minimum):
        return True
    return cuda is not None and machine.cuda is not None and machine.cuda >= cuda


def best(others: Iterable[Other], cards: Sequence[Seen], machine: Machine | None = None) -> Other | None:
    """The image for all of ``cards`` together, of those that the driver of ``machine`` runs (None: whatever it is)."""
    known = list(others)
    every = {arch for other in known for arch in other.archs}
    wanted = set()
    for card in cards:
        below = [arch for arch in every if arch[0] == card.capability[0] and arch <= card.capability]
        if not below:
            return None
        wanted.add(max(below))
    able = (other for other in known if machine is None or driver_runs(machine, other.driver))
    return next((other for other in able if wanted and wanted <= set(other.archs)), None)


def judge(image: Image, machine: Machine, environment: Mapping[str, str]) -> Verdict:
    """Whether the server may start. Raises ValueError where the image's or the driver's words cannot be read."""
    if not image.archs:
        return Verdict(FITS, ())
    told = tuple(f"{one}; going on" for one in machine.unsure)
    if machine.why:
        return _without_card(image, machine, environment)
    if not machine.cards:
        return Verdict(FITS, told)
    cards, certain = visible(machine.cards, environment)
    if not cards:
        hidden = f"CUDA_VISIBLE_DEVICES={environment.get('CUDA_VISIBLE_DEVICES', '')} hides every card"
        return _without_card(image, Machine(why=hidden, do="leave it out, or name a card in it"), environment)
    unfit = [
        card
        for card in (cards if certain else machine.cards)
        if not any(runs_on(arch, card.capability) for arch in image.archs)
    ]
    if not certain and unfit:
        order = "CUDA_VISIBLE_DEVICES counts in CUDA's order: which of these different cards it means is not known here"
        return Verdict(FITS, (*told, f"{order}; going on. CUDA_DEVICE_ORDER=PCI_BUS_ID would make it plain"))
    if not readable(machine.driver):
        told = (*told, f"the driver's version is not understood: {machine.driver!r}; going on")
    if unfit:
        return Verdict(NO_IMAGE_FITS, (*told, *_unfit(image, machine, cards, unfit)))
    if not driver_runs(machine, image.driver, image.cuda):
        return Verdict(NO_IMAGE_FITS, (*told, *_old_driver(image, machine, cards)))
    if fault := (prohibited(cards) if certain else None) or unread_words(image.tag, cards, environment):
        return Verdict(NO_IMAGE_FITS, (*told, *_message(fault[0], fault[1], fault[2], "docs/errors.md")))
    told = (*told, *(f"{line}; going on" for line in state_lines(cards)))
    return Verdict(FITS, (*told, f"{image.tag} fits {names(cards)}, driver {machine.driver}"))


def names(cards: Sequence[Seen]) -> str:
    """ "2 x Tesla T4 (7.5) and NVIDIA L4 (8.9)"."""
    counts: dict[str, int] = {}
    for card in cards:
        text = f"{card.name} ({_dotted(card.capability)})"
        counts[text] = counts.get(text, 0) + 1
    return " and ".join(text if count == 1 else f"{count} x {text}" for text, count in counts.items())


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def _get(image: Image, other: Other) -> str:
    return f"docker pull {image.repository}:{other.tag} (or build it: ./inv build --only {other.tag})"


def _driver(machine: Machine) -> str:
    brings = f" (CUDA {_dotted(machine.cuda)})" if machine.cuda else ""
    return f"driver {machine.driver}{brings}"


def _update(minimum: str, cards: Sequence[Seen]) -> str:
    old = [card for card in cards if card.capability < (7, 5)]
    limit = f"; branch {LAST_FOR_VOLTA} is the last for {names(old[:1])}" if old else ""
    return f"update the host's driver to {minimum} or newer{limit}"


def _message(what: str, cause: str, do: Sequence[str], where: str) -> tuple[str, ...]:
    others = [f"  or: {text}" for text in (*do[1:], GO_ON)]
    return (what, f"  cause: {cause}", f"  do: {do[0]}", *others, f"  where: {where}")


def _cpu(image: Image) -> list[str]:
    return [f"the image for the CPU: {_get(image, other)}" for other in image.others if not other.archs]


def _without_card(image: Image, machine: Machine, environment: Mapping[str, str]) -> Verdict:
    """vLLM's CUDA builds start on a card only; the server on transformers computes on the CPU, and says so."""
    asked = environment.get("NVIDIA_VISIBLE_DEVICES")
    hidden = asked is not None and asked.strip() in ("", "none", "void")
    do = (
        [machine.do]
        if machine.do
        else [
            "docker run --gpus all … (by CDI: --device nvidia.com/gpu=all)",
            "install the NVIDIA Container Toolkit on the host",
        ]
    )
    if hidden and not machine.do:
        do = [f"NVIDIA_VISIBLE_DEVICES={asked} gives no card to the container: leave it out", *do]
    if image.engine != "vllm":
        return Verdict(FITS, (f"no card: {machine.why}; computing on the CPU, which is slow. To change that: {do[0]}",))
    what = f"{image.tag} needs an NVIDIA card, and there is none"
    where = "nvidia-smi on the host; docs/serve.md"
    return Verdict(NO_IMAGE_FITS, _message(what, machine.why, [*do, *_cpu(image)], where))


def _unfit(image: Image, machine: Machine, cards: Sequence[Seen], unfit: Sequence[Seen]) -> tuple[str, ...]:
    """Some or all cards run none of this image's code: leave them out, or take the image that covers all."""
    what = f"{image.tag} has no code for {names(unfit)}"
    cause = f"it is cut for {' '.join(image.archs)}, and a card runs machine code of its own major, up to its minor"
    fitting = [card for card in cards if card not in unfit]
    do = []
    if fitting:
        what += f"; it fits {names(fitting)}"
        places, uuids = (",".join(str(card.index) for card in fitting), ",".join(card.uuid for card in fitting))
        do.append(f"give it the cards that it fits: -e CUDA_DEVICE_ORDER=PCI_BUS_ID -e CUDA_VISIBLE_DEVICES={places}")
        do.append(f"""the same by --gpus '"device={uuids}"'""")
    do += _images(image, machine, cards)
    where = f"{_driver(machine)}; ./inv explain --arch {_dotted(unfit[0].capability)}"
    return _message(what, cause, do or _none(image, unfit), where)


def _images(image: Image, machine: Machine, cards: Sequence[Seen]) -> list[str]:
    """How to get the image for these cards with this driver, and with a newer one; one each where none is for all."""
    now, ideal = best(image.others, cards, machine), best(image.others, cards)
    out = [_get(image, now)] if now else []
    if ideal and ideal != now:
        out.append(f"{_update(ideal.driver, cards)}, and {_get(image, ideal)}")
    kinds = {card.capability: card for card in cards}
    if not out and len(kinds) > 1:
        for card in kinds.values():
            out += [f"for {card.name}: {text}" for text in _images(image, machine, [card])]
    return out


def _none(image: Image, cards: Sequence[Seen]) -> list[str]:
    """What to do where no image is made for a card."""
    every = [arch for other in image.others for arch in other.archs]
    if every and cards[0].capability < min(every):
        reason = f"no image is made for cards below {_dotted(min(every))}: no vLLM wheel holds code for them"
    else:
        reason = f"no image is made for {_dotted(cards[0].capability)}"
    return [f"take another card; {reason}", *_cpu(image)]


def _old_driver(image: Image, machine: Machine, cards: Sequence[Seen]) -> tuple[str, ...]:
    what = f"{_driver(machine)} is too old for {image.tag}"
    cause = f"its code needs driver {image.driver} or newer"
    older = best(image.others, cards, machine)
    do = [_update(image.driver, cards)]
    if older:
        do.append(f"with this driver, {_get(image, older)}")
    return _message(what, cause, do, f"{names(cards)}; CUDA release notes, table 3")


def main(environment: Mapping[str, str]) -> int:
    """Print the verdict; its exit code. Whatever is not understood is one line, and the server goes on."""
    try:
        image = read_image(environment)
        verdict = judge(image, read_machine() if image.archs else Machine(), environment)
    except (ValueError, AttributeError, OSError) as error:  # AttributeError: a library without a function asked for
        verdict = Verdict(FITS, (f"not understood, going on: {error}",))
    if verdict.lines:
        print("\n".join(f"preflight: {line}" if line[0] != " " else line for line in verdict.lines), file=sys.stderr)
    return verdict.code


if __name__ == "__main__":
    sys.exit(main(os.environ))
