"""Inside an image: the 3B-shaped checkpoint of shaped.py, for lighter.py.

python -m images.proof.on_card.lighter_checkpoint FOLDER --layers 18 --out FILE
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from images.proof.on_card.shaped import write


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    words.out.write_text(json.dumps(write(words.folder, words.layers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
