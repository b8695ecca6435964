"""A Triton kernel and all that its compiler was told, as JSON, and back: what the tracer writes and the compiler reads.

Runs in the image beside any Triton from 3.1 on. An entry has

- ``module`` and ``name``: where the function of ``@triton.jit`` stands; of a kernel that was generated (as
  torch.compile does) there is ``source`` instead, its text;
- ``signature``: each argument's type by name, in order, "constexpr" for constants, as Triton 3.3 and newer write it;
- ``constants``: values by argument ("x"), or by argument and places in it ("x.0") for parts of a tuple;
- ``divisible``: names of arguments that are multiples of 16;
- ``options``: warps, stages and what else the launch said; not what Triton derives of the card.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
from types import ModuleType
from typing import Any

# Options of a launch. All others follow from the card, the installation or the environment.
OPTIONS = (
    "num_warps",
    "num_stages",
    "num_ctas",
    "maxnreg",
    "enable_fp_fusion",
    "launch_cooperative_grid",
    "launch_pdl",
)
PLAIN = {
    "num_ctas": 1,
    "maxnreg": None,
    "enable_fp_fusion": True,
    "launch_cooperative_grid": False,
    "launch_pdl": False,
}
DIVISIBILITY = "tt.divisibility"
# What torch.compile writes above its kernels.
HEADER = """import triton
import triton.language as tl
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math

@triton.jit
"""


class CannotWrite(ValueError):
    """A value that has no form in JSON here."""


# -- writing


def entry_of(source: Any, options: dict[str, Any] | None) -> dict[str, Any]:
    """The entry of what Triton is asked to compile (an ASTSource). Raises CannotWrite."""
    function = source.fn
    names = list(function.arg_names)
    constants = {_place(key, names): _value(value) for key, value in dict(source.constants or {}).items()}
    signature = dict.fromkeys(names, "constexpr")
    signature |= {name: _type(kind) for name, kind in source.signature.items()}
    for key in constants:
        if "." not in key:
            signature[key] = "constexpr"
    entry: dict[str, Any] = {"module": function.fn.__module__, "name": function.fn.__qualname__}
    if not _importable(function):
        entry |= {"module": "", "source": source_text(function)}
    told = {name: (options or {}).get(name) for name in OPTIONS if name in (options or {})}
    entry |= {
        "signature": signature,
        "constants": constants,
        "divisible": sorted(_divisible(source.attrs, names) - set(constants), key=names.index),
        "options": {name: value for name, value in told.items() if PLAIN.get(name, ...) != value},
    }
    return entry


def source_text(function: Any) -> str:
    """The function's own text from ``def`` on; before it that of functions of its module that it calls."""
    text = _text(function)
    near = getattr(function.fn, "__globals__", {})
    called = [
        value
        for name, value in near.items()
        if is_kernel(value)
        and value is not function
        and value.fn.__module__ == function.fn.__module__
        and re.search(rf"\b{re.escape(name)}\(", text)
    ]
    return "".join(f"{source_text(one)}\n\n@triton.jit\n" for one in called) + text


def _text(function: Any) -> str:
    return str(getattr(function, "src", None) or getattr(function, "_src", ""))


def _importable(function: Any) -> bool:
    module, name = function.fn.__module__, function.fn.__qualname__
    if "<locals>" in name or not getattr(sys.modules.get(module), "__spec__", None):
        return False
    file = getattr(sys.modules[module], "__file__", "") or ""
    return "site-packages" in file and find(sys.modules[module], name) is not None


def _place(key: Any, names: list[str]) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int):
        return names[key]
    first, *rest = key
    return ".".join([first if isinstance(first, str) else names[first], *map(str, rest)])


def _type(kind: Any) -> Any:
    return [_type(one) for one in kind] if isinstance(kind, tuple | list) else str(kind)


def _value(value: Any) -> Any:
    if type(value).__name__ == "constexpr":
        value = value.value
    if value is None or isinstance(value, bool | str):
        return str(value) if type(value) is not bool and isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, tuple | list):
        return {"tuple": [_value(one) for one in value]}
    if type(value).__name__ == "dtype" and type(value).__module__.startswith("triton"):
        return {"dtype": str(value)}
    if is_kernel(value):
        return {"jit": f"{value.fn.__module__}:{value.fn.__qualname__}"}
    raise CannotWrite(f"a constant of type {type(value).__module__}.{type(value).__qualname__}: {value!r:.80}")


