"""What every image promises to whoever starts it: its port, its folders, its user, its entry point.

The templates (dockerfiles/templates) write the same into each Dockerfile; tests hold the two together.
"""

from __future__ import annotations

# What the server listens on, inside.
PORT = 8000
# The model is expected here, read-only; what is fetched and compiled goes there.
MODELS = "/models"
CACHE = "/cache"
# Number of the user and of its group.
USER = 10001
ENTRYPOINT = "/opt/cardstock/entrypoint"
