"""Records of runs on cards, read into one form.

Records of earlier programs, and of `./inv smoke --gpus all`, keep their own form; the reader gives them the same
header, and what they held true as steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from images.core import UsageError, read_json
from images.proof.on_card.records.bounds import MOST_BYTES, check_bounds
from images.proof.on_card.records.record import SCHEMA, ActedAs, Figure, GpuRecord, Step

FOLDER = Path(__file__).parents[4] / "records" / "cards"
READ = (1, SCHEMA)


def read_gpu_record(path: Path) -> GpuRecord:
    """The record in ``path``, old or new. Raises UsageError when it is none."""
    return read_with_data(path)[0]


def read_with_data(path: Path) -> tuple[GpuRecord, dict[str, Any]]:
    """The record in ``path``, and the JSON values that it was read of. Raises UsageError when it is none."""
    try:
        data = read_json(path, most=MOST_BYTES)
        check_bounds(data)
        return _read(path.stem, data), data
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path.name} is no record of a run on a card",
            cause=f"{type(error).__name__}: {error}",
            do="write it with images/proof/on_card/prove.py",
            where=str(path),
        ) from error


def read_gpu_records(folder: Path = FOLDER) -> tuple[GpuRecord, ...]:
    """Every record of ``folder`` in order of name. Raises UsageError for a file that is none."""
    return tuple(read_gpu_record(path) for path in sorted(folder.glob("*.json")))


def kept_steps(record: GpuRecord, out: Path) -> GpuRecord:
    """The record with what an earlier run for the same image has left in ``out``."""
    if not out.is_file():
        return record
    told = json.loads(out.read_text(encoding="utf-8"))
    if told["input_hash"] != record.input_hash:
        return record
    figures = tuple(Figure(**{**one, "runs": tuple(one["runs"])}) for one in told["figures"])
    return replace(
        record,
        versions=told["versions"],
        steps=tuple(Step(**one) for one in told["steps"]),
        figures=figures,
        acted=tuple(ActedAs(**one) for one in told.get("acted", ())),
    )


def _read(name: str, data: Mapping[str, Any]) -> GpuRecord:
    if "levels" in data:
        return _from_smoke(name, data)
    return _from_old_form(name, data) if "schema" not in data else _from_schema(name, data)


def _from_schema(name: str, data: Mapping[str, Any]) -> GpuRecord:
    from pydantic import TypeAdapter  # the machines that write records may not have it

    if data["schema"] not in READ:
        raise ValueError(f"schema {data['schema']}, expected {SCHEMA} or older")
    known = {key: value for key, value in data.items() if key != "ok"}
    if unknown := set(known) - set(GpuRecord.__dataclass_fields__):
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    return TypeAdapter(GpuRecord).validate_python({**known, "name": name})


def _from_smoke(name: str, data: Mapping[str, Any]) -> GpuRecord:
    """What `./inv smoke --gpus all` left (images/proof/smoke/record.py): its levels are the steps."""
    from pydantic import TypeAdapter

    if not data["card"]:
        raise ValueError("no card was there: it says nothing of one")
    steps = [
        {"name": one["name"], "verdict": one["status"], **{key: one[key] for key in ("reason", "seconds", "facts")}}
        for one in data["levels"]
        # Level 4 runs on a CPU too where no card is given to it.
        if one["name"] != "server" or one["facts"].get("device") == data["card"]
    ]
    return GpuRecord(
        card=str(data["card"]),
        capability="",
        memory=0,
        driver=str(data["driver"] or ""),
        created=str(data["created"]),
        place="image",
        variant=str(data["variant_id"]),
        input_hash=str(data.get("input_hash", "")),
        versions={},
        steps=TypeAdapter(tuple[Step, ...]).validate_python(steps),
        name=name,
        image_id=str(data["image_id"]),
        engine=f"Docker {data['engine_version']}",
    )


def _from_old_form(name: str, data: Mapping[str, Any]) -> GpuRecord:
    """Records of packages/slim_identity.py, packages/attention_numbers.py and memory/with_transformers.py."""
    gpu = [part.strip() for part in str(data.get("gpu", "")).split(",")]
    card, driver, memory = gpu if len(gpu) == 3 else (str(data["card"]), "", "")
    held = data.get("held", {})
    return GpuRecord(
        card=card,
        capability=str(data["card"]) if data["card"] != card else "",
        memory=int(memory.split()[0]) * 2**20 if memory else int(data.get("total", 0)),
        driver=driver,
        created="",
        place="packages",
        variant="",
        input_hash="",
        versions=_old_versions(data),
        steps=tuple(
            Step(what, "passed", "") if good else Step(what, "failed", "did not hold") for what, good in held.items()
        ),
        name=name,
    )


def _old_versions(data: Mapping[str, Any]) -> dict[str, str]:
    first: Mapping[str, Any] = next(iter(data.get("runs", {}).values()), {})
    versions = {word: data.get(word) or first.get(word) for word in ("python", "torch", "transformers", "flash_attn")}
    return {word: str(version) for word, version in versions.items() if version}
