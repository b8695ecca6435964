"""/docs: what /openapi.json says, as a page without scripts that loads nothing, from here or from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
)


def page(described: Mapping[str, Any]) -> str:
    """An OpenAPI description (version 3.1) as HTML: the paths with their answers, and the forms with their fields."""
    title = escape(described["info"]["title"])
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{title}</h1><p>{escape(described['info'].get('description', ''))}</p>")
    parts.append('<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>')
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(told.get('summary', ''))}</p>")
            parts.append(_table((status, _text(answer)) for status, answer in told["responses"].items()))
    parts.append("<h1>Forms</h1>")
    for name, form in described.get("components", {}).get("schemas", {}).items():
        fields = ((field, _type(about), _text(about)) for field, about in form.get("properties", {}).items())
        parts.append(f"<h2 id={escape(name)!r}>{escape(name)}</h2><p>{_text(form)}</p>{_table(fields)}")
    return "".join(parts)


def _text(told: Mapping[str, Any]) -> str:
    return escape(str(told.get("description", "")))


def _type(about: Mapping[str, Any]) -> str:
    """Such as "text or list of Part"."""
    if "$ref" in about:
        name = escape(str(about["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " or ".join(_type(one) for one in about[several])
    if about.get("type") == "array":
        return f"list of {_type(about.get('items', {}))}"
    return escape(str(about.get("const") or " | ".join(map(str, about.get("enum", ()))) or about.get("type", "any")))


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    """Rows whose first cell is plain text and the others HTML."""
    cells = ((f"<code>{escape(first)}</code>", *rest) for first, *rest in rows)
    return "<table>" + "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in cells) + "</table>"
