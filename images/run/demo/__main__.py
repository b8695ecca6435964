"""`python -m images.run.demo SETTINGS`: the page, in its own environment, until SIGTERM or SIGINT."""

from __future__ import annotations

import sys

from images.run.demo.page import serve
from images.run.demo.settings import read_settings

serve(read_settings(sys.argv[1]))
