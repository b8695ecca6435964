"""The CPU platform with a resource of Ray's, and with torch's own messages between ranks."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):  # type: ignore[misc]  # vllm lives in the image
    """What `ray start --num-gpus` gives out is a place, not a card."""

    ray_device_key = "GPU"

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        """The communicator below."""
        return "ray_on_cpu_messages.Messages"
