"""The stand-in's canary: the checkpoints must be there; FAULT=canary makes one comparison fail.

FAULT=called: as if a library of it that an image leaves out had been called.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

arguments = sys.argv
folder = Path(arguments[arguments.index("--model") + 1])
there = sorted(path.name for path in folder.iterdir())
others = [arguments[at + 1 : at + 3] for at, word in enumerate(arguments) if word == "--also"]
whole = all(Path(one, "model.safetensors").is_file() and Path(golden).is_file() for one, golden in others)
relative = 0.02 if os.environ.get("FAULT") == "canary" else 1e-6
checks = [
    {"name": "checkpoint", "ok": "model.safetensors" in there and whole, "detail": str(there), "measured": {}},
    {
        "name": "logits: picture-red (sdpa)",
        "ok": relative < 1e-4,
        "detail": f"relative error {relative:.1e}, allowed 1e-04",
        "measured": {"relative": relative},
    },
]
ok = all(check["ok"] for check in checks)
if os.environ.get("FAULT") == "called":
    with Path(os.environ["CARDSTOCK_STAND_IN_CALLS"]).open("a") as calls:
        calls.write("libcufft.so.11 cufftExecC2C\n" * 2)
if os.environ.get("FAULT") == "segfault":
    os.abort()
print(json.dumps({"ok": ok, "device": "cpu", "versions": {}, "seconds": 0.1, "checks": checks}))
sys.exit(0 if ok else 1)
