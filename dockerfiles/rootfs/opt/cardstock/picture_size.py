"""The size that Qwen2.5-VL's image processor brings a picture to, known before it is opened. Standard library only.

Source: ``smart_resize`` of transformers (models/qwen2_vl/image_processing_qwen2_vl.py, the same from 4.49 to 5.19).
"""

from __future__ import annotations

import math

MAX_RATIO = 200  # of the longer side to the shorter: beyond it, the processor refuses


def resized(width: int, height: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """Width and height, multiples of ``factor``, of ``least`` to ``most`` pixels.

    Raises ValueError for a side ratio above `MAX_RATIO`.
    """
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"its longer side is more than {MAX_RATIO} times the shorter one")
    wide, high = round(width / factor) * factor, round(height / factor) * factor
    if wide * high > most:
        shrink = math.sqrt(width * height / most)
        return (
            max(factor, math.floor(width / shrink / factor) * factor),
            max(factor, math.floor(height / shrink / factor) * factor),
        )
    if wide * high < least:
        grow = math.sqrt(least / (width * height))
        return math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return wide, high
