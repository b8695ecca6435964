"""An answer of a registry, read within bounds of size and time, and the words of one that refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import requests
import urllib3.exceptions

from images.core import RegistryFailure
from images.registry.address import host_of, without_query
from images.registry.retry import TransientError, may_pass, retry_after

_SMALL_SECONDS = 120.0  # for the whole of an answer that is read at once
_CLOSE_SECONDS = 5.0
_WORDS_MAX = 64 << 10  # bytes of an answer that refuses
_WORDS_SHOWN = 300  # characters of it that a person is shown
_CHUNK = 1 << 20
_TITLE = re.compile(r"<title>([^<]{1,300})", re.IGNORECASE)


class Response:
    """An answer: its status, headers and final URL. Its body is read once, by `read` or `pieces`; close it after."""

    def __init__(self, response: requests.Response, clock: Callable[[], float]) -> None:
        self._response, self._clock = response, clock
        self._read = False
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url: str = response.url or ""

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be done with it; a short rest is read, so that the connection can be used again."""
        with suppress(TransientError, RegistryFailure, ValueError):
            short = int(self.headers.get("Content-Length", "0")) <= _WORDS_MAX
            if not self._read and (short or self._response.request.method == "HEAD"):
                self.read(_WORDS_MAX, _CLOSE_SECONDS)
        self._response.close()

    @property
    def host(self) -> str:
        """The host that answered, with its port if it is not the usual one."""
        return host_of(self.url)

    @property
    def next_page(self) -> str:
        """URL of the next page of a list, as the Link header has it; empty on the last."""
        return str(self._response.links.get("next", {}).get("url", ""))

    @property
    def sends_to(self) -> str:
        """Where a redirect that was not followed leads, in words; empty for another status."""
        place = self.headers.get("Location", "") if 300 <= self.status < 400 else ""
        return f"it sends on to {printable(without_query(place))}" if place else ""

    def header_lines(self, name: str) -> list[str]:
        """The values of a header that may stand there more than once."""
        return list(self._response.raw.headers.getlist(name))

    def read(self, most: int, seconds: float = _SMALL_SECONDS) -> bytes:
        """The whole body. Raises RegistryFailure above ``most`` bytes, TransientError where it breaks off."""
        data = b"".join(self._upto(most, seconds))
        if len(data) > most:
            raise RegistryFailure(
                f"{self.host}: the answer is longer than {most} bytes",
                cause="no answer to this question is so long; nothing more of it was read",
                do="see that the registry's name is right; tell whoever runs it",
                where=without_query(self.url),
            )
        return data

    def pieces(self, seconds: float) -> Iterator[bytes]:
        """The body as it comes, not unpacked. Raises TransientError where it breaks off or takes longer than that."""
        return self._pieces(seconds, unpack=False)

    def words(self) -> str:
        """What the body says: the distribution specification's or OAuth2's error, else its text, else the status."""
        try:
            text = b"".join(self._upto(_WORDS_MAX, _SMALL_SECONDS)).decode(errors="replace")
            said = _words(text)
        except TransientError:
            said = ""
        return printable(said or self._response.reason or "no reason given")

    def fault(self) -> TransientError | None:
        """The fault that may be over in a moment, if the status is of that kind."""
        if not may_pass(self.status):
            return None
        words = f"{self.host}: HTTP {self.status}: {self.words()}"
        return TransientError(words, retry_after(self.headers.get("Retry-After")), self.status)

    def _upto(self, most: int, seconds: float) -> Iterator[bytes]:
        have = 0
        for piece in self._pieces(seconds, unpack=True):
            yield piece
            have += len(piece)
            if have > most:
                return

    def _pieces(self, seconds: float, *, unpack: bool) -> Iterator[bytes]:
        self._read = True
        end = self._clock() + seconds
        try:
            # read1 gives what is there; read would wait for a whole chunk, however slowly it drips in.
            while piece := self._response.raw.read1(_CHUNK, decode_content=unpack):
                yield piece
                if self._clock() > end:
                    raise TransientError(f"{self.host}: the answer took longer than {seconds:g} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(f"{self.host}: the answer broke off: {reason(error)}") from error


def reason(fault: BaseException) -> str:
    """The innermost reason of a failed request, in a line."""
    seen = fault
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return str(seen).strip() or type(seen).__name__


def _words(text: str) -> str:
    """The error of a body: what its JSON says, the title of a page, or a plain text as it is."""
    try:
        return _error_words(json.loads(text))
    except (ValueError, RecursionError):
        page = text.lstrip().startswith("<")
        title = _TITLE.search(text) if page else None
        return (title[1] if title else "" if page else text).strip()


def _error_words(content: Any) -> str:
    """An error of the distribution specification ({"errors": [{code, message}]}) or of OAuth2 (RFC 6749, 5.2)."""
    if not isinstance(content, dict):
        return ""
    if isinstance(errors := content.get("errors"), list):
        return "; ".join(_joined(one, "code", "message") for one in errors[:5] if isinstance(one, dict))
    return _joined(content, "error", "error_description", "message", "details")


def _joined(content: dict[str, Any], *names: str) -> str:
    return ": ".join(word for name in names if isinstance(word := content.get(name), str) and word)


def printable(text: str) -> str:
    """Words from outside on one line, without what a terminal would obey."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _WORDS_SHOWN else f"{line[:_WORDS_SHOWN]}…"
