"""No program hides a module of the standard library: what is started by its path has its folder searched first."""

from __future__ import annotations

import sys

from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

# Folders with programs that are started by their paths, in images and on hosts.
FOLDERS = (
    "images/proof/acting",
    "images/proof/acting/acted",
    "images/proof/lighter",
    "images/proof/memory",
    "images/proof/on_card",
    "images/proof/on_card/inside",
    "images/proof/on_card/packages",
    "images/proof/on_card/shaped",
    "images/proof/smoke/inside",
    "images/proof/kernel_code/inside",
    "dockerfiles/rootfs/opt/cardstock",
)


def test_no_program_has_the_name_of_a_module_of_pythons() -> None:
    paths = [path for folder in FOLDERS for path in nonempty(sorted((ROOT / folder).glob("*.py")))]
    assert not [str(path) for path in paths if path.stem in sys.stdlib_module_names]
