"""A run: the machine's places, the record that grows step by step, the programs that steps start."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from images.core import UTC, process, write_atomically
from images.device_code.stand_ins.source import CALLS
from images.proof.on_card.records import Figure, GpuRecord, Seal, Step, Verdict, content_hash

ROOT = Path(__file__).parents[4]
IN_IMAGE = Path("/opt/cardstock")
ROOTFS = ROOT / "dockerfiles" / "rootfs" / "opt" / "cardstock"
# What an image's environment says that matters on a host without the image: not its paths.
PASSED_ON = re.compile(r'^\s*(?:ENV )?((?:CARDSTOCK|NVIDIA_REQUIRE|VLLM(?!_CACHE)|RAY)_\w+)=(".*?"|\'.*?\')', re.M)
TAIL = 1500


class Failed(Exception):
    """A step failed: the reason for the record, and as second argument its facts, if any."""


class NotRun(Exception):
    """A step cannot be tried on this machine, or came to no end: why, and as second argument its facts, if any."""


@dataclass
class Run:
    """One run of a program whose steps make a record.

    ``sites`` maps a content ("slimmed", "untouched"; "image" inside one) to the folder of its packages, None for this
    Python's own; ``also`` are folders of further packages. ``only`` are globs on the names of steps.
    """

    record: GpuRecord
    out: Path
    scratch: Path
    sites: dict[str, Path | None]
    also: tuple[Path, ...] = ()
    only: tuple[str, ...] = ("*",)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def entrypoint(self) -> Path:
        """The image's own inside an image, else the checkout's."""
        return (ROOTFS if self.record.place == "packages" else IN_IMAGE) / "entrypoint"

    def step(self, name: str, action: Callable[[], Mapping[str, Any]]) -> None:
        """Try it unless ``only`` leaves it out, and write the record."""
        if not any(fnmatch(name, glob) for glob in self.only):
            return
        begun, facts = time.monotonic(), {}
        verdict: Verdict = "passed"
        reason = ""
        try:
            facts = dict(action())
        except NotRun as error:
            verdict, reason, facts = "not run", str(error.args[0]), dict(*error.args[1:])
        except Failed as error:
            verdict, reason, facts = "failed", str(error.args[0]), dict(*error.args[1:])
        except Exception as error:
            verdict, reason = "failed", "".join(traceback.format_exception(error)[-3:])[-TAIL:]
        seconds = round(time.monotonic() - begun, 1)
        step = Step(name, verdict, reason, seconds, facts)
        kept = tuple(one for one in self.record.steps if one.name != name)
        self.record = replace(self.record, steps=(*kept, step))
        self.save()
        print(f"{verdict}: {name} ({seconds} s){': ' + reason if reason else ''}", flush=True)

    def add(self, figures: Sequence[Figure]) -> None:
        """Add figures to the record; a new one replaces the one of the same name and kind."""
        new = {(one.name, tuple(sorted(one.of.items()))) for one in figures}
        kept = [one for one in self.record.figures if (one.name, tuple(sorted(one.of.items()))) not in new]
        self.record = replace(self.record, figures=(*kept, *figures))
        self.save()

    def save(self) -> None:
        """The record as it is now, whole; a seal of what it was before is no seal of it."""
        self.record = replace(self.record, ended=datetime.now(UTC).isoformat(timespec="seconds"), seal=None)
        write_atomically(self.out, self.record.to_json())

    def seal(self, ask: Callable[[str], Seal]) -> None:
        """Put the seal on: ``ask`` has the image answer the question of this seed."""
        self.save()
        self.record = replace(self.record, seal=ask(content_hash(self.record.as_data())))
        write_atomically(self.out, self.record.to_json())

    def env(self, content: str, **more: str) -> dict[str, str]:
        """Environment for a process that is to use this content's packages; caches below the scratch folder."""
        site = self.sites.get(content)
        path = [str(ROOT), *([str(site)] if site else []), *map(str, self.also)]
        cache = self.scratch / "cache" / content
        cache.mkdir(parents=True, exist_ok=True)
        own = {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TRITON_CACHE_DIR": str(cache / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "VLLM_CACHE_ROOT": str(cache / "vllm"),
            "CUDA_CACHE_PATH": str(cache / "cuda"),
            CALLS: str(self.calls_file(content)),
        }
        return own | self.image_env() | more

    def calls_file(self, content: str) -> Path:
        """Where this content's stand-ins note that they were called."""
        return self.scratch / f"stand-in-calls-{content}"

    def image_env(self) -> dict[str, str]:
        """What the image's environment says of itself; inside an image it is there already."""
        if self.record.place != "packages" or not self.record.variant:
            return {}
        return read_env(self.record.variant)

    def python(self, content: str, words: Sequence[str], *, limit: float = 400) -> process.Finished:
        """Run this Python with a content's packages to its end. Raises Failed when it does not end with 0."""
        done = process.run([sys.executable, *words], env=self.env(content), check=False, timeout=limit)
        if done.code:
            raise Failed(f"{words[0]} ended with {done.code}: {(done.err or done.out)[-TAIL:]}")
        return done

    def worker(self, content: str, words: Sequence[str]) -> Any:
        """Run a program (its module, and words) that writes JSON to --out, and read it."""
        file = self.scratch / "told.json"
        file.unlink(missing_ok=True)
        self.python(content, ["-m", *words, "--out", str(file)])
        return json.loads(file.read_text())


def read_env(variant: str) -> dict[str, str]:
    """The rendered Dockerfile's environment, as far as it does not name places of the image."""
    text = (ROOT / "dockerfiles" / "rendered" / variant / "Dockerfile").read_text(encoding="utf-8")
    return {name: value[1:-1] for name, value in PASSED_ON.findall(text)}
