"""Inside an acted container: start its server as the image does, ask it, and tell what it chose and said.

    python -m images.proof.acting.worker tiny /proof/tiny --limit 300 --out FILE [--flags JSON-LIST]

The first word says what is asked: "tiny" the golden answers, "3b" the taught ones of the 3B shape. FILE is written when
the server is healthy or has ended, and again when it has answered: {"how": "healthy" | "ended" | "late", …}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from images.core import write_atomically
from images.proof.acting.log import kernels_by_target, read_choices
from images.proof.on_card import check_shaped, check_tiny
from images.proof.on_card.records import GpuRecord
from images.proof.on_card.runs import IN_IMAGE, Failed, Run, ServerFailed, StartedServer, run_server
from images.proof.smoke import server as smoke

PORT, LENGTH = 8100, {"tiny": "2048", "3b": "8192"}
# Requests at a time: for more vLLM captures dozens of CUDA graphs, and cards that are acted side by side take turns.
SEQS = "8"
CACHE, CHECKOUT = Path("/cache"), "/checkout"
LATE = "not healthy after"
TAIL = 25


def told(server_lines: list[str], how: str, begun: float) -> dict[str, Any]:
    """What can be told of a server at any time."""
    changed = Path(os.environ.get("CARDSTOCK_ACTED_TOLD", "/nowhere"))
    names = changed.read_text(encoding="utf-8", errors="replace").splitlines() if changed.is_file() else []
    return {
        "how": how,
        "seconds": round(time.monotonic() - begun, 1),
        "chose": asdict(read_choices(server_lines)),
        "changed": sorted({line.partition(" ")[2] for line in names}),
        "kernels": kernels_by_target(CACHE),
        "tail": [line[:400] for line in server_lines[-TAIL:]],
    }


def ask(kind: str, server: StartedServer, scratch: Path) -> dict[str, Any]:
    """Answers and what is wrong with them ("" nothing)."""
    if kind == "tiny":
        most = smoke.pictures_per_request(json.loads(os.environ.get("CARDSTOCK_DEFAULT_ARGS", "[]")))
        facts, wrong = check_tiny(server, token_ids=True, pictures=most)
        return {"answers": facts, "wrong": "; ".join(wrong)}
    record = GpuRecord("", "", 0, "", "", "image", "", "", {}, ())
    run = Run(record, scratch / "unused.json", scratch / "no-references", {"image": None})
    try:
        return {"answers": check_shaped(run, server, "float16"), "wrong": ""}
    except Failed as error:
        return {"answers": dict(*error.args[1:]), "wrong": str(error.args[0])}


def serve(kind: str, model: Path, flags: list[str], limit: float, out: Path) -> None:
    """Start, ask, end; everything is written to ``out``."""
    words = ["--model", str(model), "--served-model-name", "model", "--max-model-len", LENGTH[kind]]
    words += ["--max-num-seqs", SEQS, *flags]
    # The server finds its own packages and what changes them, and nothing of this checkout.
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part != CHECKOUT]
    env = {"PYTHONPATH": os.pathsep.join(path)}
    log = out.with_suffix(".server.log")
    begun = time.monotonic()
    try:
        with run_server(IN_IMAGE / "entrypoint", words, env, PORT, limit, log) as server:
            seen = {**told([line for _, line in server.lines], "healthy", begun), "stages": server.stages()}
            write_atomically(out, json.dumps(seen))
            try:
                seen |= ask(kind, server, out.parent)
            except Exception as error:
                seen |= {"answers": {}, "wrong": f"{type(error).__name__}: {error}"[:1500]}
            seen |= told([line for _, line in server.lines], "healthy", begun) | {"seconds": seen["seconds"]}
    except ServerFailed as error:
        how = "late" if str(error).startswith(LATE) else "ended"
        lines = [line[9:] for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        seen = {**told(lines, how, begun), "error": str(error).splitlines()[0].rstrip(":")}
    write_atomically(out, json.dumps(seen))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(LENGTH))
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flags", type=json.loads, default=[], help="of the server: a JSON list")
    words = parser.parse_args()
    serve(words.kind, words.model, words.flags, words.limit, words.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
