"""Finds tests that may pass without a single assertion having run, by reading their source.

An assertion is an ``assert``, a block of ``pytest.raises`` or its like, a mock's ``assert_…``, or a helper of the tests
that asserts itself, called for that alone. One in a loop counts if the loop surely has a turn, and the assertion is
part of every turn: the loop goes over a display that has items, a range of literals, or ``nonempty``
(tests/helpers/nonempty.py); above the assertion stands no ``if`` whose ``else`` lacks one, and before it nothing ends
the turn. A ``for`` in ``assert all(…)`` and ``assert not any(…)`` is a loop too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PYTEST = frozenset("raises warns fail deprecated_call".split())
# These give as many items as they get, or are known by their literal arguments.
KEEPING = frozenset("enumerate iter list map nonempty reversed set sorted tuple zip".split())
LEAVING = (ast.Return, ast.Break, ast.Continue)


@dataclass(frozen=True)
class Module:
    """A file of tests: its name as imported, and its syntax."""

    name: str
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, source: str) -> Module:
        return cls(name, ast.parse(source))

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)]

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """Each name that an import binds, with the module it is of (for ``from a import b``: both a and a.b)."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(one.asname or one.name.split(".")[0], one.name) for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                for one in node.names:
                    name = one.asname or one.name
                    found += [(name, node.module or ""), (name, f"{node.module}.{one.name}")]
        return found


@dataclass(frozen=True)
class Reader:
    """Judges statements, knowing which names are helpers that assert and which are modules that are no tests'."""

    helpers: Set[str]
    foreign: Set[str]
    looping: bool = False

    def asserts(self, body: Iterable[ast.stmt]) -> bool:
        """Whether ``body`` has an assertion that counts."""
        for statement in body:
            if self._statement(statement):
                return True
            if self.looping and any(isinstance(node, LEAVING) for node in _walk(statement)):
                return False  # what follows may be left out in every turn
        return False

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.Assert():
                return self._test(node.test)
            case ast.Expr():
                return self.is_assertion(node.value)
            case ast.With() | ast.AsyncWith():
                return any(self.is_assertion(item.context_expr) for item in node.items) or self.asserts(node.body)
            case ast.For() | ast.AsyncFor():
                return has_items(node.iter) and self._turn(node.body)
            case ast.While(test=ast.Constant(value=True)):
                return self._turn(node.body)
            case ast.If():
                branches = map(self.asserts, (node.body, node.orelse))
                return all(branches) if self.looping else any(branches)
            case ast.Try():
                return any(map(self.asserts, (node.body, node.orelse, node.finalbody)))
        return False

    def _turn(self, body: Iterable[ast.stmt]) -> bool:
        return replace(self, looping=True).asserts(body)

    def _test(self, test: ast.expr) -> bool:
        """What ``assert`` is given: ``all`` of nothing, and ``not any`` of nothing, cannot fail."""
        negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        call = test.operand if isinstance(test, ast.UnaryOp) else test
        if not isinstance(call, ast.Call) or _name(call.func) != ("any" if negated else "all"):
            return True
        (argument,) = call.args
        if isinstance(argument, ast.GeneratorExp | ast.ListComp):
            return all(has_items(part.iter) and not part.ifs for part in argument.generators)
        return has_items(argument)

    def is_assertion(self, node: ast.AST) -> bool:
        """Whether the expression is a call of what asserts; one whose answer is used is there for that answer."""
        if isinstance(node, ast.Await):
            return self.is_assertion(node.value)
        if not isinstance(node, ast.Call):
            return False
        if ast.unparse(node.func) == "asyncio.run":
            return self.is_assertion(node.args[0])
        name = _name(node.func)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            if node.func.value.id == "pytest":
                return name in PYTEST
            if node.func.value.id in self.foreign:
                return False
        return name.startswith("assert_") or name in self.helpers


def has_items(node: ast.expr) -> bool:
    """Whether a loop over ``node`` surely runs once, as far as its text alone says."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return any(not isinstance(item, ast.Starred) or has_items(item.value) for item in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes) and bool(node.value)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (has_items(node.left) or has_items(node.right))
    if not isinstance(node, ast.Call):
        return False
    name = _name(node.func)
    if isinstance(node.func, ast.Attribute):
        return name in ("items", "keys", "values", "split") and has_items(node.func.value)
    if name == "nonempty":
        return True
    if name == "range":
        return all(isinstance(part, ast.Constant) for part in node.args) and bool(eval(ast.unparse(node)))  # noqa: S307
    return name in KEEPING and bool(node.args) and all(map(has_items, node.args[name == "map" :]))


def faults(modules: Iterable[Module]) -> list[str]:
    """A line for each test that may pass without an assertion: where it is, its name, and which of the two it is."""
    files = list(modules)
    helpers = _helpers(files)
    found = []
    for module in files:
        reader = _reader(module, helpers)
        for function in module.functions:
            if function.name.startswith("test_") and not reader.asserts(function.body):
                nodes = ast.walk(function)
                any_at_all = any(isinstance(node, ast.Assert) or reader.is_assertion(node) for node in nodes)
                reason = "asserts only where nothing may run" if any_at_all else "asserts nothing"
                found.append(f"{module.name}:{function.lineno}: {function.name} {reason}")
    return found


def _helpers(modules: list[Module]) -> Mapping[str, Set[str]]:
    """Names of functions that assert, by module; a helper may call another one, so until no more are found."""
    helpers: dict[str, set[str]] = {module.name: set() for module in modules}
    more = True
    while more:
        more = False
        for module in modules:
            reader, known = _reader(module, helpers), helpers[module.name]
            rest = (one for one in module.functions if not one.name.startswith("test_") and one.name not in known)
            found = {one.name for one in rest if reader.asserts(one.body)}
            known |= found
            more = more or bool(found)
    return helpers


def _reader(module: Module, helpers: Mapping[str, Set[str]]) -> Reader:
    names, foreign = set(helpers[module.name]), set()
    for bound, of in module.imports:
        names |= helpers.get(of, set())
        if of.split(".")[0] != "tests":
            foreign.add(bound)
    return Reader(names, foreign)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all in it, but for functions, classes and comprehensions, which run elsewhere or not at all."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef, ast.Lambda, ast.comprehension)):
            yield from _walk(child)
