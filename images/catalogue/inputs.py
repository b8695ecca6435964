"""Today's inputs of the images that records name, kept for where their sources are not: the installed package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from images.core import UsageError, read_json

INPUTS_FILE = "records/inputs.json"


def inputs_json(hashes: Mapping[str, str]) -> str:
    """The file's text: variant -> hash of the inputs that its image is made of."""
    return json.dumps(dict(sorted(hashes.items())), indent=1) + "\n"


def read_inputs(root: Path) -> dict[str, str]:
    """What the file below ``root`` says. Raises UsageError where it is not there or says something else."""
    told = read_json(root / INPUTS_FILE)
    if not isinstance(told, dict):
        raise UsageError(f"{INPUTS_FILE} is not a mapping", do="./inv render writes it", where=INPUTS_FILE)
    return {str(name): str(value) for name, value in told.items()}
