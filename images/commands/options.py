"""From what was typed to a command's options: invoke's flags are made of the options class, and the other way round."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from invoke.parser.argument import Argument
from invoke.tasks import Task

from images.context import Context
from images.core import Report, as_typed, discard_stdout, ends_as_interrupts, exit_code_of, print_error
from images.core.options import Flag, flags_of, option
from images.matrix import Selectors, Variant, driver_lines, read_selectors, select
from images.render import checkout_at

ROOT = Path(__file__).resolve().parents[2]
DEBUG = Flag("debug", "debug", False, "show the traceback of an error")
JSON = "machine-readable, on stdout alone"
WHEELS = "a registry's repository with kernel wheels: fetched before anything is compiled"
T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """Of a command without flags."""


@dataclass(frozen=True)
class SelectorOptions:
    """Which variants: the selectors, the same for every command that has them."""

    archs: Sequence[str] = option(
        "compute capability, such as 7.5; repeat for more images; '7.0 7.5' is one image for both", (), flag="arch"
    )
    only: Sequence[str] = option("glob on variant ids; repeat for more", ())
    cards: Sequence[str] = option(
        "a card's name, such as 'RTX 2080 Ti'; repeat for more images; 'T4, RTX 4090' is one image for both",
        (),
        flag="card",
    )
    cuda: str = option("CUDA version of the stack, such as 12.4", "")
    attention: str = option("flash-attn, xformers, sdpa, triton or flashinfer", "")
    all: bool = option("every variant that the other selectors allow, not only the recommended one", False)
    driver: str = option(
        "the driver that the images must run on, such as 535 or 535.104.05; without it, this machine's own", ""
    )

    def selectors(self, context: Context) -> Selectors:
        """As the matrix understands them. Raises UsageError, NoImageFits for a card that no image can serve.

        Where archs or cards are named, and neither a driver nor variants, this machine's driver is asked for.
        """
        archs = list(self.archs)
        if self.cards:
            from images.cards import archs_of  # its list of cards takes half a second, and most commands need none

            archs += archs_of(self.cards, context.report)
        wanted = read_selectors(
            context.matrix,
            archs,
            self.cuda or None,
            self.attention or None,
            self.only,
            every=self.all,
            driver=self.driver or None,
        )
        if wanted.driver or wanted.only or wanted.all or not wanted.archs:
            return wanted
        return replace(wanted, here=context.machine.known_driver)

    def select(self, context: Context) -> tuple[Variant, ...]:
        """The chosen variants, in the matrix's order; says by which driver they were chosen.

        Raises UsageError, NoImageFits, NothingSelected.
        """
        wanted = self.selectors(context)
        chosen = select(context.matrix, context.variants, wanted, context.locked)
        say_driver(context, wanted)
        return chosen


@dataclass(frozen=True)
class FormOptions(SelectorOptions):
    """Which variants, and in which form: as they are, or with all of NVIDIA's libraries."""

    whole: bool = option("with NVIDIA's libraries as they are, for code of your own: names end in -whole", False)

    def chosen(self, context: Context) -> tuple[Variant, ...]:
        """The selected variants, with ``whole`` each with all of NVIDIA's libraries. Raises as `select` does."""
        selected = self.select(context)
        return tuple(variant.as_whole() for variant in selected) if self.whole else selected


def say_driver(context: Context, wanted: Selectors) -> None:
    """Say by which driver is chosen, and what to type for another."""
    for line in driver_lines(context.matrix, context.variants, wanted, context.locked):
        context.report.line(line)


def this_context() -> Context:
    """The context of this checkout, or of the installed part of one, for one command."""
    return Context(checkout_at(ROOT), Report())


class Command(Task[Callable[..., None]]):
    """An invoke task that knows its flags; without `--debug`, which every command has.

    ``example`` is what one may type behind the program's name.
    """

    flags: Sequence[Flag] = ()
    example: str = ""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """As invoke does; but its own takes the help texts away with the first use, and they are asked for twice."""
        texts = dict(self.help)
        try:
            return list(super().get_arguments(ignore_unknown_help))
        finally:
            self.help = texts

    def arg_opts(self, name: str, default: Any, taken_names: set[str]) -> dict[str, Any]:
        """As invoke does; but its own makes a name's "-" a short flag where no letter is left: "--"."""
        told: dict[str, Any] = super().arg_opts(name, default, taken_names | {"-"})
        return told


def command(example: str) -> Callable[[Callable[[Context, Any], None]], Command]:
    """The invoke task of a command: its name and help text are the function's, its flags those of its ``options``.

    Its help begins with ``example``, such as "pull --from registry.example.com/team/qwen".
    """

    def make(action: Callable[[Context, Any], None]) -> Command:
        options = get_type_hints(action)["options"]
        flags = [*flags_of(options), DEBUG]

        def body(_: object, **typed: Any) -> None:
            debug = typed.pop(DEBUG.field)
            given = {flag: typed[_parameter(flag)] for flag in flags if flag is not DEBUG}
            values = {flag.field: tuple(value) if flag.repeated else value for flag, value in given.items()}
            run(lambda: action(this_context(), options(**values)), debug)

        body.__name__, body.__doc__ = action.__name__.rstrip("_"), action.__doc__
        setattr(body, "__signature__", _signature(flags))  # noqa: B010  (mypy knows no such attribute of a function)
        made = Command(
            body,
            iterable=[_parameter(flag) for flag in flags if flag.repeated],
            positional=[_parameter(flag) for flag in flags if flag.positional],
            help={flag.name: as_typed(flag.help) for flag in flags},
        )
        made.flags = [flag for flag in flags if flag is not DEBUG]
        made.example = example
        return made

    return make


def _parameter(flag: Flag) -> str:
    """The name of the flag as invoke wants it of a function's parameter."""
    name = flag.name.replace("-", "_")
    return f"{name}_" if iskeyword(name) else name


def _signature(flags: Sequence[Flag]) -> inspect.Signature:
    def parameter(flag: Flag) -> inspect.Parameter:
        default = inspect.Parameter.empty if flag.repeated or flag.positional else flag.default
        return inspect.Parameter(_parameter(flag), inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)

    context = inspect.Parameter("c", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # invoke takes repeated flags without a default; a signature wants them before those that have one.
    return inspect.Signature([context, *sorted(map(parameter, flags), key=lambda one: one.default is not one.empty)])


def run(action: Callable[[], None], debug: bool = False) -> None:
    """Do it; tell an error in the product's form and exit with its code."""
    try:
        with ends_as_interrupts():
            action()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("stopped; run the same again to go on from here\n")
        sys.exit(exit_code_of(interrupt))
    except Exception as error:
        code = print_error(error, debug=debug)
        try:
            sys.stdout.flush()
        except OSError:  # what it goes to is full; Python's own attempt at the end would say so a second time
            discard_stdout()
        sys.exit(code)


def print_json(data: Any) -> None:
    """Data to stdout, with commands as this program has them."""
    sys.stdout.write(as_typed(json.dumps(data, indent=1), told=False) + "\n")
