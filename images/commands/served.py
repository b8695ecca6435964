"""`invoke served`: which libraries the server of a built image loads."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import SelectorOptions, command
from images.commands.smoke import built_image
from images.context import Context
from images.core import write_atomically


@dataclass(frozen=True)
class ServedOptions(SelectorOptions):
    """What `invoke served` was asked."""


@command("served --only 'cpu*'")
def served(context: Context, options: ServedOptions) -> None:
    """Record which libraries the server of built images loads; the audit's gate asks these lists."""
    record_loaded_libraries(context, options)


def record_loaded_libraries(context: Context, options: ServedOptions) -> None:
    """Write the list of each chosen variant's stack. Raises NothingSelected for an image that is not built."""
    from images.build import PYTHON_IN_IMAGE
    from images.proof.audit import loaded_libraries

    for variant in options.select(context):
        image = built_image(context, variant)
        with context.report.step(f"libraries that {variant.loaded_libraries} loads") as step:
            libraries = loaded_libraries.record_libraries(context.engine, image, PYTHON_IN_IMAGE, variant.modules)
            path = context.checkout.root / loaded_libraries.FOLDER / f"{variant.loaded_libraries}.txt"
            write_atomically(path, loaded_libraries.list_text(libraries, variant.id))
            step.note(f"{len(libraries)} libraries")
    context.report.next_command(f"git diff {loaded_libraries.FOLDER}", "commit what changed")
