"""What pydantic finds wrong with a request, as OpenAI's error: status 400, one sentence, the field at fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from pydantic import ValidationError

# By pydantic's names (docs.pydantic.dev/latest/errors/validation_errors); in braces: what pydantic tells with it.
SENTENCES = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
}
# These say all there is to say: what was given instead would add nothing.
COMPLETE = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must hold at most {max_length}, not {actual_length}",
    "union_tag_not_found": "is missing",
    "union_tag_invalid": "must be one of {expected_tags}, not {tag!r}",
}
SHOWN = 40  # characters of a wrong value, and of a name


def refusal(found: ValidationError, body: Any) -> ApiError:
    """The first fault of ``body`` as an error to answer with."""
    fault = found.errors(include_url=False)[0]
    context: Mapping[str, Any] = {name: _short(value) for name, value in fault.get("ctx", {}).items()}
    place = _place(fault["loc"], body, fault["type"] == "missing")
    if fault["type"].startswith("union_tag"):  # the field that says which form it is
        place.append(context["discriminator"].strip("'"))
    if fault["type"] in COMPLETE:
        sentence = COMPLETE[fault["type"]].format(**context)
    elif fault["type"] in SENTENCES:
        sentence = f"{SENTENCES[fault['type']].format(**context)}, not {_shown(fault['input'])}"
    else:
        sentence = fault["msg"]
    return ApiError(400, f"{_written(place)} {sentence}", param=str(place[0]) if place else None)


def _short(value: Any) -> Any:
    """A value that pydantic tells, as one writes it."""
    if isinstance(value, str) and len(value) > 2 * SHOWN:
        return f"{value[:SHOWN]}…"
    return f"{value:g}" if isinstance(value, float) else value


def _place(loc: Sequence[str | int], body: Any, missing: bool) -> list[str | int]:
    """Where in ``body`` the fault lies: pydantic's location without the names of a union's branches between."""
    place: list[str | int] = []
    at = body
    for step in loc:
        in_list = isinstance(at, list) and isinstance(step, int)
        if in_list or (isinstance(at, dict) and step in at):
            at = at[step]
            place.append(step)
    return [*place, loc[-1]] if missing else place


def _written(place: Sequence[str | int]) -> str:
    """As one writes it: messages[0].content[1].text."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".") or "the body"


def _shown(value: Any) -> str:
    """A wrong value in JSON's words, short."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
