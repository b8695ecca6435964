"""Programs that run in an image's container: standard library, and the image's own Triton and torch."""
