"""Ranks that talk through Gloo, never through shared memory."""

from __future__ import annotations

from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class Messages(CpuCommunicator):  # type: ignore[misc]  # vllm lives in the image
    """vLLM falls back to torch.distributed where ranks do not share memory; here they never do."""

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False
