"""A YAML file as a pydantic model: every error names file, line, key and the nearest valid value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, PrivateAttr, ValidationError

from images.core.closest_match import closest
from images.core.errors import UsageError
from images.core.outside_input import read_file, to_text
from images.core.yaml_input import MOST_YAML_BYTES, compose_yaml, scalar

# Where a value is: keys and indexes from the top of the file.
Location = tuple[str | int, ...]


def line_of(lines: Mapping[Location, int], location: Location) -> int:
    """The line of the longest part of ``location`` that has one."""
    for length in range(len(location), -1, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return 1


class YamlFile(BaseModel):
    """A whole file as a model, which knows its name and the lines of its keys once `parse_model` has read it."""

    _lines: dict[Location, int] = PrivateAttr(default_factory=dict)
    _path: str = PrivateAttr(default="")

    def where(self, *location: str | int) -> str:
        """ "matrix.yaml:41" for a place in the file: the line of the longest part of ``location`` that has one."""
        return f"{self._path}:{line_of(self._lines, location)}"


Model = TypeVar("Model", bound=YamlFile)


def read_text(path: Path) -> str:
    """The text of a file of the checkout. Raises UsageError where it cannot be read."""
    return to_text(read_file(path, "run from a checkout, or name a file that exists", MOST_YAML_BYTES), path.name)


def parse_model(text: str, name: str, model: type[Model]) -> Model:
    """``text`` as a ``model``; ``name`` stands in the errors, and in its `where`. Raises UsageError."""
    lines: dict[Location, int] = {}
    data = plain_values(compose_yaml(text, name), (), lines, name)
    try:
        whole = model.model_validate(data)
    except ValidationError as error:
        raise _usage_error(error, lines, name, data, model) from None
    whole._lines.update(lines)
    whole._path = name
    return whole


def plain_values(node: yaml.Node | None, at: Location, lines: dict[Location, int], name: str) -> Any:
    """Plain values of a YAML node, noting each key's line; a key given twice is an error (YAML would keep the last)."""
    if node is None:
        return None
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in out:
                kind = f"two {at[-1]} of one name" if at and at[-1] == "stacks" else "a key given twice"
                raise UsageError(
                    f"{kind}: {key!r}",
                    cause=f"first at line {lines[(*at, key)]}, again at line {line}",
                    do="rename or remove one of them",
                    where=f"{name}:{line}",
                )
            lines[(*at, key)] = line
            out[key] = plain_values(value_node, (*at, key), lines, name)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [plain_values(item, (*at, index), lines, name) for index, item in enumerate(node.value)]
    return scalar(node, name)


def _usage_error(
    error: ValidationError, lines: Mapping[Location, int], name: str, data: Any, model: type[BaseModel]
) -> UsageError:
    """The first fault as one error; further ones are counted."""
    faults = error.errors(include_url=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    location = _real_location(fault["loc"], data)
    key = ".".join(str(part) for part in location) or "the file"
    message = str(fault["msg"]).removeprefix("Value error, ")
    do = ""
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, fault["loc"])
        message = f"unknown key {str(fault['loc'][-1])!r}"
        do = f"nearest: {closest(str(fault['loc'][-1]), known)}. Known here: {', '.join(known)}" if known else ""
    elif fault["type"] == "literal_error":
        known = [word.strip(" '") for word in re.split(r",| or ", str(fault["ctx"]["expected"]))]
        message = f"unknown key {fault['input']!r}" if "[key]" in fault["loc"] else f"{fault['input']!r} is not allowed"
        do = f"nearest: {closest(str(fault['input']), known)}. Allowed: {', '.join(known)}"
    elif fault["type"] == "missing":
        message = f"the key {str(fault['loc'][-1])!r} is missing"
    elif fault["type"] == "string_pattern_mismatch":
        message = f"{fault['input']!r} is not of the form {fault['ctx']['pattern']}"
    more = f" ({len(faults) - 1} more after this one)" if len(faults) > 1 else ""
    return UsageError(f"{name}: {key}: {message}{more}", do=do, where=f"{name}:{line_of(lines, location)}")


def _real_location(loc: tuple[str | int, ...], data: Any) -> Location:
    """pydantic's location without the names of union branches that it mixes in."""
    out: list[str | int] = []
    at = data
    for part in loc:
        in_list = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if in_list or (isinstance(at, dict) and part in at):
            at = at[part]
            out.append(part)
    return tuple(out)


def _known_keys(top: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys allowed beside the last part of ``loc``, by walking the models."""
    model: Any = top
    for part in loc[:-1]:
        model = _child_model(model, part)
        if model is None:
            return []
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [field.alias or key for key, field in model.model_fields.items()]
    return []


def _child_model(model: Any, part: str | int) -> Any:
    if isinstance(model, type) and issubclass(model, BaseModel):
        for key, field in model.model_fields.items():
            if part in (key, field.alias):
                return _unwrap(field.annotation)
        return None
    arguments = get_args(model)
    return _unwrap(arguments[-1]) if arguments else None


def _unwrap(annotation: Any) -> Any:
    """Through Annotated and Optional to the type that holds keys."""
    while True:
        arguments = get_args(annotation)
        if hasattr(annotation, "__metadata__"):
            annotation = arguments[0]
        elif arguments and type(None) in arguments:
            annotation = next(a for a in arguments if a is not type(None))
        else:
            return annotation
