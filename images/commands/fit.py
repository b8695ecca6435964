"""`invoke fit`: how a model is served on cards."""

from __future__ import annotations

import shlex
from pathlib import Path

from images.cards import LocalMachine
from images.commands.options import command, print_json
from images.context import Context
from images.docker import docker_line
from images.matrix import Matrix
from images.run.fit import Fit, FitOptions, find_fit, fit_json, fit_lines
from images.run.serve import Options, Source, asked_model, make_spec


@command
def fit(context: Context, options: FitOptions) -> None:
    """How a model is served on cards: settings with reasons, memory line by line; or why it cannot be."""
    show_fit(context, options)


def show_fit(context: Context, options: FitOptions, machine: LocalMachine | None = None) -> None:
    """Print how it is served, or raise why it cannot be: NoImageFits with the nearest that can, UsageError for words.

    ``machine`` stands in for this one.
    """
    model = asked_model(options.model, context.environment, context.ca, context.report.line, options.config)
    fitted = find_fit(context, options, machine, model)
    lines = lines_to_type(fitted, context.matrix, options.model)
    if options.json:
        print_json(fit_json(fitted, lines))
        return
    print("\n".join(fit_lines(fitted)))
    if fitted.ask.nodes > 1:
        context.report.next_command(lines[0], "hosts.yaml names the machines")
        return
    context.report.line(lines[0])
    context.report.next_command(serve_command(fitted, options))


def lines_to_type(fitted: Fit, matrix: Matrix, model: str) -> list[str]:
    """The docker line of the container that `invoke serve` would start; of several machines, what starts them."""
    path = Path(model).expanduser()
    folder = str((path if path.is_dir() else path.parent).resolve()) if path.exists() else ""
    if fitted.ask.nodes > 1:
        return [shlex.join(["./inv", "cluster", "--hosts", "hosts.yaml", "--model", model])]
    repository = fitted.ask.model.source
    source = Source(Path(folder).name, folder) if folder else Source(repository, repository=repository)
    if not folder and not repository:
        source = Source(fitted.ask.model.name, f"/path/to/{fitted.ask.model.name}")
    image = f"{matrix.image}:{fitted.ask.variant.id}"
    return [docker_line(make_spec(fitted.ask.variant, image, source, fitted.ask.model, fitted, Options()))]


def serve_command(fitted: Fit, options: FitOptions) -> str:
    """What starts it on the machine that it is for."""
    words = ["./inv", "serve", "--model", options.model]
    words += ["--config", options.config] if options.config else []
    words += [word for card in options.cards for word in ("--card", card)]
    words += ["--gpus", str(fitted.ask.count)] if options.count > 1 else []
    return shlex.join([*words, *(["--variant", options.variant] if options.variant else [])])
