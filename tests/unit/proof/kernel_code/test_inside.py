"""What runs in an image's container, with stand-ins for Triton: entries there and back, counts, compilers that die."""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from images.core import process
from images.proof.kernel_code import INSIDE
from tests.helpers.nonempty import nonempty


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, INSIDE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ENTRIES, COMPILE = load("kernel_entries"), load("compile_kernels")


class JITFunction:
    """As much of Triton's as is looked at."""

    def __init__(self, module: str, name: str, names: list[str], text: str = "") -> None:
        self.fn = SimpleNamespace(__module__=module, __qualname__=name)
        self.arg_names = names
        self._src = text


def source(constants: dict[Any, Any], signature: dict[str, str], attrs: Any, **more: Any) -> SimpleNamespace:
    function = JITFunction("nowhere", "attend", ["q", "n", "TILE", "k"], "def attend(q, n, TILE, k):\n    pass\n")
    return SimpleNamespace(fn=function, constants=constants, signature=signature, attrs=attrs, **more)


def test_old_and_new_triton_are_written_down_alike() -> None:
    """Triton 3.2 names constants and leaves them out of the signature; 3.3 and newer count places and have all."""
    old = source(
        {"TILE": 32, "n": 1},
        {"q": "*fp16", "n": "i32", "k": "*fp16"},
        SimpleNamespace(arg_properties={"tt.divisibility": (0, 3), "tt.equal_to": (1,)}),
    )
    new = source(
        {(2,): 32, (1,): 1},
        {"q": "*fp16", "n": "constexpr", "TILE": "constexpr", "k": "*fp16"},
        {(0,): [["tt.divisibility", 16]], (3,): [["tt.divisibility", 16]]},
    )
    options = {"num_warps": 8, "num_ctas": 1, "extern_libs": (("libdevice", "/x"),), "enable_fp_fusion": True}
    entry = ENTRIES.entry_of(new, options)
    assert ENTRIES.entry_of(old, options) == {**entry, "constants": {"TILE": 32, "n": 1}}
    assert entry["signature"] == {"q": "*fp16", "n": "constexpr", "TILE": "constexpr", "k": "*fp16"}
    assert entry["divisible"] == ["q", "k"]
    assert entry["options"] == {"num_warps": 8}
    assert (entry["module"], entry["name"]) == ("", "attend")
    assert entry["source"].startswith("def attend(")


def test_an_entry_is_json() -> None:
    values = {(0,): float("-inf"), (1,): None, (2,): (1, True, "x"), (3, 0): 2.5}
    entry = ENTRIES.entry_of(source(values, {}, None), None)
    assert json.loads(json.dumps(entry, allow_nan=False))["constants"] == {
        "q": {"float": "-inf"}, "n": None, "TILE": {"tuple": [1, True, "x"]}, "k.0": 2.5,
    }  # fmt: skip
    assert ENTRIES._read({"float": "-inf"}) == float("-inf")
    assert ENTRIES._read({"tuple": [1, True, "x"]}) == (1, True, "x")


def test_a_value_without_a_form_is_not_guessed_at() -> None:
    with pytest.raises(ENTRIES.CannotWrite, match="object"):
        ENTRIES.entry_of(source({(0,): object()}, {}, None), None)
    with pytest.raises(ValueError, match="unknown form"):
        ENTRIES._read({"pickle": "x"})


def test_a_generated_kernels_number_is_not_part_of_its_key() -> None:
    one = {"name": "t_1", "module": "", "source": "def t_1(q):\n    pass", "constants": {}}
    other = {**one, "name": "t_2", "source": "def t_2(q):\n    pass"}
    assert ENTRIES.key_of(one) == ENTRIES.key_of(other)
    assert ENTRIES.key_of(one) != ENTRIES.key_of({**one, "constants": {"n": 1}})


def test_a_generated_kernel_brings_what_it_calls() -> None:
    made = JITFunction("m", "t_1", ["q"], "def t_1(q):\n    add(q)\n")
    add = JITFunction("m", "add", ["a"], "def add(a):\n    return a\n")
    other, elsewhere = JITFunction("m", "other", []), JITFunction("triton.language", "add2", [])
    made.fn.__globals__ = {"add": add, "other": other, "t_1": made, "add2": elsewhere}
    assert ENTRIES.source_text(made) == "def add(a):\n    return a\n\n\n@triton.jit\ndef t_1(q):\n    add(q)\n"


def test_a_kernel_is_found_below_what_tunes_it() -> None:
    kernel = JITFunction("m", "k", [])
    module = SimpleNamespace(tuned=SimpleNamespace(fn=SimpleNamespace(fn=kernel)), plain=kernel, other=3)
    assert ENTRIES.find(module, "tuned") is kernel
    assert ENTRIES.find(module, "plain") is kernel
    assert ENTRIES.find(module, "other") is ENTRIES.find(module, "missing") is None


