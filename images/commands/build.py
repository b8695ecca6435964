"""`invoke build`: build, prove and tag the chosen images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from images.build import AtBuilder, BuildSettings, BuiltImage, Plan, build_images, describe, make_plan
from images.commands.options import BUILDER, CACHE, WHEELS, FormOptions, command, print_json
from images.context import Context
from images.core import CheckFailed, UsageError, default_layout, print_out
from images.core.options import option
from images.distribution import Packed, remember
from images.docker import docker_line, find_builder, spec_by_way
from images.registry import Packing, Repository
from images.render import GENERATED, differences
from images.run.serve import spec_without_model


@dataclass(frozen=True)
class BuildOptions(FormOptions):
    """What `invoke build` was asked."""

    dry_run: bool = option("print the bake plan, touch nothing", False)
    no_smoke: bool = option("do not prove", False)
    gpus: str = option("prove on cards: all", "")
    wheels: str = option(WHEELS, "")
    builder: str = option(BUILDER, "")
    to: str = option("with --builder: the repository that it pushes to (or $CARDSTOCK_REPOSITORY)", "")
    cache: str = option(CACHE, "")

    def settings(self, context: Context) -> BuildSettings:
        """As the build takes it, without a builder. Raises UsageError for what goes with one alone."""
        if self.to and not self.builder:
            raise UsageError("--to is for --builder", do="./inv publish --to REPO; or --builder NAME")
        check_cache(self.builder, self.cache)
        wheels = context.repository(self.wheels) if self.wheels else None
        return BuildSettings(smoke=not self.no_smoke, gpus=self.gpus or None, wheels=wheels)


def check_cache(builder: str, cache: str) -> None:
    """Raises UsageError for a cache without a builder that could write it."""
    if cache and not builder:
        raise UsageError(
            "--cache is for --builder",
            cause="an engine's own builder exports no cache (buildx: not supported for the docker driver)",
            do="docker buildx create --name NAME --driver docker-container, then --builder NAME",
        )


def at_builder(
    context: Context, builder: str, repository: Repository, cache: str, packing: Packing = "gzip"
) -> AtBuilder:
    """The builder of this name, and what it is told. Raises UsageError, EngineUnreachable."""
    kept = context.repository(cache).name if cache else ""
    return AtBuilder(find_builder(builder, context.engine), repository, packing, kept)


@command("build --card 'RTX 2080 Ti'")
def build(context: Context, options: BuildOptions) -> None:
    """Build, prove and tag images; what is up to date is left alone."""
    if options.dry_run:
        show_what_would_be_built(context, options)
    else:
        build_chosen(context, options)


def show_what_would_be_built(context: Context, options: BuildOptions) -> None:
    """Print the bake plan as JSON, and a line for each image and kernel. No engine is asked, nothing is touched."""
    from images.commands.kernels import Wheels, describe_wheels
    from images.kernels import default_store
    from images.render import bake_plan

    plan = make_plan(context, options.chosen(context), None)
    print_json(bake_plan(context.matrix, {job.variant: job.tags for job in plan.jobs}))
    for job in plan.jobs:
        context.report.line(f"would build {describe(job)}")
    wheels = Wheels(default_store(), options.settings(context).wheels, context.report)
    describe_wheels(wheels, plan.needs)


def build_chosen(context: Context, options: BuildOptions) -> None:
    """Build what is not there, print the names of all, and how one of them is run."""
    plan = make_plan(context, options.chosen(context), None)
    settings = options.settings(context)
    check_rendered(context, plan)
    if options.builder:
        repository = context.named_repository(options.to, "--to")
        settings = replace(settings, at=at_builder(context, options.builder, repository, options.cache))
    built = build_images(context, plan.on(context.engine), settings)
    for one in built:
        remember(context.engine, Packed(default_layout().home / "packed"), "gzip", one)
    if any(one.outcome == "built" for one in built):
        context.engine.keep_under_limit(say=context.report.line)
    for one in built:
        print_out(one.job.tags[0])
    print_next(context, built)


def check_rendered(context: Context, plan: Plan) -> None:
    """Raise CheckFailed where the committed Dockerfiles are not what matrix.yaml says."""
    wanted = {f"{GENERATED}/{job.variant.plain.id}/Dockerfile": job.dockerfile for job in plan.jobs}
    stale = differences(wanted, context.checkout.generated())
    if wrong := [line for line in stale if not line.startswith("left over")]:
        raise CheckFailed(
            "the rendered Dockerfiles are not what matrix.yaml says", cause="; ".join(wrong), do="./inv render"
        )


def print_next(context: Context, built: Sequence[BuiltImage]) -> None:
    """The command that serves a model with the first image."""
    first, engine = built[0].job, context.engine
    spec = spec_without_model(first.tags[0], cards=bool(first.variant.cuda))
    context.report.next_command(
        docker_line(spec_by_way(spec, engine.way_to_cards) if first.variant.cuda else spec, foreground=True),
        "an OpenAI-compatible server on port 8000"
        + (f"; export DOCKER_HOST={engine.endpoint} first" if engine.embedded else ""),
    )
