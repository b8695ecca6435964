"""What decides a kernel wheel's bytes, and the key made of it: equal keys, one wheel. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from packaging.version import Version

from images.kernels.record import WheelRecord
from images.matrix import Kernel
from images.render import source_digest

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Key:
    """The facts that a wheel is addressed by.

    ``source_sha256`` is of the source distribution; ``torch`` without its local part, which ``cuda`` says already;
    ``python`` as "3.11"; ``cxx11_abi`` of torch's C++ library; ``archs`` what the device code must hold.
    """

    package: str
    version: str
    source_sha256: str
    torch: str
    cuda: str
    python: str
    cxx11_abi: bool
    archs: tuple[str, ...]
    env: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """64 hex digits: sha256 of the facts as JSON, names sorted, no blanks."""
        facts = asdict(self) | {"env": dict(self.env)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def differences(self, other: Key) -> list[str]:
        """What ``other`` says otherwise, for people: "torch is 2.6.0, not 2.5.1"."""
        mine, its = asdict(self), asdict(other)
        return [f"{name} is {its[name]}, not {mine[name]}" for name in mine if mine[name] != its[name]]


def source_hash(lock_text: str) -> str | None:
    """The sha256 of the source distribution from a lock's part for one package; None where it does not say.

    A package with one file on the index has no other; of several, the line "# source:" tells which one it is.
    """
    if found := source_digest(lock_text):
        return found
    hashes = _HASH.findall(lock_text)
    return hashes[0] if len(hashes) == 1 else None


def cxx11_abi(torch: str, cuda: str) -> bool:
    """Whether torch's C++ library was built with the new ABI of libstdc++ (_GLIBCXX_USE_CXX11_ABI).

    Read from TorchConfig.cmake of the default wheels: 0 in 2.4.1, 2.5.1 and 2.6.0, 1 in 2.7.0; 2.8.0 names none any
    more, and libc10.so of 2.11.0 has the new symbols. Of 2.6, the CUDA 12.6 build was the first with the new one
    (release notes of 2.6). A built wheel's record says what its torch really has, and is held against this.
    """
    release = Version(torch).release
    return release >= (2, 7) or (release >= (2, 6) and Version(cuda) >= Version("12.6"))


def key_of(kernel: Kernel, source_sha256: str) -> Key:
    """The key of a kernel whose source distribution has this hash."""
    return Key(
        package=kernel.package,
        version=kernel.version,
        source_sha256=source_sha256,
        torch=kernel.torch.partition("+")[0],
        cuda=kernel.cuda,
        python=kernel.python,
        cxx11_abi=cxx11_abi(kernel.torch, kernel.cuda),
        archs=kernel.capabilities,
        env=tuple(sorted(kernel.env)),
    )


def key_of_record(record: WheelRecord) -> Key:
    """The key that a built wheel's own record amounts to."""
    return Key(
        package=record.package,
        version=record.version,
        source_sha256=record.source_sha256,
        torch=record.torch.partition("+")[0],
        cuda=record.cuda,
        python=".".join(record.python.split(".")[:2]),
        cxx11_abi=record.cxx11_abi,
        archs=tuple(record.archs),
        env=tuple(sorted(record.env.items())),
    )
