"""The advisories of a checkout, applied to its variants: read when they are first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from images.advisories.gate import places_of, refuse_recommended
from images.advisories.judge import Assessment, assess
from images.advisories.lookups import Coverage, Lookup, coverage, read_lookups
from images.advisories.model import Advisories, Ecosystem
from images.advisories.packages import Carried, carried_packages, lock_packages, read_debian
from images.advisories.reader import FILE, read_advisories
from images.matrix import Matrix, Variant, Variants
from images.render import Checkout

ROOTFS = "dockerfiles/rootfs"


@dataclass(frozen=True)
class Assessments:
    """What advisories.yaml means for the variants of a checkout. Each variant is judged when it is first asked for."""

    checkout: Checkout
    matrix: Matrix
    variants: Variants
    _judged: dict[str, Assessment] = field(default_factory=dict, repr=False, compare=False)
    _locks: dict[str, dict[str, str] | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def known(self) -> Advisories:
        """advisories.yaml, checked. Raises UsageError."""
        return read_advisories(self.checkout.root / FILE)

    @cached_property
    def lookups(self) -> Mapping[Ecosystem, Lookup]:
        """The last questions to services. Raises UsageError."""
        return read_lookups(self.checkout.root)

    @cached_property
    def debian(self) -> Mapping[str, str]:
        """The Debian packages that an image was seen to have. Raises UsageError."""
        return read_debian(self.checkout.root)

    def carried(self, variant: Variant) -> Carried:
        """The packages of a variant's image."""
        if variant.lock not in self._locks:
            self._locks[variant.lock] = lock_packages(self.checkout.locks, variant.lock)
        return carried_packages(variant, self._locks[variant.lock], self.debian)

    def of(self, variant: Variant) -> Assessment:
        """The advisories of one variant, judged. Raises UsageError."""
        if variant.id not in self._judged:
            self._judged[variant.id] = assess(self.known, variant, self.carried(variant), self._rootfs)
        return self._judged[variant.id]

    @cached_property
    def recommended(self) -> tuple[Variant, ...]:
        """The variants that the matrix recommends for a card."""
        return tuple(self.variants.valid[name] for name in places_of(self.matrix, self.variants))

    def coverage(self, variants: Iterable[Variant]) -> Coverage:
        """How many of the packages of these images were looked up."""
        return coverage(self.known, self.lookups, [self.carried(variant) for variant in variants])

    def check_recommended(self) -> None:
        """Raise UsageError where a recommended image has an open advisory that is severe."""
        judged = {variant.id: self.of(variant) for variant in self.recommended}
        refuse_recommended(self.matrix, self.variants, self.known, judged)

    @cached_property
    def _texts(self) -> dict[str, str | None]:
        return {}

    def _rootfs(self, path: str) -> str | None:
        if path not in self._texts:
            file: Path = self.checkout.root / ROOTFS / path
            self._texts[path] = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
        return self._texts[path]
