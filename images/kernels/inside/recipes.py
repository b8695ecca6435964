"""How each attention package is built: where its source comes from, what its wheel is called and imported as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """``source`` is the package on the index that holds the source, ``packed`` the file it comes in.

    ``wheel`` is the name that the finished wheel is installed under, ``modules`` what it is imported as: none where
    the package's own account of itself imports it.
    """

    source: str
    wheel: str
    modules: tuple[str, ...]
    packed: Literal["sdist", "wheel"] = "sdist"


RECIPES = {
    "xformers": Recipe("xformers", "xformers", ()),
    "flash-attn": Recipe("flash-attn", "flash-attn", ("flash_attn", "flash_attn_2_cuda")),
    # FlashInfer's wheel holds CUDA sources and no compiled code; that it looks for in the package flashinfer_jit_cache.
    "flashinfer": Recipe("flashinfer-python", "flashinfer-jit-cache", ("flashinfer_jit_cache",), "wheel"),
}


def recipe(package: str) -> Recipe:
    """The recipe of a package; of an unknown one, that of an ordinary source distribution."""
    return RECIPES.get(package) or Recipe(package, package, (package.replace("-", "_"),))
