"""`./inv` and `cardstock`: invoke, with this project's exit code and form for what was typed wrong.

`bench NAME` goes without a flag, the help of a command begins with an example, and completion is a script of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence

from invoke.collection import Collection as TaskCollection
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from images import __version__
from images.commands.completion import completion_script, without_completion
from images.commands.words import check_words, unknown_flag
from images.core import IN_CHECKOUT, SOURCE, UsageError, as_typed, closest, discard_stdout, print_error, program_name

# Commands whose first word may go without its flag.
_SPELLED = {"bench": "--name", "load": "--dir"}


def spelled_out(words: Sequence[str]) -> list[str]:
    """invoke has no optional word after a task, `bench plan` would be two tasks: the word becomes a flag's value."""
    out = list(words)
    if len(out) > 1 and out[0] in _SPELLED and not out[1].startswith("-"):
        out[1:2] = [_SPELLED[out[0]], out[1]]
    return out


def told(
    message: str, tasks: Sequence[str], context: ParserContext | None, elsewhere: Collection[str] = ()
) -> UsageError:
    """What invoke's parser did not understand, with the nearest that it would; ``elsewhere`` only a checkout has."""
    unknown = re.search(r"No idea what '([^']+)' is", message)
    if unknown is None:
        return UsageError(message, do="./inv --list shows the tasks, ./inv --help TASK their flags")
    word = unknown[1]
    if word.startswith("-") and context is not None and context.name:
        return unknown_flag(word, context)
    if word in elsewhere:
        return UsageError(
            f"{word} is a command of a checkout, and this is the installed {program_name()}",
            do=f"git clone {SOURCE}, and there ./inv {word}",
        )
    return UsageError(f"there is no task {word!r}", do=f"nearest: {closest(word, tasks)}. All of them: ./inv --list")


class Inv(Program):
    """invoke's program; a word it does not understand is a usage error, exit code 2."""

    elsewhere: Collection[str] = ()
    completed: str = ""

    def parse_core(self, argv: list[str] | None) -> None:
        """As invoke does; the script of completion is of this project, and waits until the tasks are known."""
        words, self.completed = without_completion(argv or [])
        super().parse_core(words)

    def parse_collection(self) -> None:
        """As invoke does; then the script of completion, where that was asked for."""
        super().parse_collection()
        if self.completed:
            try:
                script = completion_script(self.completed, self.binary, self.collection.tasks.values())
            except UsageError as error:
                raise Exit(f"error: {error}", code=error.exit_code) from error
            print(script, end="")
            raise Exit

    def parse_tasks(self) -> None:
        """As invoke does, with the error told in this project's form."""
        parser = self._make_parser()
        try:
            asked = check_words(self.core.unparsed, parser.contexts, self.initial_context)
        except UsageError as error:
            raise Exit(as_typed(f"error: {error}"), code=error.exit_code) from error
        if asked:
            self.parser = parser
            self.print_task_help(asked)
            raise Exit
        try:
            super().parse_tasks()
        except ParseError as error:
            tasks = sorted(self.collection.task_names)
            mistake = told(str(error), tasks, getattr(error, "context", None), self.elsewhere)
            raise Exit(as_typed(f"error: {mistake}"), code=mistake.exit_code) from error

    def print_task_help(self, name: str) -> None:
        """An example, what the command does, its flags."""
        task = self.collection[name]
        print(f"{program_name()} {getattr(task, 'example', name)}\n")
        print(f"{(task.__doc__ or '').strip()}\n")
        print("Options:")
        self.print_columns(self.parser.contexts[name].help_tuples())


def run_program(name: str, collection: TaskCollection | None = None, elsewhere: Collection[str] = ()) -> None:
    """Run the typed words as ``name`` ("./inv" or "cardstock"): of the tasks of this folder, or of ``collection``.

    ``elsewhere`` are commands that it does not have, and a checkout has.
    """
    try:
        program = Inv(version=__version__, namespace=collection, name="Cardstock", binary=name)
        program.elsewhere = elsewhere
        program.run([name, *spelled_out(sys.argv[1:])])
        sys.stdout.flush()
    except BrokenPipeError:  # invoke's own lists
        discard_stdout()
    except OSError as error:
        code = print_error(error)
        discard_stdout()
        sys.exit(code)


def main() -> None:
    """Run the tasks of the folder this is started in."""
    run_program(IN_CHECKOUT)


if __name__ == "__main__":
    main()
