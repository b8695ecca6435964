"""Cardstock: Docker images of Qwen2.5-VL cut to fit the card you have."""

__version__ = "0.1.0"
