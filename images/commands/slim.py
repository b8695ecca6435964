"""`invoke slim`: cut a folder's libraries down to the device code of some cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from images.commands.options import JSON, command
from images.context import Context
from images.core import CheckFailed, UsageError
from images.core.options import option


@dataclass(frozen=True)
class SlimOptions:
    """What `invoke slim` was asked."""

    folder: str = option("a folder with libraries, such as a site-packages", "", positional=True)
    archs: Sequence[str] = option("a card whose code stays; repeat", (), flag="arch")
    json: bool = option(JSON, False)
    nvidia_libraries: bool = option("also NVIDIA's: for your machine only", False)


@command
def slim(context: Context, options: SlimOptions) -> None:
    """Leave in a folder's libraries only the device code that the named cards run."""
    slim_folder(options)


def slim_folder(options: SlimOptions) -> None:
    """Slim them. Raises UsageError for a folder or card that is none, CheckFailed where a library was refused."""
    from images.device_code.slim import slim_command

    if not options.folder.strip():
        raise UsageError("there is nothing to slim", cause="no folder is named", do="./inv slim FOLDER --arch 7.5")
    try:
        refused = slim_command(
            options.folder, options.archs, as_json=options.json, nvidia_libraries=options.nvidia_libraries
        )
    except ValueError as error:
        raise UsageError(str(error), do="./inv slim FOLDER --arch 7.5") from error
    if refused:
        raise CheckFailed("some libraries were refused and left as they were", cause="their layout is not known")
