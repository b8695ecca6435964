"""A connection that broke off and that nobody has made an error of Cardstock's of: told as that."""

from __future__ import annotations

from images.core.errors import CardstockError

# Libraries whose errors are those of a connection.
_NETWORK = ("http.client", "requests", "ssl", "urllib3")


def is_network_failure(error: BaseException) -> bool:
    """Whether this is an error of a connection, and not of a file or of this program."""
    return type(error).__module__.startswith(_NETWORK) or isinstance(error, ConnectionError | TimeoutError)


def network_failure(error: BaseException) -> CardstockError:
    """The error of a machine's network. Exit code 1: whose connection it was is not known here."""
    return CardstockError(
        "a connection broke off",
        cause=f"{type(error).__name__}: {error}",
        do="see that the engine, the registry or the hub answers (./inv doctor), then run the same again",
    )
