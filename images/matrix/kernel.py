"""A kernel wheel: an attention package compiled from its source distribution for certain cards. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from images.matrix.arch import Arch, join_sm, parse_arch

XFORMERS = "xformers"
FLASH_ATTN = "flash-attn"
FLASHINFER = "flashinfer"

# Thrust and CUB, which torch's headers include, put the whole arch list into the names of their inline namespaces. Then
# one more arch changes what every other arch is compiled from, and no compiler cache can help. The names keep apart
# libraries that call CUB's algorithms; neither package does (no "cub/" or "thrust/" in their sources).
APPENDED = (
    "-DTHRUST_DISABLE_ABI_NAMESPACE -DTHRUST_IGNORE_ABI_NAMESPACE_ERROR "
    "-DCUB_DISABLE_NAMESPACE_MAGIC -DCUB_IGNORE_NAMESPACE_MAGIC_ERROR"
)


@dataclass(frozen=True)
class Kernel:
    """One kernel wheel to build; variants with equal kernels share it. ``package`` is an attention of the matrix.

    ``torch`` as pinned, ``cuda`` such as "12.4", ``python`` such as "3.11". ``lock`` names the lock whose nvidia, build
    and package parts it is built with. ``archs`` is what its device code must hold, neither more nor less. ``env`` is
    the environment of its build: arch list and flags.
    """

    package: str
    version: str
    torch: str
    cuda: str
    python: str
    lock: str
    archs: tuple[Arch, ...]
    env: tuple[tuple[str, str], ...]

    @property
    def distribution(self) -> str:
        """The name that its wheel is installed under."""
        return "flashinfer-jit-cache" if self.package == FLASHINFER else self.package

    @property
    def id(self) -> str:
        """Such as "xformers0.0.29.post2-torch2.6.0-cu124-sm75": its folder and what people call it.

        Torch stands there without its local part, which would say the CUDA version again.
        """
        torch = self.torch.partition("+")[0]
        cuda = self.cuda.replace(".", "")
        return f"{self.package}{self.version}-torch{torch}-cu{cuda}-{join_sm(self.archs)}"

    @property
    def target(self) -> str:
        """Its bake target; bake allows no dots in names."""
        return "kernel-" + self.id.replace(".", "-")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Its archs as text: ("7.0", "7.5")."""
        return tuple(arch.capability for arch in self.archs)


def make_kernel(
    package: str, version: str, *, torch: str, cuda: str, python: str, lock: str, cards: tuple[Arch, ...]
) -> Kernel:
    """The kernel of a package for these cards, with the archs and the build environment that its build understands.

    Raises ValueError for a package without a recipe.
    """
    if package == XFORMERS:
        archs, env = tuple(sorted(set(cards))), _xformers_env(cards)
    elif package == FLASH_ATTN:
        # The build understands 80, 90, 100 and 120 only; 8.6 and 8.9 cards run the 8.0 code (setup.py@2.8.3).
        archs = tuple(parse_arch(f"{major}.0") for major in sorted({card.major for card in cards}))
        env = _flash_attn_env(archs)
    elif package == FLASHINFER:
        archs = tuple(sorted(set(cards)))
        env = _flashinfer_env(archs)
    else:
        raise ValueError(f"no recipe for {package}")
    return Kernel(package, version, torch, cuda, python, lock, archs, tuple(env.items()))


def _xformers_env(cards: tuple[Arch, ...]) -> dict[str, str]:
    return {
        "TORCH_CUDA_ARCH_LIST": ";".join(arch.capability for arch in sorted(set(cards))),
        "FORCE_CUDA": "1",
        "XFORMERS_BUILD_TYPE": "Release",
        # FlashAttention 2 has no code below 8.0 and vLLM brings its own above.
        "XFORMERS_DISABLE_FLASH_ATTN": "1",
        "NVCC_APPEND_FLAGS": APPENDED,
    }


def _flash_attn_env(archs: tuple[Arch, ...]) -> dict[str, str]:
    return {
        "FLASH_ATTN_CUDA_ARCHS": ";".join(str(arch.number) for arch in archs),
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "NVCC_THREADS": "1",
        "NVCC_APPEND_FLAGS": APPENDED,
    }


def _flashinfer_env(archs: tuple[Arch, ...]) -> dict[str, str]:
    return {
        "FLASHINFER_CUDA_ARCH_LIST": " ".join(arch.capability for arch in archs),
        # What Qwen2.5-VL's decoder has in every size: float16 below 8.0, heads of 128; see inside/jit_cache.py.
        "CARDSTOCK_FLASHINFER_MODULES": "f16-128",
    }


def duplicate_ids(kernels: tuple[Kernel, ...]) -> list[str]:
    """Ids that two different kernels would share; a matrix must have none."""
    seen: dict[str, Kernel] = {}
    return sorted({k.id for k in kernels if seen.setdefault(k.id, k) != k})
