"""Inside an image: the tiny model's logits of the question that a record is sealed with, in float32.

    python -m images.proof.on_card.inside.seal_logits CHECKPOINT SEED --out FILE

On the card where torch sees one, else on the processor. JSON: seed, device, logits (see records/seal.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from images.proof.on_card.records import POSITIONS, pack_logits, question
from images.proof.on_card.runs import IN_IMAGE, ROOTFS


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("seed")
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    import torch

    sys.path.insert(0, str(IN_IMAGE if IN_IMAGE.is_dir() else ROOTFS))
    from awq_loader import load_model  # type: ignore[import-not-found,unused-ignore]

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(words.checkpoint, dtype=torch.float32, attention="eager", devices=[device], dequantised=True)
    ids = torch.tensor([question(words.seed)], device=device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -POSITIONS:]
    told = {"seed": words.seed, "device": device, "logits": pack_logits(logits.float().cpu().numpy())}
    words.out.write_text(json.dumps(told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
