"""On a card, inside an image: call what the stand-ins stand in for, on purpose. One JSON line on stdout.

    docker run --rm --gpus all --entrypoint python -v FILE:/call.py:ro IMAGE /call.py

Each case is computed on the card by torch. Where the library is a stand-in, torch must raise RuntimeError and the
stand-in's sentence must be on stderr; where the real one is there, the answer must be right. Needs torch alone. Exit
code 0 when every case is one of the two, 1 when one is neither, 3 when there is no card.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

SAID = "cardstock: stand-in called: "
NO_CARD = 3


@contextlib.contextmanager
def stderr_into(told: list[str]) -> Iterator[None]:
    """Collect what anybody in this process writes to file descriptor 2, libraries included."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            told.append(file.read(1 << 16).decode(errors="replace"))


def cases(torch: Any) -> dict[str, tuple[str, Callable[[], bool]]]:
    """Name -> the library behind it, and a computation that says whether its answer is right."""
    square = torch.tensor([[2.0, 1.0], [1.0, 3.0]], device="cuda")

    def fft() -> bool:
        line = torch.arange(8, dtype=torch.float32, device="cuda")
        return bool(torch.allclose(torch.fft.ifft(torch.fft.fft(line)).real, line, atol=1e-4))

    def eigh() -> bool:
        values, vectors = torch.linalg.eigh(square)
        return bool(torch.allclose(vectors @ torch.diag(values) @ vectors.T, square, atol=1e-4))

    def sparse() -> bool:
        return bool(torch.allclose(torch.sparse.mm(square.to_sparse_csr(), square), square @ square, atol=1e-4))

    def cholesky() -> bool:
        lower = torch.linalg.cholesky(square)
        return bool(torch.allclose(lower @ lower.T, square, atol=1e-4))

    return {
        "torch.fft.fft": ("libcufft", fft),
        "torch.linalg.eigh": ("libcusolver", eigh),
        "torch.linalg.cholesky": ("libcusolver", cholesky),
        "torch.sparse.mm": ("libcusparse", sparse),
    }


def stand_ins() -> list[str]:
    """Paths of the image's stand-ins below site-packages."""
    rows: list[dict[str, Any]] = []
    for found in metadata.distributions(name="cardstock-stand-ins"):
        rows += json.loads(found.read_text("stand_ins.json") or "{}").get("stand_ins", [])
    return [str(row["file"]) for row in rows]


def attempt(compute: Callable[[], bool]) -> dict[str, Any]:
    """Right or not, what was raised, and what a stand-in said."""
    told: list[str] = []
    row: dict[str, Any] = {"right": None, "raised": "", "message": ""}
    with stderr_into(told):
        try:
            row["right"] = compute()
        except Exception as error:
            row |= {"raised": type(error).__name__, "runtime_error": isinstance(error, RuntimeError)}
            row["message"] = " ".join(str(error).split())[:300]
    row["said"] = [line for line in told[0].splitlines() if SAID in line]
    return row


def judge(row: dict[str, Any], library: str, there: list[str], said_before: bool) -> str:
    """What a case was: "stand-in", "real", or what is wrong with it."""
    if not any(f"/{library}.so" in file for file in there):
        return "real" if row["right"] else "the real library gave no right answer"
    if not row.get("runtime_error"):
        return "torch raised no RuntimeError"
    return "stand-in" if row["said"] or said_before else "the stand-in said nothing"


def main() -> int:
    """Every case in this process; a stand-in says its sentence once."""
    import torch

    if not torch.cuda.is_available():
        print(json.dumps({"ok": False, "why": "torch sees no card"}))
        return NO_CARD
    there, told, rows = stand_ins(), set[str](), {}
    for name, (library, compute) in cases(torch).items():
        row = attempt(compute)
        row["verdict"] = judge(row, library, there, library in told)
        told |= {library} if row["said"] else set()
        rows[name] = row
    ok = all(row["verdict"] in ("stand-in", "real") for row in rows.values())
    card = torch.cuda.get_device_name(0)
    print(json.dumps({"ok": ok, "card": card, "torch": torch.__version__, "stand_ins": there, "cases": rows}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
