"""Requests and answers: bounds of size and time, redirects, and what the environment may not do."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import itertools
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from images.core.errors import RegistryFailure
from images.registry.retry import TransientError
from images.registry.transport import Transport, refuse_downgrade


class _Handler(BaseHTTPRequestHandler):
    """Answers by path: see `test_…`."""

    seen: list[tuple[str, str, bytes]]

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((f"{self.command} {self.path}", self.headers.get("Cookie", ""), body))
        headers: dict[str, str] = {}
        status, answer = 200, b"x" * 1000
        if self.path == "/gzip":
            answer, headers = gzip.compress(b"x" * 1000), {"Content-Encoding": "gzip"}
        elif self.path == "/bomb":
            answer, headers = gzip.compress(b"x" * (64 << 20)), {"Content-Encoding": "gzip"}
        elif self.path == "/cookie":
            headers = {"Set-Cookie": "a=b"}
        elif self.path.startswith("/to/"):
            _, _, number, target = self.path.split("/", 3)
            status, headers = int(number), {"Location": f"/{target}"}
        elif self.path == "/round":
            status, headers = 307, {"Location": "/round"}
        elif self.path == "/terminal":
            status, answer = 400, b'{"errors": [{"code": "X", "message": "a\\u001b[31m\\nb' + b"c" * 1000 + b'"}]}'
        elif self.path == "/oauth2":
            status, answer = 400, b'{"error": "invalid_grant", "error_description": "it has ended"}'
        elif self.path == "/html":
            status, answer = 400, b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _handle


@contextmanager
def server(certificate: Path | None = None) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server: its URL, and what it has seen (method and path, cookies, body). With a certificate it speaks TLS."""
    seen: list[tuple[str, str, bytes]] = []
    made = HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"seen": seen}))
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{made.server_port}", seen
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture
def here() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    with server() as made:
        yield made


Here = tuple[str, list[tuple[str, str, bytes]]]


def test_a_small_answer_is_read_whole(here: Here) -> None:
    with Transport().send("GET", here[0]) as told:
        assert told.read(1000) == b"x" * 1000


@pytest.mark.parametrize("path, most", [("/", 999), ("/bomb", 1 << 20)])
def test_a_long_one_is_not(here: Here, path: str, most: int) -> None:
    with Transport().send("GET", here[0] + path) as told, pytest.raises(RegistryFailure, match="longer than"):
        told.read(most)


def test_a_small_answer_that_comes_packed_is_unpacked_and_a_blob_is_not(here: Here) -> None:
    with Transport().send("GET", f"{here[0]}/gzip") as told:
        assert told.read(1000) == b"x" * 1000
    with Transport().send("GET", f"{here[0]}/gzip") as told:
        assert gzip.decompress(b"".join(told.pieces(60))) == b"x" * 1000


def test_an_answer_that_drips_in_has_an_end(here: Here) -> None:
    clock = itertools.count(0.0, 50.0)
    told = Transport(clock=lambda: next(clock)).send("GET", here[0])
    with told, pytest.raises(TransientError, match="took longer than 10 s"):
        list(told.pieces(10.0))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_what_reads_follows_each_redirect(here: Here, status: int) -> None:
    with Transport().send("GET", f"{here[0]}/to/{status}/there") as told:
        assert (told.status, told.url) == (200, f"{here[0]}/there")


@pytest.mark.parametrize("status, final", [(301, 301), (302, 302), (303, 303), (307, 200), (308, 200)])
def test_what_writes_is_sent_again_only_where_the_status_says_so(here: Here, status: int, final: int) -> None:
    with Transport().send("PUT", f"{here[0]}/to/{status}/there", body=b"data") as told:
        assert told.status == final
    assert {body for _, _, body in here[1]} == {b"data"}


def test_a_redirect_without_end_is_given_up(here: Here) -> None:
    with Transport().send("GET", f"{here[0]}/round") as told:
        assert told.status == 307
    assert len(here[1]) == 6


def test_from_https_no_way_leads_to_http() -> None:
    refuse_downgrade("https://a.example/v2/", "https://b.example/x")
    refuse_downgrade("http://127.0.0.1/v2/", "http://127.0.0.1/x")
    with pytest.raises(RegistryFailure, match="without encryption") as caught:
        refuse_downgrade("https://a.example/v2/x?y", "http://a.example/v2/x?signature=secret")
    assert caught.value.cause == "http://a.example/v2/x"


def test_cookies_are_not_kept(here: Here) -> None:
    transport = Transport()
    for _ in range(2):
        transport.send("GET", f"{here[0]}/cookie").close()
    assert [cookie for _, cookie, _ in here[1]] == ["", ""]


def test_no_proxy_stands_between_this_machine_and_itself(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Transport().send("GET", f"{here[0]}/to/307/there") as told:
        assert told.status == 200


def test_other_machines_are_reached_through_the_proxy(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", here[0])
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Transport().send("GET", "http://registry.example.com/v2/") as told:
        assert told.status == 200
    assert here[1][0][0] == "GET http://registry.example.com/v2/"


@pytest.mark.parametrize(
    "path, words",
    [
        ("/terminal", "X: a [31m bccc"),
        ("/oauth2", "invalid_grant: it has ended"),
        ("/html", "Bad Request"),
    ],
)
def test_the_words_of_a_refusal(here: Here, path: str, words: str) -> None:
    with Transport().send("GET", here[0] + path) as told:
        said = told.words()
    assert said.startswith(words)
    assert said.isprintable()
    assert len(said) <= 301


def certificate_of_its_own(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one file, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(plain + certificate.public_bytes(pem))
    return path


def test_a_certificate_is_held_against_the_sites_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    certificate = certificate_of_its_own(tmp_path)
    with server(certificate) as (url, _):
        with pytest.raises(RegistryFailure, match="certificate is not trusted here") as caught:
            Transport().send("GET", url)
        assert "CARDSTOCK_CA" in caught.value.do
        with Transport(certificate).send("GET", url) as told:
            assert told.status == 200
        monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate))
        with Transport().send("GET", url) as told:
            assert told.status == 200


def test_a_registry_that_speaks_http_where_https_is_spoken(here: Here) -> None:
    with pytest.raises(RegistryFailure, match="does not speak https"):
        Transport().send("GET", here[0].replace("http:", "https:"))


@pytest.mark.parametrize("url", ["http://[/", "registry", "ftp://127.0.0.1/"])
def test_an_address_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(RegistryFailure, match="cannot be asked"):
        Transport().send("GET", url)
