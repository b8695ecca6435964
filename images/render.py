"""Dockerfiles, docker-bake.json and the matrix's JSON schema, as text from values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jinja2

from images.bake import bake_file
from images.errors import UsageError
from images.matrix import Matrix, json_schema
from images.states import lock_inputs
from images.variants import Variant, Variants

GENERATED = "dockerfiles/rendered"
BAKE_FILE = "dockerfiles/docker-bake.json"
SCHEMA_FILE = "images/matrix.schema.json"

# What may stand unquoted in a Dockerfile instruction: no blank, quote, $, backslash or newline.
_WORD = re.compile(r"[A-Za-z0-9._:/@+=,;<>~!-]+")


def word(value: object) -> str:
    """A value as one unquoted Dockerfile word; raises UsageError for what could be read as anything else."""
    text = str(value)
    if _WORD.fullmatch(text) is None:
        raise UsageError(
            f"{text!r} cannot stand in a Dockerfile",
            cause="it holds a blank, a quote, '$', '\\' or a line break",
            do="use letters, digits and . _ : / @ + = , ; - only",
        )
    return text


def quoted(value: object) -> str:
    """A value as one double-quoted Dockerfile word, also with blanks; raises UsageError for line breaks and $."""
    text = str(value)
    if re.search(r'[\n\r\x00"\\$`]', text):
        raise UsageError(
            f"{text!r} cannot stand in a Dockerfile",
            cause="it holds a quote, '$', '`', '\\' or a line break",
            do="remove that character",
        )
    return f'"{text}"'


def exec_json(values: object) -> str:
    """A list as the JSON form of CMD and ENTRYPOINT."""
    return json.dumps(values)


def template_variables(matrix: Matrix, variant: Variant, locked: bool) -> SimpleNamespace:
    """What the template sees of a variant: plain strings, lists and dicts only."""
    kernel = None
    if variant.kernel:
        kernel = SimpleNamespace(
            package=variant.kernel.package, version=variant.kernel.version, env=dict(variant.kernel.env)
        )
    toolkit = matrix.toolkits[variant.cuda].nvcc if variant.cuda else None
    return SimpleNamespace(
        id=variant.id,
        stack=variant.stack,
        cuda=variant.cuda,
        archs=[arch.capability for arch in variant.archs],
        attention=variant.attention,
        engine=variant.engine,
        python=variant.python,
        pins={package: pin.version for package, pin in variant.pins},
        kernel=kernel,
        toolkit=variant.cuda if kernel else None,
        nvcc=toolkit,
        min_driver=variant.min_driver,
        require_cuda=variant.require_cuda,
        env=dict(variant.env),
        default_args=list(variant.args),
        lock=variant.lock,
        locked=locked,
        requirements=requirements(matrix, variant),
        unused=[gap.library for gap in variant.gaps if gap.drop],
    )


def requirements(matrix: Matrix, variant: Variant) -> list[str]:
    """What an image of an unlocked stack installs: what its lock would be asked for."""
    return [line.replace(" @ ", "@") for line in lock_inputs(matrix, variant.stack, variant.engine).requirements]


def render_dockerfile(template: jinja2.Template, matrix: Matrix, variant: Variant, locked: bool) -> str:
    """The Dockerfile of one variant."""
    text: str = template.render(variant=template_variables(matrix, variant, locked))
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def compile_template(text: str) -> jinja2.Template:
    """The template with the filters it may use; an unknown variable is an error."""
    # Dockerfiles are not HTML: values are checked by the filters below instead of being escaped for HTML.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    filters: dict[str, Any] = {"arg": word, "quoted": quoted, "exec_json": exec_json}
    environment.filters.update(filters)
    return environment.from_string(text)


def render(matrix: Matrix, variants: Variants, template_text: str, locks: Mapping[str, bool]) -> dict[str, str]:
    """Every generated file: path from the repository's root -> text.

    ``locks`` says of each lock name whether it is locked.
    """
    template = compile_template(template_text)
    files = {
        f"{GENERATED}/{variant.id}/Dockerfile": render_dockerfile(
            template, matrix, variant, locks.get(variant.lock, False)
        )
        for variant in variants.valid.values()
    }
    files[BAKE_FILE] = bake_file(matrix, tuple(variants.valid.values()))
    files[SCHEMA_FILE] = json_schema()
    return files


def differences(wanted: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """What ``render --check`` tells: files that are missing, differ, or are left over."""
    out = [f"missing: {path}" for path in wanted if path not in present]
    out += [f"differs: {path}" for path in wanted if path in present and wanted[path] != present[path]]
    out += [f"left over: {path}" for path in present if path not in wanted]
    return sorted(out)
