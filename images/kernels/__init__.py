"""Attention kernels compiled from source, as things of their own: what they are, where they lie, how they are made."""
