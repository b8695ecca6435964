"""The matrix's rules, settings, notes and gaps, applied to combinations of stack, backend, attention and archs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from images.core import UsageError
from images.matrix.arch import KNOWN_ARCHS, Arch, covers, parse_arch
from images.matrix.model import (
    PACKAGES,
    Attention,
    Backend,
    DeviceCode,
    LibraryGap,
    Matrix,
    Note,
    PackageName,
    Pin,
    Rule,
    ServerModules,
    Setting,
    StandIn,
    Toolkit,
    UnmetNeed,
    UnusedPackage,
    When,
)

Archs = tuple[Arch, ...]
ALL_ARCHS = tuple(parse_arch(text) for text in KNOWN_ARCHS)


class _Conditional(Protocol):
    @property
    def when(self) -> When: ...


T = TypeVar("T", bound=_Conditional)


@lru_cache(maxsize=4096)
def in_range(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as ">=0.8.3,<0.14.1"."""
    # Local parts (+cu118) say where a build comes from, not how new it is.
    return SpecifierSet(wanted).contains(Version(version.partition("+")[0]), prereleases=True)


@dataclass(frozen=True)
class PartialRule(Generic[T]):
    """A rule, setting, note or gap whose stack and backend match: attention and archs are left to check (None: any)."""

    item: T
    attentions: frozenset[str] | None
    arch_numbers: frozenset[int] | None

    def matches(self, attention: Attention, archs: Archs) -> bool:
        if self.attentions is not None and attention not in self.attentions:
            return False
        return self.arch_numbers is None or any(arch.major * 10 + arch.minor in self.arch_numbers for arch in archs)

    def matches_all(self, attention: Attention, archs: Archs) -> bool:
        """Whether it matches whichever of the cards is there."""
        return self.matches(attention, archs) and all(self.matches(attention, (arch,)) for arch in archs)


@lru_cache(maxsize=1024)
def _arch_numbers(ranges: tuple[str, ...]) -> frozenset[int]:
    return frozenset(arch.number for arch in ALL_ARCHS if any(in_range(arch.capability, wanted) for wanted in ranges))


def _versions(pins: Mapping[PackageName, Pin], cuda: str | None) -> dict[str, str]:
    versions: dict[str, str] = {package: pin.version for package, pin in pins.items()}
    return versions if cuda is None else {**versions, "cuda": cuda}


def _stack_matches(when: When, stack: str, backend: Backend, versions: Mapping[str, str]) -> bool:
    """Whether the conditions on stack, backend and pins match."""
    if when.stack not in (None, stack) or when.backend not in (None, backend):
        return False
    return all(package in versions and in_range(versions[package], wanted) for package, wanted in when.version_ranges)


