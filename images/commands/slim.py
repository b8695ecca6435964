"""`invoke slim`: cut a folder's libraries down to the device code of some cards."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from images.commands.options import JSON, command
from images.context import Context
from images.core import CheckFailed, UsageError
from images.core.options import option
from images.device_code.names import shown


@dataclass(frozen=True)
class SlimOptions:
    """What `invoke slim` was asked."""

    folder: str = option("a folder with libraries, such as a site-packages", "", positional=True)
    archs: Sequence[str] = option("a card whose code stays; repeat", (), flag="arch")
    no_card: bool = option("instead of a card: no device code stays", False)
    json: bool = option(JSON, False)
    nvidia_libraries: bool = option("also NVIDIA's: for your machine only", False)


@command("slim ./site-packages --arch 7.5")
def slim(context: Context, options: SlimOptions) -> None:
    """Leave in a folder's libraries only the device code that the named cards run."""
    slim_folder(options)


def slim_folder(options: SlimOptions) -> None:
    """Slim them.

    Raises UsageError for a folder or card that is none, and for a folder that may not be changed; CheckFailed where a
    library was refused, a RECORD cannot be read, or the disk is full.
    """
    from images.device_code.capability import CapabilityError
    from images.device_code.folder_lock import FolderBusy
    from images.device_code.record import RecordError
    from images.device_code.slim import slim_command

    if not options.folder.strip():
        raise UsageError("there is nothing to slim", cause="no folder is named", do="./inv slim FOLDER --arch 7.5")
    try:
        refused = slim_command(
            options.folder,
            options.archs,
            as_json=options.json,
            nvidia_libraries=options.nvidia_libraries,
            no_card=options.no_card,
        )
    except CapabilityError as error:
        raise UsageError(error.what, cause=error.cause, do=f"nearest: {error.nearest}") from error
    except ValueError as error:
        raise UsageError(str(error), do="./inv slim FOLDER --arch 7.5") from error
    except RecordError as error:
        raise CheckFailed(
            "nothing was slimmed", cause=str(error), do="install that wheel anew: pip install --force-reinstall"
        ) from error
    except FolderBusy as error:
        raise CheckFailed("nothing was slimmed", cause=str(error), do="end that run, or wait for it") from error
    except OSError as error:
        raise _told(error, options.folder) from error
    if refused:
        raise CheckFailed(
            "some libraries were refused and left as they were", cause="each is named above, with the reason"
        )


def _told(error: OSError, folder: str) -> Exception:
    """What the operating system refused; the error itself where it is none of the folder's."""
    if error.filename is None:
        return error  # of stdout
    where = shown(str(error.filename or folder))
    same = "every library is whole, as it was or slimmed; run the same again to go on"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckFailed(
            f"there is no space left to write {where}", cause=str(error.strerror), do=f"free some: {same}"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return UsageError(f"{where} cannot be changed", cause=str(error.strerror), do="run as who may write there")
    return CheckFailed(f"{where} cannot be read or written", cause=str(error.strerror or error), do=same)
