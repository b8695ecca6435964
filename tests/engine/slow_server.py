"""A server seen through a slow line: each event of a stream is held back, so a busy browser sees them one by one."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class SlowServer:
    """Forwards to ``target`` what comes to ``url``, on loopback; waits ``pause`` seconds before each event."""

    def __init__(self, target: str, pause: float) -> None:
        self.asked: list[dict[str, Any]] = []  # the bodies of all that was posted
        asked, session = self.asked, requests.Session()
        session.trust_env = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.forward("GET")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked.append(json.loads(body))
                self.forward("POST", body)

            def forward(self, method: str, body: bytes = b"") -> None:
                kind = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
                with session.request(
                    method, target + self.path, data=body, headers=kind, stream=True, timeout=240
                ) as got:
                    self.send_response(got.status_code)
                    self.send_header("Content-Type", got.headers["Content-Type"])
                    self.end_headers()
                    for line in got.iter_lines(chunk_size=1):
                        if line.startswith(b"data:"):
                            time.sleep(pause)
                        self.wfile.write(line + b"\n")
                        self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Nobody listens there any more; may be called again."""
        self._server.shutdown()
        self._server.server_close()
