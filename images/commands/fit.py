"""`invoke fit`: how a model is served on cards."""

from __future__ import annotations

import shlex
from pathlib import Path

from images.cards import LocalMachine
from images.commands.options import command, print_json
from images.context import Context
from images.core import print_out
from images.docker import Way, docker_line, spec_by_way
from images.matrix import Matrix
from images.run.fit import Fit, FitOptions, cluster_words, find_fit, fit_json, fit_lines, plan_words, shell_note
from images.run.serve import PLACES, Options, Source, asked_model, make_spec


@command("fit --model 7b-awq --card 'RTX 4090'")
def fit(context: Context, options: FitOptions) -> None:
    """How a model is served on cards: settings with reasons, memory line by line; or why it cannot be."""
    show_fit(context, options)


def show_fit(context: Context, options: FitOptions, machine: LocalMachine | None = None) -> None:
    """Print how it is served, or raise why it cannot be: NoImageFits with the nearest that can, UsageError for words.

    ``machine`` stands in for this one.
    """
    model = asked_model(options.model, context.environment, context.ca, context.report.line, options.config)
    fitted = find_fit(context, options, machine, model)
    way = "" if options.cards else context.way_to_cards
    lines = lines_to_type(fitted, context.matrix, options, way)
    if options.json:
        print_json(fit_json(fitted, lines))
        return
    print_out("\n".join(fit_lines(fitted)))
    if not options.cards and (note := shell_note(fitted.ask.variant, context.environment)):
        context.report.line(f"note: {note}", "yellow")
    if fitted.ask.nodes > 1:
        context.report.line(f"hosts.yaml: each host has {hosts_words(fitted)}")
        context.report.next_command(lines[0], "hosts.yaml names the machines")
        return
    context.report.line(lines[0])
    context.report.next_command(serve_command(fitted, options))


def lines_to_type(fitted: Fit, matrix: Matrix, options: FitOptions, way: Way = "") -> list[str]:
    """The docker line of the container that `invoke serve` would start; of several machines, what starts them.

    ``way`` is how the engine gives cards.
    """
    if fitted.ask.nodes > 1:
        config = ["--config", options.config] if options.config else []
        words = ["./inv", "cluster", "--hosts", "hosts.yaml", "--model", options.model, *config]
        return [shlex.join([*words, *cluster_words(fitted.ask)])]
    path, repository = _folder(options.model), fitted.ask.model.source
    source = Source(Path(path).name, path) if path else Source(repository, repository=repository)
    if not path and not repository:
        source = Source(fitted.ask.model.name, f"{PLACES}/{fitted.ask.model.name}")
    image = f"{matrix.image}:{fitted.ask.variant.id}"
    spec = make_spec(fitted.ask.variant, image, source, fitted.ask.model, fitted, Options())
    return [docker_line(spec_by_way(spec, way))]


def serve_command(fitted: Fit, options: FitOptions) -> str:
    """What starts it on the machine that it is for; what only prints it where no repository holds the model."""
    printed = [] if _folder(options.model) or fitted.ask.model.source else ["--print"]
    place = _folder(options.model) or options.model
    config = ["--config", options.config] if options.config else []
    return shlex.join(["./inv", "serve", *printed, "--model", place, *config, *plan_words(fitted.ask)])


def hosts_words(fitted: Fit) -> str:
    """The cards of each host as hosts.yaml names them."""
    on = fitted.ask.on
    memory = f", memory: {on.stated:g}" if on.stated else ""
    return f"card: {on.text if on.mixed else on.kinds[0].name}{memory}, devices: {list(range(on.count))}"


def _folder(model: str) -> str:
    """The folder that a model's text names, or that of its config.json; "" for a name."""
    path = Path(model).expanduser()
    return str((path if path.is_dir() else path.parent).resolve()) if path.exists() else ""
