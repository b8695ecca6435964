"""Steps with content that is cut for another card: preflight must name the right image, and without it CUDA refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from images.core import process
from images.device_code.choose import parse_wanted
from images.proof.on_card.runs import Failed, NotRun, Run, ServerFailed, read_env, run_server
from images.proof.on_card.shaped import messages
from images.proof.smoke import chat_request

OTHER = "7.5"
# The image whose content is taken: its own packages are this machine's, its torch cut for OTHER.
OTHER_VARIANT = "cu130-transformers5.24.0-sdpa-sm75"
KERNEL_IMAGE = "no kernel image is available"
REFUSED = 4


def slim_for_other(run: Run) -> dict[str, Any]:
    """A copy of torch, stripped and slimmed for OTHER as a build does it, becomes the content "other".

    Raises NotRun in an image: its torch is slimmed already, and has no code of OTHER left.
    """
    if run.record.place != "packages":
        raise NotRun("this image's torch is slimmed for its own cards already: it has no other card's code")
    from images.proof.on_card.packages import slim_copy  # reads torch's place, so only where there is one

    shutil.rmtree(run.scratch / "other", ignore_errors=True)
    site, facts = slim_copy(run.scratch, "other", parse_wanted(OTHER))
    run.sites["other"] = site
    archs = sorted({arch for one in facts["libraries"] for arch in one["archs_after"]})
    return {"archs": archs, "seconds": facts["seconds"], "stands for": OTHER_VARIANT}


def _env(run: Run) -> dict[str, str]:
    return run.env("other", **read_env(OTHER_VARIANT))


def refused(run: Run, model: Path, right: str) -> dict[str, Any]:
    """The entry point ends with 4 before anything is imported, and names the image ``right``."""
    words = [str(run.entrypoint), "--model", str(model)]
    done = process.run([sys.executable, *words], env=_env(run), check=False, timeout=60)
    facts = {"code": done.code, "said": done.err.splitlines()[:12], "right": right}
    if done.code != REFUSED:
        raise Failed(f"it ended with {done.code}, documented is {REFUSED}", facts)
    if f":{right} " not in done.err:
        raise Failed(f"it does not name {right}", facts)
    return facts


def skipped(run: Run, model: Path) -> dict[str, Any]:
    """With CARDSTOCK_SKIP_PREFLIGHT=1 the server ends, or answers 500, with CUDA's kernel-image error."""
    if "other" not in run.sites:
        raise NotRun("there is no content for another card")
    env = _env(run) | {"CARDSTOCK_SKIP_PREFLIGHT": "1"}
    words = ["--model", str(model), "--served-model-name", "model", "--max-model-len", "2048"]
    try:
        with run_server(run.entrypoint, words, env, 8120, 120, run.scratch / "server-other.log") as server:
            request = chat_request("model", messages("text"), max_tokens=4)
            answer = server.client.call("POST", "/v1/chat/completions", request)
            log, how = server.tail(60), f"got healthy, then answered {answer.status}"
    except ServerFailed as error:
        log, how = str(error), "ended while starting"
    line = next((line for line in log.splitlines() if KERNEL_IMAGE in line), "")
    if not line:
        raise Failed(f"it {how}, and its log does not tell of a kernel image: {log[-800:]}")
    return {"how": how, "error": line.strip()[:300]}
