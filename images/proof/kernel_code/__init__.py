"""What kernels do on a card, without one: Triton's compiled for it, the image's own counted instruction by instruction.

The rule: what is compiled is what a server was seen to compile, or what its own code asked for, and each says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.kernel_code import traces as traces
    from images.proof.kernel_code.kernel_list import INSIDE as INSIDE
    from images.proof.kernel_code.kernel_list import Group as Group
    from images.proof.kernel_code.kernel_list import Kernel as Kernel
    from images.proof.kernel_code.kernel_list import KernelList as KernelList
    from images.proof.kernel_code.kernel_list import list_for as list_for
    from images.proof.kernel_code.kernel_list import read_list as read_list
    from images.proof.kernel_code.machine_code import CODE as CODE
    from images.proof.kernel_code.machine_code import CodeVerdict as CodeVerdict
    from images.proof.kernel_code.machine_code import judge_code as judge_code
    from images.proof.kernel_code.verdict import CompiledKernel as CompiledKernel
    from images.proof.kernel_code.verdict import KernelVerdict as KernelVerdict
    from images.proof.kernel_code.verdict import judge as judge
else:
    __getattr__ = face(__name__, __file__)