def _divisible(attrs: Any, names: list[str]) -> set[str]:
    if attrs is None:
        return set()
    if hasattr(attrs, "arg_properties"):  # Triton 3.1 and 3.2
        return {names[at] for at in attrs.arg_properties.get(DIVISIBILITY, ())}
    return {
        names[key[0]]
        for key, told in dict(attrs).items()
        if len(key) == 1 and any(name == DIVISIBILITY and value == 16 for name, value in told)
    }


def key_of(entry: dict[str, Any]) -> str:
    """The same for what compiles to the same code: names of generated kernels, which count up, are left out."""
    own = dict(entry)
    if own.get("source"):
        own["source"] = re.sub(rf"\bdef {re.escape(own['name'])}\(", "def kernel(", own["source"])
        own["name"] = ""
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


# -- reading


def find(module: Any, name: str) -> Any:
    """The JIT function ``name`` of a module, taken out of what tunes or chooses for it; None where there is none."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    while found is not None and not is_kernel(found):
        found = getattr(found, "fn", None)
    return found


def is_kernel(found: Any) -> bool:
    """Whether it is a JITFunction, of whichever version."""
    return any(kind.__name__ == "JITFunction" for kind in type(found).__mro__)


def import_alone(name: str) -> ModuleType:
    """A module, without the code of packages around it that want a card to be imported, as vllm.vllm_flash_attn does.

    Raises what importing it raises: ImportError where it is not there.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        parts = name.split(".")
        for count in range(1, len(parts)):
            _import_or_stand_in(".".join(parts[:count]))
        return importlib.import_module(name)


def _import_or_stand_in(package: str) -> None:
    """Import a package, or put an empty one with its folders in its place."""
    try:
        importlib.import_module(package)
    except ImportError:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise
        module = ModuleType(package)
        module.__path__, module.__spec__ = list(spec.submodule_search_locations), spec
        sys.modules[package] = module


def function_of(entry: dict[str, Any]) -> Any:
    """The JIT function of an entry. Raises ImportError, or LookupError where the module has none of that name."""
    if entry.get("source"):
        return _made(entry)
    module = import_alone(entry["module"])
    function = find(module, entry["name"])
    if function is None:
        raise LookupError(f"{entry['module']} has no Triton kernel {entry['name']}")
    return function


def _made(entry: dict[str, Any]) -> Any:
    # Triton reads a function's text from its file.
    folder = tempfile.mkdtemp(prefix="kernel-")
    path = os.path.join(folder, "made.py")  # noqa: PTH118  (as little as can be is imported here)
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(HEADER + entry["source"])
    spec = importlib.util.spec_from_file_location("made", path)
    if spec is None or spec.loader is None:
        raise LookupError("the text of a generated kernel cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, entry["name"], None)
    if function is None:
        raise LookupError("the text of a generated kernel has not its function")
    return function


def source_of(entry: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What `triton.compile` takes: an ASTSource, and the options. Raises what `function_of` does, and ValueError."""
    from triton.compiler import ASTSource

    function = function_of(entry)
    names = list(function.arg_names)
    told = entry["signature"]
    if names != list(told):
        raise ValueError(f"its arguments are {', '.join(names)}; the list has {', '.join(told)}")
    constants = {key: _read(value) for key, value in entry["constants"].items()}
    divisible = [names.index(name) for name in entry["divisible"]]
    options = dict(entry["options"])
    try:
        from triton.backends.compiler import AttrsDescriptor
    except ImportError:
        places = {
            (names.index(key.partition(".")[0]), *map(int, key.split(".")[1:])): value
            for key, value in constants.items()
        }
        signature = {name: _kind(kind) for name, kind in told.items()}
        attrs = {(at,): [[DIVISIBILITY, 16]] for at in divisible}
        return ASTSource(function, signature, places, attrs), options
    # Triton 3.1 and 3.2: only what is no constant has a type.
    signature = {name: kind for name, kind in told.items() if kind != "constexpr"}
    attrs = AttrsDescriptor.from_hints(dict.fromkeys(divisible, 16))
    return ASTSource(function, signature, constants, attrs), options


def _kind(kind: Any) -> Any:
    return tuple(_kind(one) for one in kind) if isinstance(kind, list) else kind


def _read(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    (form, content), *_ = value.items()
    if form == "float":
        return float(content)
    if form == "tuple":
        return tuple(_read(one) for one in content)
    if form == "dtype":
        import triton.language as tl

        return tl.dtype(content)
    if form == "jit":
        module, _, name = content.partition(":")
        return find(importlib.import_module(module), name)
    raise ValueError(f"an unknown form of constant: {form}")
