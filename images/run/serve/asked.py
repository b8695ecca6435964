"""What is asked for as a model: by fit's own name, a folder or config.json, a hub's config.json, or its name alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from images.core import RegistryFailure
from images.run.fit import (
    Model,
    by_name_alone,
    from_config,
    is_repository,
    not_understood,
    published,
    read_config_file,
    read_model,
    refuse_others,
    typed_name,
)
from images.run.serve.hub import read_config

_NO = ("", "0", "false", "no", "off")


def asked_model(
    text: str, environment: Mapping[str, str], ca: Path | None, tell: Callable[[str], None], config: str = ""
) -> Model:
    """The model of ``text``; ``config`` is its config.json where that lies here, ``tell`` hears what is only assumed.

    A published checkpoint is known by its exact name. Anybody else's repository is asked for its config.json: at the
    hub, unless HF_HUB_OFFLINE is set. Where no hub answers, its name counts if each word of it is understood. Raises
    UsageError for what is none of these, RegistryFailure (6) where neither the hub nor the name tells.
    """
    if config:
        return read_config_file(config, typed_name(text))
    name = typed_name(text)
    if not is_repository(name) or Path(text).expanduser().exists() or published(text):
        return read_model(text)
    refuse_others(text)
    try:
        if environment.get("HF_HUB_OFFLINE", "").strip().lower() not in _NO:
            raise RegistryFailure(f"{name} was not looked up", cause="HF_HUB_OFFLINE is set", do="unset it")
        return replace(from_config(read_config(name, environment, ca), name), called=name)
    except RegistryFailure as error:
        found = by_name_alone(text)
        if found is None:
            told = not_understood(text)
            raise RegistryFailure(
                error.what, cause=f"{error.cause}; and {told.what}: {told.cause}", do=f"{error.do}; or {told.do}"
            ) from error
        tell(f"{error.what} ({error.cause}): --config FILE says for sure what it is")
        return found
