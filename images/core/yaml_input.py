"""YAML that people write, read within bounds of size, depth and count; every error names file and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from images.core.errors import UsageError
from images.core.report import human_bytes

MOST_YAML_BYTES = 4 << 20
MOST_YAML_VALUES = 200_000  # matrix.yaml has about 5,000
MOST_DEPTH = 60  # of lists and mappings within each other; matrix.yaml has 7

# libyaml's, where PyYAML has it: every command reads matrix.yaml, and it takes a tenth of the time.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose_yaml(text: str, name: str, do: str = "") -> yaml.Node | None:
    """The nodes of one YAML document, which may use aliases; ``do`` is the remedy of an error.

    Raises UsageError with the line for what is no YAML, too large, too many values, nested too deep or in itself.
    """
    if len(text) > MOST_YAML_BYTES:
        raise UsageError(f"{name} is too large", cause=f"it has more than {human_bytes(MOST_YAML_BYTES)}", do=do)
    try:
        _check_events(text, name, do)
        node: yaml.Node | None = yaml.compose(text, Loader=YAML_LOADER)
        return node
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of a \U escape beyond Unicode
        mark = getattr(error, "problem_mark", None)
        raise UsageError(
            f"{name} is not YAML: {getattr(error, 'problem', None) or error}",
            do=do,
            where=f"{name}:{mark.line + 1}" if mark else name,
        ) from error


def _check_events(text: str, name: str, do: str) -> None:
    """Refuse what is too deep or too much. An alias counts as all that it stands for: ten can be a billion values."""
    open_ones: list[_Collection] = []
    closed: dict[str, _Collection] = {}
    total = 0
    for event in yaml.parse(text, Loader=YAML_LOADER):
        where = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        if isinstance(event, yaml.CollectionEndEvent):
            done = open_ones.pop()
            done.values, done.height = total - done.values, done.height + 1
            if open_ones:
                open_ones[-1].height = max(open_ones[-1].height, done.height)
        height = 0
        if isinstance(event, yaml.NodeEvent):
            total += 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append(_Collection(values=total))
            if event.anchor:
                closed[event.anchor] = open_ones[-1]
        elif isinstance(event, yaml.AliasEvent) and (meant := closed.get(event.anchor or "")):
            if meant in open_ones:
                raise UsageError(f"{name}: the alias *{event.anchor} stands for what it is part of", do=do, where=where)
            total, height = total + meant.values, meant.height
            open_ones[-1].height = max(open_ones[-1].height, height)
        if len(open_ones) + height > MOST_DEPTH:
            raise UsageError(f"{name} is nested too deep", cause=f"more than {MOST_DEPTH} levels", do=do, where=where)
        if total > MOST_YAML_VALUES:
            raise UsageError(f"{name} has too many values", cause=f"more than {MOST_YAML_VALUES}", do=do, where=where)


@dataclass(eq=False)
class _Collection:
    """A list or mapping: while it is open the count of values before it, then its own; how deep it goes."""

    values: int
    height: int = 0


def scalar(node: yaml.Node, name: str) -> Any:
    """The plain value of a scalar. Raises UsageError with the line for one that its tag does not allow."""
    where = f"{name}:{node.start_mark.line + 1}"
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise UsageError(f"{name}: {problem}", do="write a plain value, without a tag", where=where) from error
    except (ValueError, OverflowError) as error:  # !!int x; 2026-02-31; a number of thousands of digits
        raise UsageError(
            f"{name}: {str(node.value)[:40]!r} is no value: {error}", do="quote it if it is text", where=where
        ) from error
