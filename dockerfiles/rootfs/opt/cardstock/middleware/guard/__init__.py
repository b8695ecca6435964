"""The guard: one ASGI middleware before vLLM's own server (`--middleware guard.Guard`, which the entrypoint gives).

What vLLM leaves open to whoever reaches the port is closed here, whichever vLLM it is. Where a limit is and how it is
opened: guard_settings.py, docs/serve.md.
"""

import sys
from pathlib import Path

# At the end: nothing of the environment's packages is hidden by what lies there (settings.py, app.py, ...).
if (_HERE := str(Path(__file__).resolve().parents[2])) not in sys.path:
    sys.path.append(_HERE)

from .middleware import Guard as Guard
