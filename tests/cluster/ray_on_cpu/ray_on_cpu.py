"""A vLLM plugin that lets the CPU backend take part in a Ray cluster; it lies beside the model and on PYTHONPATH.

vLLM 0.32 on a CPU lacks two things for this, and refuses or hangs without them: its platform names no resource of
Ray's ("current platform cpu does not support ray"), and it believes that ranks whose rendezvous has the same port
share memory, which those on two machines do not. On a card neither is missing. Nothing else is changed.
"""

from __future__ import annotations


def platform() -> str:
    """The entry point of vllm.platform_plugins; it must not import vllm itself."""
    return "ray_on_cpu_platform.RayCpuPlatform"