def _as_tuple(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _point_conditions(when: When) -> tuple[frozenset[str] | None, frozenset[int] | None]:
    """The attentions and the arch numbers that ``when`` asks for; None means any."""
    attentions, ranges = _as_tuple(when.attention), _as_tuple(when.arch)
    return (
        None if attentions is None else frozenset(attentions),
        None if ranges is None else _arch_numbers(ranges),
    )


def when_matches(
    when: When,
    *,
    stack: str,
    backend: Backend,
    attention: Attention,
    archs: Archs,
    pins: Mapping[PackageName, Pin],
    cuda: str | None,
) -> bool:
    """Whether all conditions of ``when`` hold for one point of the matrix."""
    if not _stack_matches(when, stack, backend, _versions(pins, cuda)):
        return False
    attentions, arch_numbers = _point_conditions(when)
    in_attention = attentions is None or attention in attentions
    return in_attention and (arch_numbers is None or any(arch.number in arch_numbers for arch in archs))


class Judge:
    """Applies the matrix's rules, settings and notes to points. What depends on the stack alone is checked once."""

    def __init__(self, matrix: Matrix) -> None:
        self._rules: dict[tuple[str, Backend], tuple[PartialRule[Rule], ...]] = {}
        self._settings: dict[tuple[str, Backend], tuple[PartialRule[Setting], ...]] = {}
        self._notes: dict[tuple[str, Backend], tuple[PartialRule[Note], ...]] = {}
        self._serving: dict[tuple[str, Backend], tuple[PartialRule[ServerModules], ...]] = {}
        self._gaps: dict[tuple[str, Backend], tuple[PartialRule[LibraryGap], ...]] = {}
        self._stand_ins: dict[tuple[str, Backend], tuple[StandIn, ...]] = {}
        self._unused: dict[tuple[str, Backend], tuple[PartialRule[UnusedPackage], ...]] = {}
        self._unmet: dict[tuple[str, Backend], tuple[UnmetNeed, ...]] = {}
        for stack_name, stack in matrix.stacks.items():
            for backend, backend_set in stack.backends.items():
                key = (stack_name, backend)
                versions = _versions(backend_set.pins, stack.cuda)
                rules = [*self._matching_stack(matrix.exclude, key, versions)]
                if stack.cuda is not None:
                    rules.append(_toolkit_range(stack.cuda, matrix.toolkits[stack.cuda]))
                    rules.append(_device_code(stack_name, backend, backend_set.archs))
                    rules.append(_not_cut_for(matrix.archs))
                self._rules[key] = tuple(rules)
                self._settings[key] = self._matching_stack(matrix.settings, key, versions)
                self._notes[key] = self._matching_stack(matrix.notes, key, versions)
                self._serving[key] = self._matching_stack(matrix.serving, key, versions)
                self._gaps[key] = self._matching_stack(matrix.gaps, key, versions)
                # Of a stack as a whole: model.py refuses conditions on cards and attention.
                self._stand_ins[key] = _stand_ins(matrix, key, versions)
                self._unused[key] = self._matching_stack(matrix.unused, key, versions)
                self._unmet[key] = tuple(u for u in matrix.unmet if _stack_matches(u.when, *key, versions))

    @staticmethod
    def _matching_stack(
        among: Iterable[T], key: tuple[str, Backend], versions: Mapping[str, str]
    ) -> tuple[PartialRule[T], ...]:
        matching = []
        for item in among:
            if _stack_matches(item.when, *key, versions):
                matching.append(PartialRule(item, *_point_conditions(item.when)))
        return tuple(matching)

    def rules_against(self, stack: str, backend: Backend, attention: Attention, archs: Archs) -> tuple[Rule, ...]:
        """Every rule that excludes this point; empty where it is valid."""
        if (stack, backend) not in self._rules:
            return (_no_such_server(stack, backend),)
        return tuple(r.item for r in self._rules[stack, backend] if r.matches(attention, archs))

    def settings(self, stack: str, backend: Backend, attention: Attention, archs: Archs) -> tuple[Setting, ...]:
        """The settings this point carries, in the file's order."""
        return tuple(r.item for r in self._settings[stack, backend] if r.matches(attention, archs))

    def notes(self, stack: str, backend: Backend, attention: Attention, archs: Archs) -> tuple[Note, ...]:
        """What a user of this point should know."""
        return tuple(r.item for r in self._notes[stack, backend] if r.matches(attention, archs))

    def modules(self, stack: str, backend: Backend, attention: Attention) -> tuple[str, ...]:
        """Modules that the server of these points imports."""
        matching = (r.item for r in self._serving[stack, backend] if r.matches(attention, ()))
        return tuple(dict.fromkeys(module for serving in matching for module in serving.modules))

    def gaps(self, stack: str, backend: Backend, attention: Attention, archs: Archs) -> tuple[LibraryGap, ...]:
        """Known gaps that do no harm on this point; what is left out for them is left out for each of its cards."""
        rules = self._gaps[stack, backend]
        return tuple(r.item for r in rules if (r.matches_all if r.item.drop else r.matches)(attention, archs))

    def stand_ins(self, stack: str, backend: Backend) -> tuple[StandIn, ...]:
        """The libraries of NVIDIA's that images of a stack's backend leave out."""
        return self._stand_ins[stack, backend]

    def unused(self, stack: str, backend: Backend, attention: Attention, archs: Archs) -> tuple[UnusedPackage, ...]:
        """The packages that the image of this point leaves out: what no card of it needs."""
        return tuple(r.item for r in self._unused[stack, backend] if r.matches_all(attention, archs))

    def unmet(self, stack: str, backend: Backend) -> tuple[UnmetNeed, ...]:
        """What files of images of a stack's backend want and do without."""
        return self._unmet[stack, backend]


def _stand_ins(matrix: Matrix, key: tuple[str, Backend], versions: Mapping[str, str]) -> tuple[StandIn, ...]:
    """The rows that match a stack's backend, each with a source. Raises UsageError where one has none."""
    evidence = next((one for one in matrix.stand_in_evidence if _stack_matches(one.when, *key, versions)), None)
    found = []
    for index, row in enumerate(matrix.stand_ins):
        if not _stack_matches(row.when, *key, versions):
            continue
        if not row.source and evidence is None:
            raise UsageError(
                f"{matrix._path}: stand_ins.{index}: {row.id} has no source for {key[0]} with {key[1]}",
                do="tell source and mark there, or add a row to stand_in_evidence that matches",
                where=matrix.where("stand_ins", index),
            )
        seen = {} if row.source or evidence is None else {"source": evidence.source, "mark": evidence.mark}
        found.append(row.model_copy(update=seen))
    return tuple(found)


def _toolkit_range(cuda: str, toolkit: Toolkit) -> PartialRule[Rule]:
    """The rule that a toolkit compiles for its own range only."""
    low, high = (tuple(map(int, text.split("."))) for text in toolkit.sass)
    compiled = [arch for arch in ALL_ARCHS if low <= (arch.major, arch.minor) <= high]
    outside = frozenset(arch.number for arch in ALL_ARCHS if not covers(compiled, arch))
    reason = f"CUDA {cuda} compiles for {toolkit.sass[0]} to {toolkit.sass[1]} only"
    rule = Rule(id="toolkit-range", when=When(), reason=reason, source=toolkit.source, mark=toolkit.mark)
    return PartialRule(rule, None, outside)


def _device_code(stack: str, backend: Backend, device_code: DeviceCode) -> PartialRule[Rule]:
    """The rule that libraries run on the cards whose code they hold."""
    code = [parse_arch(text) for text in device_code.are]
    uncovered = frozenset(arch.number for arch in ALL_ARCHS if not covers(code, arch))
    reason = (
        f"the {backend} set of {stack} holds code for {', '.join(device_code.are)}, and none of it runs on this card"
    )
    rule = Rule(id="no-device-code", when=When(), reason=reason, source=device_code.source, mark=device_code.mark)
    return PartialRule(rule, None, uncovered)


def _not_cut_for(listed: Sequence[str]) -> PartialRule[Rule]:
    """The rule that images are cut for the archs that the matrix lists, and run on the cards that run their code."""
    archs = [parse_arch(text) for text in listed]
    others = frozenset(arch.number for arch in ALL_ARCHS if not covers(archs, arch))
    reason = f"images are cut for {', '.join(listed)}, and none of that code runs on this card"
    rule = Rule(id="no-image-is-cut-for-it", when=When(), reason=reason, source="archs of matrix.yaml", mark="A")
    return PartialRule(rule, None, others)


def _no_such_server(stack: str, backend: Backend) -> Rule:
    """The rule that a stack has the servers whose packages it pins."""
    name = "the server on transformers" if backend == "transformers" else backend
    reason = f"{stack} pins no packages for {name}"
    source = f"stacks.{stack}.backends of matrix.yaml"
    return Rule(id="no-such-server-in-stack", when=When(), reason=reason, source=source, mark="A")


def check_pins(matrix: Matrix) -> None:
    """Raise UsageError for the first pin that breaks a rule, with its place, the reason and the nearest valid pin."""
    for stack_name, stack in matrix.stacks.items():
        for backend, backend_set in stack.backends.items():
            versions = _versions(backend_set.pins, stack.cuda)
            for rule in matrix.exclude:
                if (
                    rule.when.arch is None
                    and rule.when.attention is None
                    and _stack_matches(rule.when, stack_name, backend, versions)
                ):
                    raise _broken_pin(matrix, rule, stack_name, backend, versions)


def _broken_pin(matrix: Matrix, rule: Rule, stack: str, backend: Backend, versions: Mapping[str, str]) -> UsageError:
    # The pin to change is the one the nearest valid pin names.
    named = (rule.nearest_pin or "").partition(" ")[0]
    concerned = [p for p in PACKAGES if getattr(rule.when, p) is not None]
    package = named if named in versions else concerned[0] if concerned else "cuda"
    place = ("stacks", stack, "backends", backend, "pins", package)
    return UsageError(
        f"{matrix._path}: {'.'.join(place)}: {package} {versions.get(package, '')} breaks the rule {rule.id}",
        cause=f"{rule.reason} [{rule.mark}: {rule.source}]",
        do=f"nearest valid pin: {rule.nearest_pin}"
        if rule.nearest_pin
        else "change one of the pins that the rule names",
        where=matrix.where(*place),
    )


def check_kernels(matrix: Matrix) -> None:
    """Raise UsageError for the first extra kernel wheel that a rule forbids, with its place and the reason."""
    for index, wish in enumerate(matrix.kernels):
        versions = {wish.package.replace("-", "_"): wish.version, "torch": wish.torch, "cuda": wish.cuda}
        archs = tuple(parse_arch(arch) for arch in wish.archs)
        rules = [
            PartialRule(rule, *_point_conditions(rule.when))
            for rule in matrix.exclude
            if rule.when.stack is None
            and rule.when.backend is None
            and all(name in versions and in_range(versions[name], wanted) for name, wanted in rule.when.version_ranges)
        ]
        for partial in (*rules, _toolkit_range(wish.cuda, matrix.toolkits[wish.cuda])):
            if partial.matches(wish.package, archs):
                rule = partial.item
                raise UsageError(
                    f"{matrix._path}: kernels.{index}: {wish.package} {wish.version} for {' '.join(wish.archs)} "
                    f"is excluded by the rule {rule.id}",
                    cause=f"{rule.reason} [{rule.mark}: {rule.source}]",
                    do=f"nearest valid pin: {rule.nearest_pin}" if rule.nearest_pin else "change its archs or its pins",
                    where=matrix.where("kernels", index),
                )