PTX = """
.visible .entry attend(
.target sm_90a
// wgmma.mma_async in a comment
\twgmma.fence.sync.aligned;
\twgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%f1}, %rd1, %rd2, 1, 1, 1;
\twgmma.commit_group.sync.aligned;
\t@%p1 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};
\t@!%p1 fma.rn.f32 %f1, %f2, %f3, %f4;
\tfma.rn.f32\t%f1, %f2, %f3, %f4;
\ttcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 64;
\ttcgen05.mma.cta_group::1.kind::f16 [%r1], %rd1, %rd2, %r2, 1;
$L__BB0_1:
"""


def test_instructions_are_counted_by_what_computes() -> None:
    counts = COMPILE._count(PTX)
    assert {name: counts[name] for name in ("wgmma", "mma", "fma", "tcgen05")} == {
        "wgmma": 1, "mma": 1, "fma": 2, "tcgen05": 1,
    }  # fmt: skip


def test_a_compiler_that_dies_or_hangs_costs_its_own_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_one(entry: dict[str, Any], arch: str) -> dict[str, Any]:
        if entry["name"] == "dies":
            os.write(2, b"LLVM ERROR: Unsupported conversion from f16 to f16\n")
            faulthandler.disable()
            os.abort()
        if entry["name"] == "hangs":
            import time

            time.sleep(60)
        if entry["name"] == "raises":
            raise ValueError("no such thing")
        return {"shared": 3}

    monkeypatch.setattr(COMPILE, "compile_one", compile_one)
    kernels = [{"name": name} for name in ("dies", "hangs", "raises", "works")]
    given = {"kernels": kernels, "tasks": [[at, arch] for at in range(4) for arch in ("7.5", "8.0")]}
    results = COMPILE.run_all(given, 4, 1.0)
    assert [(one["kernel"], one["arch"]) for one in results] == [
        (at, arch) for at in range(4) for arch in ("7.5", "8.0")
    ]
    dies, _, hangs, _, raises, _, works, _ = results
    assert "signal 6: LLVM ERROR: Unsupported conversion" in dies["error"]
    assert "signal 9" in hangs["error"]
    assert raises["error"] == "ValueError: no such thing"
    assert works == {"kernel": 3, "arch": "7.5", "ok": True, "shared": 3}


def test_a_process_beside_a_server_writes_down_what_triton_compiles(tmp_path: Path) -> None:
    """sitecustomize.py first on PYTHONPATH, a package triton, another sitecustomize behind it: both run."""
    files = {
        "site/triton/__init__.py": "from triton.compiler import compile\n",
        "site/triton/compiler/__init__.py": "from triton.compiler.compiler import compile\n",
        "site/triton/compiler/compiler.py": """
            from types import SimpleNamespace
            def compile(src, target=None, options=None, _env_vars=None):
                metadata = SimpleNamespace(target=SimpleNamespace(arch=90), shared=77)
                return SimpleNamespace(metadata=metadata, asm={"ttir": "tt.dot tt.dot"})
            """,
        "behind/sitecustomize.py": "import os; os.environ['BEHIND'] = 'ran'\n",
        "program.py": """
            import importlib.util, os
            from types import SimpleNamespace
            assert importlib.util.find_spec("triton")  # as transformers asks, long before it is imported
            import triton
            class JITFunction:
                arg_names = ["q"]
                fn = SimpleNamespace(__module__="m", __qualname__="k")
                _src = "def k(q): pass"
            source = SimpleNamespace(fn=JITFunction(), constants={}, signature={"q": "*fp16"}, attrs={})
            assert triton.compile(source, target=None, options={"num_warps": 4}).metadata.shared == 77
            from triton.compiler import compile
            compile(SimpleNamespace(fn=JITFunction(), constants={"q": object()}, signature={}, attrs={}))
            compile("kernel.ttir")
            print(os.environ["BEHIND"])
            """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    (tmp_path / "written").mkdir()
    path = os.pathsep.join(map(str, (INSIDE, tmp_path / "behind", tmp_path / "site")))
    env = {"PYTHONPATH": path, "CARDSTOCK_TRITON_TRACE": str(tmp_path / "written")}
    done = process.run([sys.executable, str(tmp_path / "program.py")], env=env, timeout=60)
    assert done.out.strip() == "ran"
    (written,) = (tmp_path / "written").iterdir()
    kernel, strange, file = map(json.loads, nonempty(written.read_text().splitlines()))
    assert (kernel["entry"]["signature"], kernel["shared"], kernel["dots"]) == ({"q": "*fp16"}, 77, 2)
    assert "a constant of type builtins.object" in strange["problem"]
    assert file["problem"].startswith("compiled from a file")


def test_a_kernel_is_found_in_a_package_that_wants_a_card_to_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "wants/__init__.py": "whole = True",
        "wants/card/__init__.py": "raise ImportError('no card')",
        "wants/card/ops/rotary.py": "kernel = 7",
        "wants/card/broken.py": "import a_module_that_is_not_there",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert ENTRIES.import_alone("wants.card.ops.rotary").kernel == 7
        assert sys.modules["wants"].whole
        with pytest.raises(ImportError, match="a_module_that_is_not_there"):
            ENTRIES.import_alone("wants.card.broken")
        with pytest.raises(ImportError):
            ENTRIES.import_alone("wants.nothing.more")
    finally:
        for name in [one for one in sys.modules if one.partition(".")[0] == "wants"]:
            del sys.modules[name]
