"""What a command works with: the checkout, its matrix, the site, the engine, the report. Made in one place.

Everything is read when it is first asked for, so that a command pays for what it uses and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.core import EngineUnreachable, Report, SiteSettings, UsageError, read_site
from images.matrix import Matrix, Variants, make_variants
from images.render import Checkout, LockState, lock_states

if TYPE_CHECKING:
    from images.advisories import Assessments
    from images.cards import LocalMachine
    from images.docker import Engine, Way
    from images.registry import Repository

# The repository that is meant where a command names none.
REPOSITORY = "CARDSTOCK_REPOSITORY"


@dataclass(frozen=True)
class Context:
    """The dependencies of a command.

    ``connect`` finds the engine; without it, the one that answers, or the embedded one, which is then started.
    ``known`` are values by the names of the properties below, see `having`.
    """

    checkout: Checkout
    report: Report = field(default_factory=Report)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    connect: Callable[[], Engine] | None = None
    known: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What is known already stands where it would be kept once read."""
        self.__dict__.update(self.known)

    @cached_property
    def matrix(self) -> Matrix:
        """matrix.yaml, checked. Raises UsageError."""
        return self.checkout.matrix()

    @cached_property
    def variants(self) -> Variants:
        """All variants of the matrix, those that can be and those that cannot."""
        return make_variants(self.matrix)

    @cached_property
    def lock_states(self) -> Mapping[str, LockState]:
        """Lock name -> its state."""
        return lock_states(self.matrix, self.checkout.locks)

    @cached_property
    def locked(self) -> dict[str, bool]:
        """Lock name -> whether it is there, whole and as the matrix has its pins."""
        return {name: state == "locked" for name, state in self.lock_states.items()}

    @cached_property
    def assessments(self) -> Assessments:
        """advisories.yaml and what it means for each variant; it is read when the first one is asked for."""
        from images.advisories import Assessments

        return Assessments(self.checkout, self.matrix, self.variants)

    @cached_property
    def site(self) -> SiteSettings:
        """The files of this site: CA, mirrors, indexes. Raises UsageError."""
        return read_site(self.checkout.settings, self.environment)

    @cached_property
    def ca(self) -> Path | None:
        """The CA bundle that this site's connections are checked by."""
        from images.docker import ca_bundle

        return ca_bundle(self.site.ca)

    @cached_property
    def engine(self) -> Engine:
        """The Docker engine, started if it is the embedded one. Raises EngineUnreachable."""
        if self.connect is not None:
            return self.connect()
        from images.docker import connect  # docker-py is slow to import, and most commands need none

        return connect(say=self.report.line)

    @cached_property
    def machine(self) -> LocalMachine:
        """The cards and the driver of this machine, as NVML tells them; without a card a value too."""
        from images.cards import read_machine

        return read_machine()

    def require_engine(self) -> None:
        """See that an engine is there or could be, before what takes long. Raises EngineUnreachable."""
        if self.connect is None and "engine" not in self.__dict__:
            from images.docker import require_engine

            require_engine()

    def running_engine(self) -> Engine | None:
        """The engine if one answers; none is started."""
        try:
            if self.connect is not None:
                return self.connect()
            from images.docker import connect

            return connect(start=False)
        except EngineUnreachable:
            return None

    @cached_property
    def way_to_cards(self) -> Way:
        """How the engine that answers gives containers cards, for lines that are printed; "" where none answers."""
        engine = self.running_engine()
        return engine.way_to_cards if engine else ""

    def repository(self, name: str) -> Repository:
        """A repository of a registry, asked with this site's CA."""
        from images.registry import Repository

        return Repository(name, ca=self.ca, say=self.report.line)

    def named_repository(self, name: str, flag: str) -> Repository:
        """The repository that ``flag`` names, or $CARDSTOCK_REPOSITORY. Raises UsageError where neither does."""
        name = name or self.environment.get(REPOSITORY, "")
        if not name:
            raise UsageError(
                "no repository is named", do=f"say which: {flag} registry.example.com/team/qwen, or set {REPOSITORY}"
            )
        return self.repository(name)

    def having(self, **known: Any) -> Context:
        """A copy in which these are known too, such as another matrix: they are not read again."""
        return replace(self, known={**self.known, **known})
