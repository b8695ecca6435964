"""Writes vllm_flags.json: the flags, variables and compilation settings that each vLLM of the matrix understands.

.venv/bin/python -m tests.golden.make_vllm_flags FOLDER

FOLDER holds one folder a version, such as 0.33.0, with the package `vllm` of that version's source distribution.
Nothing is imported: calls of add_argument, fields of *FrontendArgs and of CompilationConfig, and the names of
environment_variables are read off the syntax trees.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

PATH = Path(__file__).with_name("vllm_flags.json")
PARSERS = (
    "engine/arg_utils.py",
    "entrypoints/openai/cli_args.py",
    "entrypoints/openai/api_server.py",
    "entrypoints/launchers/cli_args.py",
    "entrypoints/common/cli_args.py",
)
CONFIGS = ("config.py", "config/compilation.py")


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else iter(())


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield line.target.id


def flags(package: Path) -> set[str]:
    """Every flag of the server."""
    found: set[str] = set()
    for node in (one for name in PARSERS for one in _nodes(package / name)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            words = (one.value for one in node.args if isinstance(one, ast.Constant))
            found |= {word for word in words if isinstance(word, str) and word.startswith("-")}
        if isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
            found |= {"--" + name.replace("_", "-") for name in _fields(node)}
    return found


def variables(package: Path) -> set[str]:
    """Every variable that vllm/envs.py knows."""
    found: set[str] = set()
    for node in _nodes(package / "envs.py"):
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if getattr(target, "id", "") == "environment_variables":
                found |= {str(one.value) for one in node.value.keys if isinstance(one, ast.Constant)}
    return found


def compilation(package: Path) -> set[str]:
    """The fields of CompilationConfig."""
    nodes = (one for name in CONFIGS for one in _nodes(package / name))
    return {
        name
        for one in nodes
        if isinstance(one, ast.ClassDef) and one.name == "CompilationConfig"
        for name in _fields(one)
    }


def main() -> int:
    """Command line."""
    told = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        package = folder / "vllm" if (folder / "vllm").is_dir() else folder
        kinds = {"flags": flags, "environment": variables, "compilation_config": compilation}
        told[folder.name] = {name: " ".join(sorted(read(package))) for name, read in kinds.items()}
    PATH.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
