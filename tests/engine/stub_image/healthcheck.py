"""The stand-in's health check."""

from __future__ import annotations

import sys
from http.client import HTTPConnection

try:
    connection = HTTPConnection("127.0.0.1", 8000, timeout=2)
    connection.request("GET", "/health")
    sys.exit(0 if connection.getresponse().status == 200 else 1)
except OSError as error:
    sys.exit(str(error))
