"""What is mounted below a folder, and only that."""

from __future__ import annotations

from pathlib import Path

from images.docker.embedded.mounts import mounts_below

MOUNTS = """\
proc /proc proc rw 0 0
proc /tmp/w/root/proc proc rw 0 0
x /tmp/w/root/proc/deep tmpfs rw 0 0
y /tmp/work2 ext4 rw 0 0
z /tmp/w/a\\040b tmpfs rw 0 0
/dev/vda /tmp/w/data ext4 rw 0 0
/dev/vda /tmp/w/data ext4 rw 0 0

"""


def test_only_mounts_below_the_folder_are_found_deepest_first() -> None:
    assert mounts_below(Path("/tmp/w"), MOUNTS) == (
        "/tmp/w/root/proc/deep",
        "/tmp/w/root/proc",
        "/tmp/w/data",
        "/tmp/w/data",
        "/tmp/w/a b",
    )
    assert mounts_below(Path("/tmp/none"), MOUNTS) == ()
