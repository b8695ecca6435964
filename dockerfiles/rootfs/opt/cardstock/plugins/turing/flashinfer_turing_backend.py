"""vLLM's FlashInfer backend, which takes cards of 7.5 too. Imported by vLLM when it looks for the backend.

See flashinfer_turing.py, which names it to vLLM. Apart from it because importing this imports FlashInfer.
"""

from __future__ import annotations

from vllm.platforms.interface import DeviceCapability
from vllm.v1.attention.backends.flashinfer import FlashInferBackend

TURING = DeviceCapability(7, 5)


class FlashInferTuringBackend(FlashInferBackend):  # type: ignore[misc,unused-ignore]
    """The same backend under the same name."""

    @classmethod
    def supports_compute_capability(cls, capability: DeviceCapability) -> bool:
        """vLLM's own answer, and yes for 7.5."""
        return bool(capability == TURING or super().supports_compute_capability(capability))
