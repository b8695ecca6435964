"""YAML for programs of others: every text is quoted that any of their readers could take for something else."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """PyYAML follows YAML 1.1. Docker Compose and Kubernetes read with Go's libraries, which know more forms."""

    def ignore_aliases(self, data: Any) -> bool:
        """What stands in two places is written twice: people change one of them."""
        return True


# A text that a resolver knows is quoted. Go's yaml.v3 reads YAML 1.2's numbers (1e3, 0o17), its yaml.v2 takes a bare y
# or n for true and false.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?0[oO][0-7]+)\Z"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]\Z"), list("yYnN"))

# PyYAML takes these for ends of lines, and writes them bare; no other reader does.
_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if _BREAKS.search(text) else None)


_Dumper.add_representer(str, _text)


def to_yaml(value: Any) -> str:
    """The value as one YAML document, keys in their order, long lines whole."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
