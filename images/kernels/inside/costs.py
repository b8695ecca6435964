"""What compiling costs: measured, so that a build asks for what it needs and says how long it takes."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1_000_000_000


@dataclass(frozen=True)
class Cost:
    """What one package's compiling takes.

    ``memory``: the largest compiler process, in bytes; the compilers of one object run one after the other.
    ``seconds``: of one core, for an object and one arch. ``wheel``: bytes of a wheel for one arch, None where none has
    been made yet. ``objects``: how many there are.
    """

    memory: int
    seconds: float
    objects: int
    wheel: int | None
    source: str


# A package and, where versions differ, its version.
COSTS = {
    "xformers": Cost(
        memory=3 * GB,
        seconds=25,
        objects=33,
        wheel=10_400_000,
        source="0.0.29.post2, nvcc 12.4, 7.5: two cores, 6 min 55 s; largest process 2.6 GB",
    ),
    "flash-attn": Cost(
        memory=5 * GB,
        seconds=175,
        objects=73,
        wheel=62_000_000,
        source="2.8.3.post2, nvcc 13.0, 9.0: 16 cores, 15 jobs, 14 min 53 s, largest process 4.2 GB; NVCC_THREADS=1",
    ),
    "flashinfer": Cost(
        memory=1 * GB,
        seconds=27,
        objects=10,
        wheel=1_456_000,
        source="0.7.2.post1, nvcc 13.0, 7.5: 267 s of processor time on two busy cores; largest process 0.48 GB",
    ),
}

# For a package that nobody has measured.
UNKNOWN = Cost(memory=3 * GB, seconds=30, objects=1, wheel=None, source="a guess")

# A wheel below this share of its record has lost kernels on the way.
SUSPICIOUS = 0.6


def cost(package: str) -> Cost:
    """The record of a package, or a guess."""
    return COSTS.get(package, UNKNOWN)


def estimate(package: str, archs: int, jobs: int) -> float:
    """Seconds that a cold build should take."""
    one = cost(package)
    return one.objects * one.seconds * archs / max(jobs, 1)
