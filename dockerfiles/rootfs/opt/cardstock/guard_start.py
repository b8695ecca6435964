"""What the entrypoint adds so that vLLM's server starts behind the guard, and which models it does not start with.

The guard is the last ``--middleware``, and so the outermost; middleware of the user's is added to it and never in its
place. Variables win over the image's own flags, and flags of the user's over both. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import guard_settings  # type: ignore[import-not-found,unused-ignore]

MIDDLEWARE = ["--middleware", "guard.Guard"]
FOLDER = Path(__file__).resolve().parent / "middleware"
LIMITS = "--limit-mm-per-prompt"
DOCS = "--disable-fastapi-docs"
PICKLED = (".bin", ".pt", ".pth")
CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
MOST_CONFIG = 2**24


class Refused(Exception):
    """Nothing can be started; the message says why and what to do."""


def values(words: Sequence[str], flag: str) -> list[str] | None:
    """What follows the last of a flag, in either form (--flag a b, --flag=a); None where it is not given."""
    found: list[str] | None = None
    inside = False
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            inside = name.replace("_", "-") == flag and not equals
            if name.replace("_", "-") == flag:
                found = [value] if equals else []
        elif inside and found is not None:
            found.append(word)
    return found


def is_on(environment: Mapping[str, str]) -> bool:
    """Whether this container's server has the guard before it. Raises Refused for a value that makes no sense."""
    if environment.get("CARDSTOCK_ENGINE") != "vllm":
        return False
    return _read(environment, "CARDSTOCK_GUARD", True)


def variables(user: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to set: what the guard must know of the user's flags, and where Python finds it. Raises Refused."""
    below = [str(FOLDER), environment.get("PYTHONPATH", "")]
    out = {"PYTHONPATH": os.pathsep.join(filter(None, below))}
    if keys := values(user, "--api-key"):
        out["CARDSTOCK_GUARD_KEYS"] = json.dumps([key for key in keys if key])
    _check_config_file(user)
    if (given := values(user, LIMITS)) is not None:
        counts = limits(" ".join(given))
        out["CARDSTOCK_MAX_IMAGES"] = environment.get("CARDSTOCK_MAX_IMAGES") or str(max(1, counts.get("image", 1)))
        out["CARDSTOCK_VIDEO"] = environment.get("CARDSTOCK_VIDEO") or str(int(counts.get("video", 0) > 0))
    if origins := values(user, "--allowed-origins"):
        out["CARDSTOCK_ALLOWED_ORIGINS"] = environment.get("CARDSTOCK_ALLOWED_ORIGINS") or " ".join(_list(origins[0]))
    try:
        settings = guard_settings.read({**environment, **out})
    except ValueError as error:
        raise Refused(f"{error}\n  where: docs/serve.md, What the server lets in") from error
    # vLLM's own limit of a picture, where it has one, is the guard's: one that is set wins.
    out["VLLM_MAX_IMAGE_PIXELS"] = environment.get("VLLM_MAX_IMAGE_PIXELS") or str(settings.image_pixels)
    return out


def guarded(argv: Sequence[str], user: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The server's command line with the guard; ``environment`` has `variables` already. Raises Refused."""
    out = list(argv)
    if _read(environment, "CARDSTOCK_DOCS", False) and values(user, DOCS) is None:
        out = [word for word in out if word != DOCS]
    if values(user, LIMITS) is None and (own := values(out, LIMITS)) is not None:
        out[out.index(own[0])] = _opened(own[0], environment)
    if values(out, "--allowed-origins") is None:
        origins = environment.get("CARDSTOCK_ALLOWED_ORIGINS", "").replace(",", " ").split()
        out += ["--allowed-origins", json.dumps(origins)]
    return [*out, *MIDDLEWARE]


def limits(text: str) -> dict[str, int]:
    """Counts of --limit-mm-per-prompt, in either form; what cannot be read is vLLM's to refuse."""
    try:
        found = json.loads(text) if text.strip().startswith("{") else dict(p.split("=", 1) for p in text.split(","))
        counts = {name: one.get("count", 1) if isinstance(one, dict) else one for name, one in found.items()}
        return {name: int(count) for name, count in counts.items()}
    except (ValueError, TypeError):
        return {}


def _opened(own: str, environment: Mapping[str, str]) -> str:
    counts = limits(own)
    counts["image"] = int(environment.get("CARDSTOCK_MAX_IMAGES") or counts.get("image", 1))
    counts["video"] = int(_read(environment, "CARDSTOCK_VIDEO", False))
    if own.strip().startswith("{"):
        return json.dumps(counts)
    return ",".join(f"{name}={count}" for name, count in counts.items())


def check_model(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Flags to add for the model's weights. Raises Refused for weights or code that would run what they hold."""
    folder = Path((values(argv, "--model") or [""])[0])
    if not _read(environment, "CARDSTOCK_REMOTE_CODE", False):
        _check_code(argv, folder)
    if environment.get("CARDSTOCK_WEIGHTS", "any") != "safetensors":
        return []
    why = (
        "this image's torch runs code that such a file holds, whatever it is told (CVE-2025-32434, CVE-2026-24747)\n"
        "  do: take the model in safetensors, or convert it where you trust it; CARDSTOCK_WEIGHTS=any loads it as it is"
    )
    if folder.is_dir():
        names = [path.name for path in folder.iterdir()]
        pickled = sorted(name for name in names if name.endswith(PICKLED))
        if pickled and not any(name.endswith(".safetensors") for name in names):
            raise Refused(f"{folder} has its weights in {pickled[0]} alone, and only safetensors are loaded: {why}")
    format_ = values(argv, "--load-format")
    if format_ and format_[0] in ("auto", "pt", "npcache"):
        raise Refused(f"--load-format {format_[0]} may read pickled weights, and only safetensors are loaded: {why}")
    return ["--load-format", "safetensors"] if format_ is None and environment.get("CARDSTOCK_ENGINE") == "vllm" else []


def _check_code(argv: Sequence[str], folder: Path) -> None:
    do = "the models of these images need none; CARDSTOCK_REMOTE_CODE=1 takes it all the same"
    if values(argv, "--trust-remote-code") is not None:
        raise Refused(f"--trust-remote-code runs code that comes with a model\n  do: leave it out: {do}")
    for name in CONFIGS:
        path = folder / name
        try:
            found = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size < MOST_CONFIG else {}
        except (OSError, ValueError):
            continue  # the server says what is wrong with it
        if isinstance(found, dict) and "auto_map" in found:
            raise Refused(f"{path} names code of its own (auto_map), which some vLLM run unasked\n  do: {do}")


def _check_config_file(user: Sequence[str]) -> None:
    """A key in vLLM's --config file would be asked for by vLLM alone, which does not ask on every path."""
    for name in values(user, "--config") or []:
        try:
            lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        if any(line.strip().replace("_", "-").startswith("api-key") for line in lines):
            raise Refused(
                f"{name} holds the key\n  do: give it by VLLM_API_KEY or --api-key: then every path asks for it"
            )


def _list(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _read(environment: Mapping[str, str], name: str, default: bool) -> bool:
    try:
        return bool(guard_settings.switched(environment, name, default))
    except ValueError as error:
        raise Refused(str(error)) from error
