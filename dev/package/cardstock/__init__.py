"""The user's half of Cardstock, installed: `cardstock pull`, `cardstock serve` and what goes with them.

Below `checkout/` lie the same files as in a checkout of the repository, as far as these commands need them: its package
`images` (too general a name for site-packages, so it is found there by this program alone), its tables and its locks.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent / "checkout"


def main() -> None:
    """Run the command that was typed."""
    sys.path.insert(0, str(CHECKOUT))
    from images.commands.installed import main as run

    run()
