"""docker-py, imported in one place, and its errors as Cardstock's own.

docker-py imports paramiko for engines behind ssh, which takes half of its own time; it is loaded when it is used.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests.exceptions
import urllib3.exceptions

from images.core import CardstockError, EngineUnreachable, import_when_used
from images.docker.refusals import disk_full, is_disk_full

import_when_used("paramiko")
import docker  # noqa: E402
import docker.errors  # noqa: E402
import docker.tls  # noqa: E402
import docker.types  # noqa: E402
from docker.transport import sshconn  # noqa: E402

__all__ = ["API_SECONDS", "BROKEN_OFF", "SAVE_SECONDS", "SILENT", "docker", "translated"]

# Within which the next bytes of an answer must come; SAVE_SECONDS where an engine copies an image before the first.
API_SECONDS, SAVE_SECONDS = 120, 1800
# An answer that breaks off comes as urllib3's error, or as words that end in the middle: docker-py reads streams raw.
BROKEN_OFF = (
    docker.errors.DockerException,
    docker.errors.StreamParseError,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)
# What docker-py raises when nobody answers; a ValueError comes from an address that it cannot read.
SILENT = (*BROKEN_OFF, OSError, ValueError)


class _SshSocket(sshconn.SSHSocket):
    """A connection through ssh whose end is no error (docker-py 7.2.0).

    Its own `close` writes a last line to the other side, and raises BrokenPipeError where that has hung up first, as
    it does after each `exec`; and it leaves its `ssh` unwaited for.
    """

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            super().close()
        if self.proc is not None:
            self.proc.kill()
            self.proc.wait()


def _trusting_its_own(self: docker.tls.TLSConfig, client: docker.APIClient) -> None:
    """An engine's certificate is checked by the CA that is named for it, whatever REQUESTS_CA_BUNDLE names.

    requests lets the variable win over a session's own CA; then no engine with a CA of its own could be reached where
    a site has set it.
    """
    _configure(self, client)
    client.trust_env = False


sshconn.SSHSocket = _SshSocket  # type: ignore[misc]
_configure = docker.tls.TLSConfig.configure_client
docker.tls.TLSConfig.configure_client = _trusting_its_own  # type: ignore[method-assign]


@contextmanager
def translated(what: str, where: str = "") -> Iterator[None]:
    """Turn docker-py's errors into Cardstock's: no answer is EngineUnreachable, a refusal a CardstockError."""
    try:
        yield
    except docker.errors.APIError as error:
        said = str(error.explanation or error)
        if is_disk_full(said):
            raise disk_full(what, said) from error
        raise CardstockError(what, cause=f"the engine says: {said}", where=where) from error
    except BROKEN_OFF as error:
        raise EngineUnreachable(
            what,
            cause=f"the engine does not answer: {error}",
            do="see that it runs (docker info), then run again",
            where=where,
        ) from error
