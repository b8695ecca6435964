"""A token service on loopback whose tokens a real registry believes: JSON Web Tokens, signed with a key of its own.

By https://distribution.github.io/distribution/spec/auth/jwt/; the certificate is the registry's `rootcertbundle`.
"""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "a test", "registry.test"
USER, PASSWORD, REFRESH_TOKEN = "me", "pass", "refresh"
_BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


class TokenService:
    """Its ``settings`` are a registry's `auth`; ``asked`` is the method and the scopes of each request."""

    def __init__(self, folder: Path, port: int) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
        made = x509.CertificateBuilder(
            name, name, self._key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        self._certificate = made.sign(self._key, hashes.SHA256())
        bundle = folder / "issuer.pem"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self.settings = {
            "token": {
                "realm": f"http://127.0.0.1:{port}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(bundle),
            }
        }
        self.asked: list[tuple[str, list[str]]] = []

    def token(self, scopes: list[str]) -> str:
        """A token that allows what these scopes name."""
        parts = [scope.split(":") for scope in scopes]
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in parts]
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "nbf": now - 10, "iat": now, "exp": now + 300}
        text = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps({**claims, 'access': access}).encode())}"
        return f"{text}.{_base64(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Handler(BaseHTTPRequestHandler):
    service: TokenService

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._give(parse_qs(urlsplit(self.path).query), self.headers.get("Authorization") == _BASIC)

    def do_POST(self) -> None:
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._give(fields, fields.get("refresh_token") == [REFRESH_TOKEN])

    def _give(self, fields: dict[str, list[str]], known: bool) -> None:
        scopes = " ".join(fields.get("scope", [])).split()
        self.service.asked.append((self.command, scopes))
        body = json.dumps({"token": self.service.token(scopes)}).encode() if known else b""
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def token_service(folder: Path) -> Iterator[TokenService]:
    """A running one; ``folder`` is for its certificate."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    service = TokenService(folder, server.server_port)
    handler.service = service  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
