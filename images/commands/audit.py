"""`invoke audit`: which cards something really runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.commands.options import JSON, command
from images.context import Context
from images.core.options import option
from images.proof.audit import audit_command, record_wheel


@dataclass(frozen=True)
class AuditOptions:
    """What `invoke audit` was asked."""

    target: str = option("an image, container, wheel, folder or library", "", positional=True)
    archs: Sequence[str] = option("a card that all of it must run on; repeat", (), flag="arch")
    json: bool = option(JSON, False)
    record: bool = option("keep a wheel's audit for docs/compatibility.md", False)


@command("audit ./torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl --arch 7.5")
def audit(context: Context, options: AuditOptions) -> None:
    """Which cards an image, container, wheel, folder or library really runs on; nothing of it is run."""
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
    audit_command(options.target, options.archs, options.json, context.report)
