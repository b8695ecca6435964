"""One repository of a registry: its manifests, tags and blobs over the OCI distribution API.

What comes back is bytes that have the digest they were asked by, or an error; nothing half-written stays. Faults that
pass (a reset connection, 429, 5xx) are tried again, as late as the registry asks, if it does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from images.core import RegistryFailure
from images.registry.address import parse_repository
from images.registry.api import RepositoryApi
from images.registry.blob_stream import PATIENCE, SLOWEST, BlobStream, begins_at, read_part
from images.registry.descriptor import DIGEST, MANIFEST, MANIFEST_TYPES, Blob, Manifest, digest_of, digest_of_file
from images.registry.response import Response
from images.registry.retry import Retry, TransientError
from images.registry.transport import Transport, refuse_downgrade

_MANIFEST_MAX = 4 << 20  # bytes; what registries accept (distribution specification 1.1)
_TAGS_MAX = 4 << 20  # bytes of one page of tags
_PAGES_MAX = 1000
_READ_BACK = 4  # waits for what was written to be seen: seven seconds
_TAGS_IN_ALL = 1_000_000
_UNKNOWN = (400, 401, 403, 404, 405, 501)  # answers to a HEAD that say no more than "not that anybody knew"
_WRITTEN = (200, 201, 202, 204)  # 201 by the specification; others were seen to say it with one of these
Say = Callable[[str], None]


class Repository:
    """One repository of a registry, such as "registry.example.com/team/wheels".

    ``ca`` is a CA bundle for a site's proxy. Methods raise RegistryFailure (exit code 6) when the registry cannot be
    reached, refuses or stays broken, Unsafe (7) when what it gives has another digest than was asked for.
    """

    def __init__(
        self,
        name: str,
        *,
        ca: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
        say: Say = lambda _: None,
    ) -> None:
        self._api = RepositoryApi(parse_repository(name), Transport(ca), Retry(sleep, say))
        self.name = name
        self._where = self._api.address.registry

    # -- what a caller wants

    def manifest(self, reference: str) -> Manifest | None:
        """The manifest of a tag or digest, its digest checked; None where the registry has none."""
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}

        def once() -> tuple[bytes, Mapping[str, str]] | None:
            with self._api.call("GET", f"manifests/{reference}", headers, ok=(200, 404)) as told:
                return None if told.status == 404 else (told.read(_MANIFEST_MAX), told.headers)

        if (found := self._api.repeat(reference, once)) is None:
            return None
        raw, told = found
        digest = digest_of(raw)
        for wanted in (reference, told.get("Docker-Content-Digest", "")):
            if DIGEST.fullmatch(wanted) and wanted != digest:
                raise self._api.unsafe(f"the manifest of {reference}", wanted, digest)
        content = _object(raw)
        if content is None:
            raise RegistryFailure(
                f"{self.name}: what {reference} names is no manifest",
                cause=f"the answer, {told.get('Content-Type', 'of no type')[:100]!r}, is no JSON object",
                do="see that the registry's name is right, and that no portal wants a login in a browser first",
                where=self._where,
            )
        return Manifest(digest, str(content.get("mediaType") or told.get("Content-Type", "")), raw, content)

    def put_manifest(self, raw: bytes, reference: str, media_type: str = MANIFEST) -> str:
        """Write a manifest and point a tag (or its own digest) at it; its digest."""
        mine = digest_of(raw)

        def once() -> str:
            headers = {"Content-Type": media_type}
            with self._api.call("PUT", f"manifests/{reference}", headers, body=raw, ok=_WRITTEN) as told:
                return told.headers.get("Docker-Content-Digest", "")

        its = self._api.repeat(reference, once)
        if its and its != mine:
            raise self._api.unsafe(f"the manifest written as {reference}", mine, its)
        return mine

    def read_back(self, reference: str) -> Manifest | None:
        """What a reference names that was written just now. A registry of several may show it a moment later."""
        for attempt in range(_READ_BACK):
            if (found := self.manifest(reference)) is not None:
                return found
            self.pause(0.5 * 2**attempt)
        return self.manifest(reference)

    def pause(self, seconds: float) -> None:
        """Wait, as between two attempts."""
        self._api.retry.sleep(seconds)

    def tags(self) -> tuple[str, ...]:
        """All tags, as the registry orders them; none where it does not know the repository yet."""
        found: dict[str, None] = {}
        asked: set[str] = set()
        page = "tags/list?n=1000"
        while len(asked) < _PAGES_MAX and len(found) <= _TAGS_IN_ALL and page not in asked:
            asked.add(page)
            tags, page = self._api.repeat("the tags", partial(self._page, page))
            found |= dict.fromkeys(tags)
            if not page:
                return tuple(found)
        raise RegistryFailure(
            f"{self.name}: the list of tags has no end",
            cause=f"{len(found)} tags on {len(asked)} pages, and one more page",
            do="tell whoever runs this registry",
            where=self._where,
        )

    def has_blob(self, digest: str) -> bool:
        """Whether the registry says that it has these bytes."""

        def once() -> bool:
            # Some refuse a HEAD of blobs and take uploads all the same, and a store that is sent on to may refuse it
            # because its URL is signed for a GET. Then nothing is known, and who uploads is told the rest.
            with self._api.call("HEAD", f"blobs/{digest}", ok=(200, *_UNKNOWN)) as told:
                return told.status == 200

        return self._api.repeat(digest, once)

    def upload(self, path: Path, digest: str) -> None:
        """Write a file's bytes, unless they are there. One that broke off begins anew."""
        if not self.has_blob(digest):
            self._api.repeat(path.name, partial(self._upload_once, path, digest))

    def download(self, blob: Blob, into: Path, *, keep: bool = False) -> None:
        """Write a blob's bytes to ``into``, whole and with its digest, or raise and leave nothing there.

        One that breaks off goes on where it was; with ``keep`` also in the next call, if the registry stays broken or
        this process ends.
        """
        if not DIGEST.fullmatch(blob.digest):
            raise RegistryFailure(f"{self.name}: {blob.digest!r} is no sha256 digest", where=self._where)
        part = into.with_name(f".{into.name}.part")
        try:
            resumed = self._api.repeat(blob.digest, partial(self._download_once, blob, part))
            found = digest_of_file(part)
            if found != blob.digest and resumed:  # the beginning may be another's, or damaged here
                part.unlink()
                self._api.retry.say(f"{self.name}: {blob.digest[:19]} was put together wrongly; it begins anew")
                self._api.repeat(blob.digest, partial(self._download_once, blob, part))
                found = digest_of_file(part)
            if found != blob.digest:
                raise self._api.unsafe("a blob", blob.digest, found)
            part.replace(into)
        except RegistryFailure:
            if not keep:
                part.unlink(missing_ok=True)
            raise
        except BaseException as error:
            if not (keep and isinstance(error, KeyboardInterrupt)):
                part.unlink(missing_ok=True)
            raise

    def stream(self, blob: Blob, count: Callable[[int], None] = lambda _: None) -> BlobStream:
        """A blob's bytes as they come, no file between; ``count`` is given the bytes of each piece that came.

        Raises RegistryFailure for a digest that is none.
        """
        if not DIGEST.fullmatch(blob.digest):
            raise RegistryFailure(f"{self.name}: {blob.digest!r} is no sha256 digest", where=self._where)
        return BlobStream(self._api, blob, count)

    def part(self, blob: Blob, begin: int, length: int, count: Callable[[int], None] = lambda _: None) -> bytes | None:
        """Some bytes of a blob, whose digest nobody has checked; None where the registry gives no parts of blobs.

        Raises ValueError for a part that is not inside the blob.
        """
        return read_part(self._api, blob, begin, length, count)

    # -- how it is asked

    def _page(self, page: str) -> tuple[list[str], str]:
        """One page of tags, and what to ask for the next one; empty after the last."""
        with self._api.call("GET", page, ok=(200, 404)) as told:
            if told.status == 404:
                return [], ""
            content = _object(told.read(_TAGS_MAX))
            # Its query alone: behind a proxy the address before it may be wrong. Which fields stand in it is the
            # registry's own affair ("last" by the specification, "next_page" of Quay).
            query = told.next_page.partition("?")[2].partition("#")[0]
        tags = None if content is None else content.get("tags") or []  # registries write null for none
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise RegistryFailure(
                f"{self.name}: what it gives is no list of tags",
                cause="a list of texts was to come",
                do="see that the registry's name is right; tell whoever runs it",
                where=self._where,
            )
        return tags, f"tags/list?{query}" if query else ""

    def _upload_once(self, path: Path, digest: str) -> None:
        with self._api.call("POST", "blobs/uploads/", ok=(200, 202, 204)) as begun:
            place = self._place(begun)
        place += f"{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        with path.open("rb") as file, self._api.call("PUT", place, headers, body=file, ok=(*_WRITTEN, 404)) as told:
            if told.status == 404:  # the registry was started anew
                raise TransientError(f"{self.name}: the registry has forgotten the upload that it began")

    def _place(self, begun: Response) -> str:
        """Where an upload that was begun goes on. Raises RegistryFailure where that is no address, or a plain one."""
        named = begun.headers.get("Location", "").partition("#")[0]
        try:
            place = urljoin(begun.url, named)
            good = bool(named) and place.startswith(("http://", "https://"))
        except ValueError:
            good = False
        if not good:
            raise RegistryFailure(
                f"{self.name}: the registry names no place for an upload",
                cause=f"its answer has the Location {named[:200]!r}",
                do="tell whoever runs this registry",
                where=self._where,
            )
        refuse_downgrade(begun.url, place)
        return place

    def _download_once(self, blob: Blob, part: Path) -> bool:
        """Write what lacks of a blob; whether its beginning is of an earlier attempt."""
        have = part.stat().st_size if part.exists() else 0
        if have == blob.size and part.exists():
            return True
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._api.call("GET", f"blobs/{blob.digest}", headers, ok=(200, 206, 416)) as told:
            if told.status == 416:
                part.unlink(missing_ok=True)
                raise TransientError(f"{self.name}: the registry has no such rest; the download begins anew")
            if told.status == 206 and not begins_at(told.headers.get("Content-Range", ""), have):
                part.unlink(missing_ok=True)
                raise TransientError(f"{self.name}: the registry gives another part; the download begins anew")
            begin = have if told.status == 206 else 0
            with part.open("r+b" if begin else "wb") as out:
                out.seek(begin)
                out.truncate()
                for piece in told.pieces(PATIENCE + blob.size / SLOWEST):
                    out.write(piece)
                    if out.tell() > blob.size:
                        raise self._api.unsafe("a blob", f"{blob.digest} of {blob.size} bytes", "more bytes than that")
                if out.tell() < blob.size:
                    raise TransientError(f"{self.name}: the answer ended after {out.tell()} of {blob.size} bytes")
        return begin > 0


def _object(raw: bytes) -> dict[str, Any] | None:
    """A JSON object; None for what is none."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
