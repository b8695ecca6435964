"""`./inv`: invoke, with this project's exit code and form for what was typed wrong; `bench NAME` without a flag."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from images import __version__
from images.commands.words import check_words, unknown_flag
from images.core import UsageError, closest, discard_stdout, print_error

# Commands whose first word may go without its flag.
_SPELLED = {"bench": "--name", "load": "--dir"}


def spelled_out(words: Sequence[str]) -> list[str]:
    """invoke has no optional word after a task, `bench plan` would be two tasks: the word becomes a flag's value."""
    out = list(words)
    if len(out) > 1 and out[0] in _SPELLED and not out[1].startswith("-"):
        out[1:2] = [_SPELLED[out[0]], out[1]]
    return out


def told(message: str, tasks: Sequence[str], context: ParserContext | None) -> UsageError:
    """What invoke's parser did not understand, with the nearest that it would."""
    unknown = re.search(r"No idea what '([^']+)' is", message)
    if unknown is None:
        return UsageError(message, do="./inv --list shows the tasks, ./inv --help TASK their flags")
    word = unknown[1]
    if word.startswith("-") and context is not None and context.name:
        return unknown_flag(word, context)
    return UsageError(f"there is no task {word!r}", do=f"nearest: {closest(word, tasks)}. All of them: ./inv --list")


class Inv(Program):
    """invoke's program; a word it does not understand is a usage error, exit code 2."""

    def parse_tasks(self) -> None:
        """As invoke does, with the error told in this project's form."""
        parser = self._make_parser()
        try:
            asked = check_words(self.core.unparsed, parser.contexts, self.initial_context)
        except UsageError as error:
            raise Exit(f"error: {error}", code=error.exit_code) from error
        if asked:
            self.parser = parser
            self.print_task_help(asked)
            raise Exit
        try:
            super().parse_tasks()
        except ParseError as error:
            tasks = sorted(self.collection.task_names)
            mistake = told(str(error), tasks, getattr(error, "context", None))
            raise Exit(f"error: {mistake}", code=mistake.exit_code) from error


def main() -> None:
    """Run the tasks of the folder this is started in."""
    try:
        Inv(version=__version__, name="Cardstock", binary="inv").run(["inv", *spelled_out(sys.argv[1:])])
        sys.stdout.flush()
    except BrokenPipeError:  # invoke's own lists
        discard_stdout()
    except OSError as error:
        code = print_error(error)
        discard_stdout()
        sys.exit(code)


if __name__ == "__main__":
    main()
