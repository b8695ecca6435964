"""What transformers finds out at every import, kept when the image is built.

Transformers reads the source of each of its models, some 2500 files, to learn which module has which name. That is a
tenth of the processor time of importing vLLM, and a third of the files that a cold start opens. It also asks which
package each module of the whole environment came with, which reads the files of all packages: half a second. `record`
keeps the answers in FILE when build/class-facts asks; `replay` gives them, if they are of this very transformers, and
of these very packages.

Source: define_import_structure and PACKAGE_DISTRIBUTION_MAPPING in transformers/utils/import_utils.py, called by
transformers/__init__.py (5.19, 5.24), transformers/models/__init__.py, and in 4.51.3, which knows no prefix, by each
model's own package. A transformers that has no such function is left as it is.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).with_name("import_structure.bin")
MODULE, FUNCTION = "transformers.utils.import_utils", "define_import_structure"
# Answers, as marshal writes them, by the arguments of the call: a path, and a prefix if there is one.
Question = tuple[str, ...]
Answers = dict[Question, bytes]
# The package of each module, and the packages that this was found in.
Distributions = tuple[list[str], dict[str, list[str]]]
NONE: Distributions = ([], {})
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Finder:
    """Finds MODULE as Python does; once it has been executed, its FUNCTION is wrapped.

    While it is executed, it gets ``distributions`` for an answer where the packages beside it are still those.
    """

    def __init__(self, wrap: Wrap, distributions: Distributions = NONE) -> None:
        self._wrap, self._distributions = wrap, distributions

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _known(self._distributions, Path(str(spec.origin)).parents[2]):
                    execute(module)
                if callable(original := getattr(module, FUNCTION, None)):
                    setattr(module, FUNCTION, self._wrap(original))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def record(file: Path = FILE) -> None:
    """Import transformers and keep what it found out; nothing where it asked nothing.

    Raises OSError, and ValueError for an answer of other types than Python's own.
    """
    answers: Answers = {}

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            found = original(*arguments, **named)
            answers[_question(arguments, named)] = marshal.dumps(found)  # now: the caller changes what it gets
            return found

        return asked

    sys.meta_path.insert(0, _Finder(wrap))
    import transformers  # type: ignore[import-not-found,unused-ignore]
    import transformers.models  # type: ignore[import-not-found,unused-ignore]

    if answers:
        there = _packages(Path(str(transformers.__file__)).parents[1])
        found = {name: list(packages) for name, packages in metadata.packages_distributions().items()}
        file.write_bytes(marshal.dumps((sys.version, transformers.__version__, answers, (there, found))))


def replay(file: Path = FILE) -> None:
    """Let transformers, not imported yet, have the answers that were kept; whatever it asks beyond, it finds out."""

    answers, distributions = _read(file)

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            known = answers.get(_question(arguments, named))
            return original(*arguments, **named) if known is None else marshal.loads(known)  # noqa: S302

        return asked

    if answers:
        sys.meta_path.insert(0, _Finder(wrap, distributions))


@contextmanager
def _known(distributions: Distributions, folder: Path) -> Iterator[None]:
    """Python's own look at all packages is not made meanwhile, where it would find what is known."""
    there, found = distributions
    if not there or there != _packages(folder):
        yield
        return
    look = metadata.packages_distributions
    metadata.packages_distributions = lambda: {name: list(packages) for name, packages in found.items()}
    try:
        yield
    finally:
        metadata.packages_distributions = look


def _packages(folder: Path) -> list[str]:
    """The packages that are installed in a folder, with their versions: the names of what tells of them."""
    return sorted(one.name for one in folder.iterdir() if one.suffix in {".dist-info", ".egg-info"})


def _question(arguments: Sequence[Any], named: Mapping[str, Any]) -> Question:
    return (*map(str, arguments), *(f"{name}={named[name]}" for name in sorted(named)))


def _read(file: Path) -> tuple[Answers, Distributions]:
    """The answers; none where they are of another Python or transformers."""
    try:
        python, told, answers, distributions = marshal.loads(file.read_bytes())  # noqa: S302  (the image's own file)
        if (python, told) == (sys.version, metadata.version("transformers")):
            return answers, distributions
    except (OSError, ValueError, EOFError, TypeError, metadata.PackageNotFoundError):
        pass
    return {}, NONE


if __name__ == "__main__":
    record()
