"""Kernel wheels in a registry: an artifact a key, its tag the key. What comes from there is checked like a build."""

from __future__ import annotations

from collections.abc import Callable

from images.core import CheckFailed, Unsafe
from images.kernels.key import Key
from images.kernels.record import FILE
from images.kernels.store import Store, Stored
from images.registry import Artifact, ArtifactPart, Repository, artifact

KIND = "application/vnd.cardstock.kernel.v1"
_RECORD = "application/vnd.cardstock.kernel.v1+json"
_WHEEL = "application/zip"
_RECORD_MAX = 4 << 20  # bytes of a kernel.json; they have a few thousand
_WHEEL_MAX = 8 << 30  # bytes of a wheel; those of all archs have less than one billion
Say = Callable[[str], None]


def find(repository: Repository, key: Key) -> Artifact | None:
    """The artifact of a key; None where the repository has none. Raises RegistryFailure, Unsafe."""
    return artifact.look(repository, key.digest, KIND)


def push(repository: Repository, stored: Stored, name: str) -> tuple[str, bool]:
    """Write a stored wheel to a repository: the digest it has there, and whether it is new.

    A key that is there already stays as it is: whoever fetched it has those bytes. ``name`` is the kernel's id, for
    people who look at the manifest. Raises RegistryFailure, Unsafe.
    """
    if there := artifact.look(repository, stored.digest, KIND):
        return there.digest, False
    record = stored.record
    notes = {
        "dev.cardstock.kernel": name,
        "org.opencontainers.image.title": record.wheel,
        "org.opencontainers.image.version": record.version,
    }
    parts = [ArtifactPart(stored.folder / FILE, _RECORD), ArtifactPart(stored.wheel, _WHEEL)]
    return artifact.push(repository, stored.digest, KIND, parts, notes), True


def fetch(repository: Repository, key: Key, store: Store, say: Say = lambda _: None) -> Stored | None:
    """Take the wheel of a key from a repository into the store; None where the repository has none.

    Raises RegistryFailure where it cannot be had, Unsafe where it is not what the key says: other bytes than its
    digest, another key's record, device code of other cards. Nothing is stored then.
    """
    there = find(repository, key)
    if there is None:
        return None
    wheels = [name for name in there.files if name.endswith(".whl")]
    if len(wheels) != 1 or set(there.files) != {FILE, wheels[0]}:
        raise _refused(repository, key, f"it holds {', '.join(sorted(there.files))}")
    for name, most in ((FILE, _RECORD_MAX), (wheels[0], _WHEEL_MAX)):
        if there.files[name].size > most:
            raise _refused(repository, key, f"{name} has {there.files[name].size} bytes, more than {most}")
    with store.work() as folder:
        artifact.fetch(repository, there, folder)
        try:
            stored = store.put(key, folder)
        except (CheckFailed, Unsafe) as error:
            raise _refused(repository, key, f"{error.what}: {error.cause}") from error
    say(f"fetched {stored.record.wheel} from {repository.name}@{there.digest[:19]}")
    return stored


def _refused(repository: Repository, key: Key, cause: str) -> Unsafe:
    return Unsafe(
        f"the kernel wheel in {repository.name} is refused: it is not what its key says",
        cause=cause,
        do="see who wrote that tag; without --wheels it is compiled here",
        where=f"{repository.name}:{key.digest}",
    )
