"""`invoke audit`: which cards something really runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.commands.options import JSON, command
from images.context import Context
from images.core.options import option
from images.proof.audit import FromRegistry, audit_command, record_wheel


@dataclass(frozen=True)
class AuditOptions:
    """What `invoke audit` was asked."""

    target: str = option(
        "an image, container, wheel, folder or library; an image in a registry by its host, as docker.io/NAME:TAG",
        "",
        positional=True,
    )
    archs: Sequence[str] = option("a card that all of it must run on; repeat", (), flag="arch")
    native: bool = option("with --arch: PTX, which the driver compiles, does not count", False)
    excepted: Sequence[str] = option(
        "with --arch: libraries that need no code for it, a glob; repeat", (), flag="except"
    )
    remote: bool = option("read it from its registry, though the engine has it", False)
    platform: str = option("from a registry: which of several images, as linux/arm64 (default linux/amd64)", "")
    whole: bool = option("from a registry: read every layer to its end, and check its digest", False)
    json: bool = option(JSON, False)
    record: bool = option("keep a wheel's audit for docs/compatibility.md", False)


@command("audit ./torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl --arch 7.5")
def audit(context: Context, options: AuditOptions) -> None:
    """Which cards an image (in a registry too), container, wheel, folder or library really runs on; nothing is run."""
    audit_device_code(context, options)


def audit_device_code(context: Context, options: AuditOptions) -> None:
    """Print the audit, or keep it. Raises CheckFailed where ``archs`` are not covered, UsageError for no target."""
    if options.record:
        kept = record_wheel(
            context.checkout.to_write("a record of a wheel", "audit --record"), Path(options.target).expanduser()
        )
        context.report.line(f"recorded: {kept.path}")
        context.report.next_command("./inv render", "docs/compatibility.md follows the records")
        return
    registry = FromRegistry(context.repository, options.remote, options.platform, options.whole)
    audit_command(
        options.target,
        options.archs,
        options.json,
        context.report,
        registry=registry,
        native=options.native,
        excepted=options.excepted,
    )
