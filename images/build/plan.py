"""The plan of a command: the chosen variants, what they share, and what is there of them already. Worked out once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from images.build.job import ImageState, Job, make_job, state_of_image
from images.context import Context
from images.core import UsageError
from images.docker import Engine, ImageFacts
from images.kernels import Need, needs_of
from images.matrix import Kernel, Variant, make_variants, parse_arch
from images.render import STAGING, VARIANT, Templates, compile_templates


@dataclass(frozen=True)
class Plan:
    """What a command is about to do.

    ``images`` are those of the engine by tag, None where no engine was asked; ``staged`` are the working names of
    images that wait for their proof. Both are what was there when the plan was made. A job is made when it is first
    asked for: it reads the files that its image is made of.
    """

    context: Context
    variants: tuple[Variant, ...]
    images: Mapping[str, ImageFacts] | None
    staged: frozenset[str] = frozenset()
    _jobs: dict[str, Job] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _templates(self) -> Templates:
        return compile_templates(self.context.checkout.templates())

    def job(self, variant: Variant) -> Job:
        """What builds a variant."""
        if variant.id not in self._jobs:
            state = self.context.lock_states[variant.lock]
            made = make_job(self.context.checkout, self.context.matrix, self._templates, variant, state)
            self._jobs[variant.id] = made
        return self._jobs[variant.id]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What builds each of the variants."""
        return tuple(self.job(variant) for variant in self.variants)

    def state(self, variant: Variant) -> ImageState:
        """What the engine's image of a variant is to its inputs."""
        if self.images is None:
            return ImageState.UNKNOWN
        there = self.images.get(f"{self.context.matrix.image}:{variant.id}")
        return ImageState.ABSENT if there is None else state_of_image(self.job(variant), there.labels)

    def to_do(self, *, proof: bool = True) -> tuple[Job, ...]:
        """The jobs whose image is not as it should be: proven, or without ``proof`` at least built of these inputs."""
        enough = {ImageState.PROVEN} if proof else {ImageState.PROVEN, ImageState.UNPROVEN}
        return tuple(job for job in self.jobs if self.state(job.variant) not in enough)

    def to_build(self, jobs: Iterable[Job]) -> tuple[Job, ...]:
        """Those of ``jobs`` that no image on the engine stands for, not even one that waits for its proof."""
        return tuple(job for job in jobs if job.staging not in self.staged)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernel wheels that the variants need; one that several share is there once."""
        return tuple(dict.fromkeys(variant.kernel for variant in self.variants if variant.kernel))

    @property
    def needs(self) -> tuple[Need, ...]:
        """The kernel wheels with their keys."""
        return needs_of(self.kernels, self.context.checkout.locks, self.context.lock_states)

    @property
    def unlocked(self) -> tuple[Variant, ...]:
        """Variants whose stack has no whole lock: they may be built here, and are never published."""
        return tuple(variant for variant in self.variants if not self.context.locked[variant.lock])

    def on(self, engine: Engine) -> Plan:
        """The same plan with what ``engine`` has of it; the engine is asked for its images once."""
        images = {tag: facts for facts in engine.images(VARIANT) for tag in facts.tags}
        return replace(self, images=images, staged=engine.tags(STAGING))

    def only(self, ids: Collection[str]) -> Plan:
        """The plan for these variants alone."""
        return replace(self, variants=tuple(variant for variant in self.variants if variant.id in ids))


def make_plan(context: Context, variants: Iterable[Variant], engine: Engine | None) -> Plan:
    """The plan for these variants, on ``engine`` if there is one."""
    plan = Plan(context, tuple(variants), None)
    return plan if engine is None else plan.on(engine)


def input_hashes(context: Context, ids: Iterable[str]) -> dict[str, str]:
    """Variant -> hash of the inputs that its image is made of today, for those of ``ids`` that the matrix has.

    An image for several archs is looked for in the matrix with these as a family of its own, too: records of acting
    name such (docs/acting.md).
    """
    contexts = {name: context if context.variants.named(name) else _with_family_of(context, name) for name in ids}
    return {
        name: make_plan(own, (variant,), None).job(variant).input_hash
        for name, own in contexts.items()
        if (variant := own.variants.named(name))
    }


def _with_family_of(context: Context, name: str) -> Context:
    """The context with one family more, the archs that a variant's name ends with; as it is where that has not several,
    or one that no card has.
    """
    archs = re.search(r"-sm(\d+(?:_\d+)+)$", name)
    if not archs:
        return context
    try:
        family = [parse_arch(number).capability for number in archs[1].split("_")]
    except UsageError:
        return context
    matrix = context.matrix.model_copy(update={"families": [*context.matrix.families, family]})
    return context.having(matrix=matrix, variants=make_variants(matrix))
