"""Dockerfiles, docker-bake.json and the matrix's JSON schema, as text from values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jinja2

from images.core import UsageError
from images.matrix import Kernel, Matrix, Variant, Variants, duplicate_ids, json_schema, make_variants
from images.render.bakefile import bake_file
from images.render.lock_inputs import build_tools
from images.render.lock_state import lock_inputs
from images.render.preflight_images import as_text, images_for_preflight

GENERATED = "dockerfiles/rendered"
KERNELS = f"{GENERATED}/kernels"
BAKE_FILE = "dockerfiles/docker-bake.json"
SCHEMA_FILE = "images/matrix/matrix.schema.json"

# Of the distribution that an image's stand-ins are. Not Cardstock's own version: with each release, the layer with
# NVIDIA's libraries would be another one, though not a byte of a library differs.
STAND_INS_VERSION = "1"

# What may stand unquoted in a Dockerfile instruction: no blank, quote, $, backslash or newline.
_WORD = re.compile(r"[A-Za-z0-9._:/@+=,;<>~!-]+")


def unquoted(value: object) -> str:
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


@dataclass(frozen=True)
class Templates:
    """The templates, ready to be filled in: one for variants, one for kernel wheels, and what both include."""

    environment: jinja2.Environment
    _told: dict[int, tuple[Matrix, str]] = field(default_factory=dict, repr=False, compare=False)

    def images(self, matrix: Matrix) -> str:
        """The other images that an image may name (preflight_images.py): the same text for all, made once."""
        # The matrix is held beside its text: for so long no other one can have its id.
        if id(matrix) not in self._told:
            self._told[id(matrix)] = (matrix, as_text(images_for_preflight(matrix, make_variants(matrix))))
        return self._told[id(matrix)][1]

    def dockerfile(self, name: str, **values: SimpleNamespace | str) -> str:
        """A template's text with its values."""
        text = self.environment.get_template(name).render(**values)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def template_variables(variant: Variant) -> SimpleNamespace:
    """What the template sees of a variant: plain strings, lists and dicts only.

    One with all of NVIDIA's libraries has the Dockerfile of the variant that it is made of.
    """
    variant = variant.plain
    kernel = variant.kernel
    return SimpleNamespace(
        id=variant.id,
        stack=variant.stack,
        cuda=variant.cuda,
        archs=[arch.capability for arch in variant.archs],
        attention=variant.attention,
        backend=variant.backend,
        python=variant.python,
        pins={package: pin.version for package, pin in variant.pins},
        kernel=SimpleNamespace(package=kernel.package, version=kernel.version) if kernel else None,
        min_driver=variant.min_driver,
        require_cuda=variant.require_cuda,
        env=dict(variant.env),
        default_args=list(variant.args),
        plugins=list(variant.plugins),
        unused=[gap.library for gap in variant.gaps if gap.drop],
        unused_packages=list(dict.fromkeys(name for row in variant.unused_packages for name in row.packages)),
        unused_files=list(dict.fromkeys(glob for row in variant.unused_packages for glob in row.files)),
        stand_ins=[
            SimpleNamespace(library=one.library, used_for=one.used_for, gone=one.gone) for one in variant.stand_ins
        ],
    )


def kernel_variables(matrix: Matrix, kernel: Kernel) -> SimpleNamespace:
    """What the template sees of a kernel wheel."""
    return SimpleNamespace(
        id=kernel.id,
        package=kernel.package,
        version=kernel.version,
        torch=kernel.torch,
        cuda=kernel.cuda,
        python=kernel.python,
        archs=list(kernel.capabilities),
        env=dict(kernel.env),
        nvcc=matrix.toolkits[kernel.cuda].nvcc,
        build_tools=list(build_tools(kernel.package)),
    )


def requirements(matrix: Matrix, variant: Variant) -> list[str]:
    """What an image of an unlocked stack installs: what its lock would be asked for."""
    return [line.replace(" @ ", "@") for line in lock_inputs(matrix, variant.stack, variant.backend).requirements]


def render_dockerfile(templates: Templates, matrix: Matrix, variant: Variant, locked: bool) -> str:
    """The Dockerfile of one variant."""
    shown = template_variables(variant)
    shown.requirements = requirements(matrix, variant)
    shown.images = templates.images(matrix)
    stack = SimpleNamespace(python=variant.python, cuda=variant.cuda, lock=variant.lock, locked=locked)
    return templates.dockerfile("Dockerfile.j2", variant=shown, stack=stack, stand_ins_version=STAND_INS_VERSION)


def render_kernel(templates: Templates, matrix: Matrix, kernel: Kernel, locked: bool) -> str:
    """The Dockerfile of one kernel wheel."""
    stack = SimpleNamespace(python=kernel.python, cuda=kernel.cuda, lock=kernel.lock, locked=locked)
    return templates.dockerfile("kernel.j2", kernel=kernel_variables(matrix, kernel), stack=stack)


def compile_templates(texts: Mapping[str, str]) -> Templates:
    """Templates by file name, with the filters they may use; an unknown variable is an error."""
    # Dockerfiles are not HTML: values are checked by the filters below instead of being escaped for HTML.
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(texts),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    filters: dict[str, Any] = {"arg": unquoted, "quoted": quoted, "exec_json": exec_json}
    environment.filters.update(filters)
    return Templates(environment)


def render(
    matrix: Matrix, variants: Variants, template_texts: Mapping[str, str], locks: Mapping[str, bool]
) -> dict[str, str]:
    """Every generated file: path from the repository's root -> text.

    ``locks`` says of each lock name whether it is locked. Raises UsageError when two kernels would share a name.
    """
    templates = compile_templates(template_texts)
    if twice := duplicate_ids(variants.kernels):
        raise UsageError(f"two different kernels are called {', '.join(twice)}", do="give their stacks different pins")
    files = {
        f"{GENERATED}/{variant.id}/Dockerfile": render_dockerfile(
            templates, matrix, variant, locks.get(variant.lock, False)
        )
        for variant in variants.valid.values()
    }
    for kernel in variants.kernels:
        text = render_kernel(templates, matrix, kernel, locks.get(kernel.lock, False))
        files[f"{KERNELS}/{kernel.id}/Dockerfile"] = text
    files[BAKE_FILE] = bake_file(matrix, tuple(variants.valid.values()), variants.kernels)
    files[SCHEMA_FILE] = json_schema()
    return files


def differences(wanted: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """For ``render --check``: which files are missing, differ, or are left over."""
    out = [f"missing: {path}" for path in wanted if path not in present]
    out += [f"differs: {path}" for path in wanted if path in present and wanted[path] != present[path]]
    out += [f"left over: {path}" for path in present if path not in wanted]
    return sorted(out)
