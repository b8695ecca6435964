"""The embedded engine's use of the disk: counted as the disk counts, and kept under its limit."""

from __future__ import annotations

from dataclasses import dataclass

from images.core import EngineUnreachable, Layout, PrintLine, default_layout, process
from images.docker.embedded.daemon_config import CACHE_BYTES, GB
from images.docker.embedded.packages import cli_env
from images.docker.embedded.ping import engine_version

LIMIT_BYTES = 45 * GB
# Layers of builds. What this leaves out, cache mounts, is the kernels' compiler cache: small, bounded by itself
# (images/kernels/inside/caches.py), and hours of compiling.
_LAYERS = ("--filter", "type=regular")
# An untagged image this young may belong to a build whose proof is still running.
_YOUNG = "6h"


@dataclass(frozen=True)
class Pruned:
    """Bytes on disk before and after, against the limit; the steps that were taken."""

    before: int
    after: int
    limit: int
    steps: tuple[str, ...]

    @property
    def freed(self) -> int:
        """Bytes that are free now; what others wrote meanwhile may be more than was dropped, which is none."""
        return max(0, self.before - self.after)

    @property
    def fits(self) -> bool:
        """Whether the engine is under its limit now."""
        return self.after <= self.limit


def data_bytes(layout: Layout) -> int:
    """Bytes on disk below the data directory; what running containers mount is not counted twice."""
    if not layout.data.is_dir():
        return 0
    counted = process.run(["du", "-sx", "--block-size=1", str(layout.data)], check=False, timeout=600)
    return int(counted.out.split()[0]) if counted.out.strip() else 0


def gentle_steps() -> tuple[tuple[str, ...], ...]:
    """Arguments of docker for what nobody misses: ended runs, old untagged images, build cache beyond its share."""
    return (
        ("container", "prune", "--force", "--filter", "label=dev.cardstock.run"),
        ("image", "prune", "--force", "--filter", f"until={_YOUNG}"),
        ("buildx", "prune", "--force", *_LAYERS, "--keep-storage", str(CACHE_BYTES)),
    )


def firm_steps() -> tuple[tuple[str, ...], ...]:
    """What more goes, step by step, until the engine fits: layers by the quarter, young untagged images; no tag."""
    shares = [
        ("buildx", "prune", "--force", "--all", *_LAYERS, "--keep-storage", str(CACHE_BYTES * quarters // 4))
        for quarters in (3, 2, 1)
    ]
    contexts = ("buildx", "prune", "--force", "--all", "--filter", "type=source.local")
    return (*shares, ("image", "prune", "--force"), ("buildx", "prune", "--force", "--all", *_LAYERS), contexts)


def every_step() -> tuple[tuple[str, ...], ...]:
    """All that no running container needs: tagged images, volumes and the whole build cache too."""
    return (
        ("container", "prune", "--force"),
        ("image", "prune", "--force", "--all"),
        ("volume", "prune", "--force", "--all"),
        ("buildx", "prune", "--force", "--all"),
    )


def free_disk_space(short: int, layout: Layout | None = None, *, say: PrintLine = lambda _: None) -> None:
    """Let build cache go, oldest first, until the engine holds ``short`` bytes less, or no more can; images stay.

    Raises as `prune` does.
    """
    layout = layout or default_layout()
    pruned = prune(layout, limit=max(data_bytes(layout) - short, 0))
    if pruned.freed >= GB // 20:
        say(f"the disk is short of room: {pruned.freed / GB:.1f} GB of the engine's build cache dropped")
    else:
        say("the disk is short of room, and the engine has no build cache that could be dropped")


def prune(
    layout: Layout | None = None, *, everything: bool = False, limit: int = LIMIT_BYTES, say: PrintLine = lambda _: None
) -> Pruned:
    """Trim the engine, which must run: gently, then until it is under ``limit`` bytes; tagged images stay.

    ``everything`` takes tagged images too. Raises EngineUnreachable when it does not run, ProcessFailed when it
    refuses a step.
    """
    layout = layout or default_layout()
    if engine_version(layout.socket) is None:
        raise EngineUnreachable(
            "the embedded engine does not run, so it cannot be pruned",
            do="invoke engine --start",
            where=layout.endpoint,
        )
    before = after = data_bytes(layout)
    done: list[str] = []

    def take(step: tuple[str, ...]) -> int:
        process.run(["docker", *step], env=cli_env(layout), timeout=900)
        done.append(" ".join(step))
        return data_bytes(layout)

    for step in every_step() if everything else gentle_steps():
        after = take(step)
    for step in firm_steps():
        if after <= limit:
            break
        after = take(step)
    result = Pruned(before, after, limit, tuple(done))
    say(f"the embedded engine holds {after / GB:.1f} GB of {limit / GB:.0f} GB ({result.freed / GB:.1f} GB freed)")
    if not result.fits:
        say("  tagged images hold the rest: remove what you do not need (docker image ls), or prune everything")
    return result


def keep_under_limit(
    layout: Layout | None = None, *, limit: int = LIMIT_BYTES, say: PrintLine = lambda _: None
) -> Pruned | None:
    """Prune if the engine is over its limit, as after a build; None when it was not."""
    layout = layout or default_layout()
    return prune(layout, limit=limit, say=say) if data_bytes(layout) > limit else None
