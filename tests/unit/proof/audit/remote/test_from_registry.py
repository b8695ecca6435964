"""An image in a registry is judged as the same image in an engine is, however its layers are packed."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Sequence

import pytest

from images.core import CheckFailed, RegistryFailure, Unsafe, UsageError
from images.device_code.audit import Audit, audit
from images.device_code.sources import read_tar
from images.proof.audit.remote.from_registry import RemoteAudit, audit_remote
from images.proof.audit.remote.layer_reader import BY_DIGESTS, UNCHECKED, WHOLE
from images.proof.audit.remote.reference import parse_image_name
from images.registry import Repository
from tests.helpers.elf_files import library, sm
from tests.helpers.nonempty import nonempty
from tests.helpers.registries import FakeRegistry, Fault, registry
from tests.helpers.remote_images import (
    LARGE,
    LOWER,
    NOISE,
    PACKINGS,
    UPPER,
    Files,
    Packed,
    To,
    digest,
    gzipped,
    plain,
    put_image,
    put_index,
    put_manifest,
    seekable,
    stargz,
    tar_layer,
    zstd_chunked,
)

# What is left of the two, as an engine's tar of the container's files has it: in the order of a walk, links by name.
SEEN: Files = {
    "etc/noise": NOISE,
    "opt/b/new.so": UPPER["opt/b/new.so"],
    "opt/c/replaced.so": UPPER["opt/c/replaced.so"],
    "opt/d/now-a-file": b"x",
    "opt/e/in-its-place.so": UPPER["opt/e/in-its-place.so"],
    "opt/f/by_link.so": LOWER["opt/f/data"],
    "opt/f/data": To("opt/f/by_link.so", hard=True),
    "opt/f/one.so": LOWER["opt/f/one.so"],
    "proc/kept-out.so": UPPER["proc/kept-out.so"],
    "usr/lib/kept.so": LOWER["usr/lib/kept.so"],
    "usr/lib/large.so.1": LARGE,
    "usr/lib/notes.txt": NOISE,
    "usr/lib/plain.so": LOWER["usr/lib/plain.so"],
}


@pytest.fixture
def shop() -> Iterator[tuple[str, FakeRegistry]]:
    with registry() as (host, shelf):
        yield host, shelf


class Asking:
    """Audits images of one registry; ``said`` are the lines of progress, ``waits`` the seconds that were slept."""

    def __init__(self, host: str) -> None:
        self.name = f"{host}/team/thing"
        self.said: list[str] = []
        self.waits: list[float] = []

    def __call__(self, reference: str = ":v1", *, platform: str = "", whole: bool = False) -> RemoteAudit:
        name = parse_image_name(f"{self.name}{reference}")
        assert name is not None
        return audit_remote(
            name,
            lambda: Repository(self.name, sleep=self.waits.append, say=self.said.append),
            self.said.append,
            platform=platform,
            whole=whole,
        )


def seen_in_an_engine() -> Audit:
    return audit("an engine's", read_tar(io.BytesIO(tar_layer(SEEN))))


def same(one: Audit, other: Audit) -> bool:
    return (one.libraries, one.others) == (other.libraries, other.others)


@pytest.mark.parametrize("packing", sorted(PACKINGS))
@pytest.mark.parametrize("whole", [False, True])
def test_it_is_judged_as_in_an_engine(shop: tuple[str, FakeRegistry], packing: str, whole: bool) -> None:
    host, shelf = shop
    put_image(shelf, "v1", [PACKINGS[packing](LOWER), PACKINGS[packing](UPPER)])
    found = Asking(host)(whole=whole)
    expected = seen_in_an_engine()
    assert len(expected.libraries) == 7 and expected.others == 1
    assert [one.name for one in found.audit.libraries] == [one.name for one in expected.libraries]
    assert same(found.audit, expected)


@pytest.mark.parametrize(
    ("packing", "how"),
    [
        ("gzip", WHOLE),
        ("zstd", WHOLE),
        ("plain", UNCHECKED),
        ("seekable zstd", UNCHECKED),
        ("eStargz", BY_DIGESTS),
        ("zstd:chunked", BY_DIGESTS),
    ],
)
def test_no_more_is_read_than_the_packing_asks_for(shop: tuple[str, FakeRegistry], packing: str, how: str) -> None:
    host, shelf = shop
    put_image(shelf, "v1", [PACKINGS[packing](LOWER), PACKINGS[packing](UPPER)])
    found = Asking(host)()
    assert [layer.how for layer in found.layers] == [how, how]
    if how == WHOLE:
        assert 0 <= found.received - found.image.size < 20  # of zstd the last bytes are looked at first
    else:
        assert found.received < found.image.size * 0.7
    assert found.unchecked == (2 if how == UNCHECKED else 0)
    whole = Asking(host)(whole=True)
    assert (whole.received, whole.unchecked) == (whole.image.size, 0)
    assert same(whole.audit, found.audit)


def test_a_registry_that_gives_no_parts_is_read_whole(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    shelf.ranges = False
    put_image(shelf, "v1", [pack(LOWER) for pack in (plain, seekable, stargz, zstd_chunked)])
    found = Asking(host)()
    assert {layer.how for layer in found.layers} == {WHOLE}
    assert len(found.audit.libraries) > 3


def test_layers_of_every_packing_in_one_image(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    alone: dict[str, Files] = {
        name: {f"opt/{number}.so": library([sm(75)]), "opt/same.so": library([sm(70 + number)])}
        for number, name in enumerate(PACKINGS)
    }
    put_image(shelf, "v1", [PACKINGS[name](files) for name, files in alone.items()])
    asking = Asking(host)
    found = asking()
    last = len(PACKINGS) - 1
    assert [one.name for one in found.audit.libraries] == [*(f"opt/{n}.so" for n in range(last + 1)), "opt/same.so"]
    assert found.audit.libraries[-1].archs == {f"{(70 + last) / 10:.1f}": 1}
    lines = [line for line in asking.said if line.startswith("layer ")]
    assert [line.split(":")[0] for line in lines] == [f"layer {n} of {last + 1}" for n in range(last + 1, 0, -1)]


# -- what is wrong with a layer


def cut(layer: Packed, keep: int) -> Packed:
    """The layer's first bytes, as a layer of their own: its digest is right."""
    return Packed(layer.data[:keep], layer.kind, layer.tar)


def test_a_wrong_digest_is_refused_and_nothing_is_told(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    good = gzipped(LOWER)
    put_image(shelf, "v1", [good])
    # Another layer, whole and well formed, in its place: only its digest tells.
    other = gzipped({**LOWER, "usr/lib/notes.txt": NOISE[::-1]})
    shelf.blobs[good.digest] = other.data.ljust(len(good.data), b"\0")[: len(good.data)]
    with pytest.raises(Unsafe, match="not what its digest says"):
        Asking(host)()


@pytest.mark.parametrize("packing", ["eStargz", "zstd:chunked"])
def test_a_chunk_with_another_digest_is_refused(shop: tuple[str, FakeRegistry], packing: str) -> None:
    host, shelf = shop
    files: Files = {"usr/lib/large.so": LARGE, "etc/noise": NOISE}
    good = PACKINGS[packing](files)
    put_image(shelf, "v1", [good])
    changed = bytearray(LARGE)
    changed[-1] ^= 1  # the section headers are fetched, and the last of them lies here
    other = PACKINGS[packing]({**files, "usr/lib/large.so": bytes(changed)})
    end = len(good.data) // 2
    shelf.blobs[good.digest] = other.data[:end].ljust(end, b"\0") + good.data[end:]
    with pytest.raises((Unsafe, CheckFailed), match="digest"):
        Asking(host)()


def test_a_table_with_another_digest_is_refused(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    good = stargz(LOWER)
    name = "containerd.io/snapshot/stargz/toc.digest"
    put_image(shelf, "v1", [Packed(good.data, good.kind, good.tar, {name: digest(b"another")})])
    with pytest.raises(Unsafe, match="table of contents"):
        Asking(host)()


@pytest.mark.parametrize("packing", ["gzip", "zstd", "plain", "seekable zstd"])
def test_a_layer_that_ends_early_is_told(shop: tuple[str, FakeRegistry], packing: str) -> None:
    host, shelf = shop
    layer = PACKINGS[packing](LOWER)
    put_image(shelf, "v1", [cut(layer, len(layer.data) * 2 // 3)])
    with pytest.raises(CheckFailed, match="cannot be read"):
        Asking(host)()


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (b"no tar at all" * 1000, "no tar"),
        (tar_layer({"a.so": library([sm(75)])})[:-1024] + b"\1" * 1024, "no tar"),
        (tar_layer({"../a.so": library([sm(75)])}), "leads out"),
        (tar_layer({"a/.wh...": b""}), "no file is called"),
        (tar_layer({"/".join("a" * 1500): b"x"}), "leads out"),
        (tar_layer({"a": To("b"), "b": To("a"), "a/x.so": library([sm(75)])}), "without end"),
    ],
)
def test_a_layer_that_is_none_is_told(shop: tuple[str, FakeRegistry], tar: bytes, words: str) -> None:
    host, shelf = shop
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    put_image(shelf, "v1", [Packed(gzip.compress(tar), kind, tar)])
    with pytest.raises(CheckFailed, match="cannot be read") as raised:
        Asking(host)()
    assert words in raised.value.cause


def test_a_layer_that_unpacks_to_too_much_is_refused(
    shop: tuple[str, FakeRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, shelf = shop
    monkeypatch.setattr("images.proof.audit.remote.packing.FREE_BYTES", 1 << 20)
    put_image(shelf, "v1", [gzipped({"zeros": bytes(40 << 20)})])
    with pytest.raises(CheckFailed, match="cannot be read") as raised:
        Asking(host)()
    assert "unpacks from" in raised.value.cause


def test_too_many_files_are_refused(shop: tuple[str, FakeRegistry], monkeypatch: pytest.MonkeyPatch) -> None:
    host, shelf = shop
    monkeypatch.setattr("images.proof.audit.remote.progress._MOST_MEMBERS", 20)
    put_image(shelf, "v1", [gzipped({f"{n}": b"" for n in range(15)}), gzipped({f"x{n}": b"" for n in range(15)})])
    with pytest.raises(CheckFailed) as raised:
        Asking(host)()
    assert "more than 20 files" in raised.value.cause


def test_a_header_without_end_is_refused(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    tar = entry.tobuf(tarfile.GNU_FORMAT) + b"a" * (64 << 20)
    put_image(shelf, "v1", [Packed(gzip.compress(tar, 1), "application/vnd.oci.image.layer.v1.tar+gzip", tar)])
    with pytest.raises(CheckFailed) as raised:
        Asking(host)()
    assert "a header of 67108864 bytes" in raised.value.cause


# -- the line


@pytest.mark.parametrize("fault", ["cut", "reset", 503])
@pytest.mark.parametrize("packing", ["gzip", "eStargz", "plain"])
def test_what_breaks_off_goes_on(shop: tuple[str, FakeRegistry], packing: str, fault: Fault) -> None:
    host, shelf = shop
    layer = PACKINGS[packing](LOWER)
    put_image(shelf, "v1", [layer])
    shelf.on, shelf.faults = layer.digest, [fault, fault]
    asking = Asking(host)
    found = asking()
    assert not shelf.faults and asking.waits
    assert "usr/lib/large.so.1" in [one.name for one in found.audit.libraries]
    assert found.received <= found.image.size * 2


def test_a_stream_that_broke_off_is_not_read_twice(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    layer = gzipped(LOWER)
    put_image(shelf, "v1", [layer])
    shelf.on, shelf.faults = layer.digest, ["cut"]
    assert Asking(host)().received == len(layer.data)


def test_without_rests_the_whole_comes_again(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    shelf.ranges = False
    layer = gzipped(LOWER)
    put_image(shelf, "v1", [layer])
    shelf.on, shelf.faults = layer.digest, ["cut"]
    found = Asking(host)()
    assert len(layer.data) < found.received < 2 * len(layer.data)
    assert len(found.audit.libraries) > 3


def test_two_answers_put_together_wrongly_are_read_again(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    layer = gzipped(LOWER)
    put_image(shelf, "v1", [layer])
    shelf.on, shelf.faults = layer.digest, ["cut", "lie"]
    found = Asking(host)()
    assert len(found.audit.libraries) > 3


def test_a_registry_that_stays_broken_ends_it(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    layers = [gzipped({**LOWER, "n": bytes([n])}) for n in range(4)]
    put_image(shelf, "v1", layers)
    shelf.on, shelf.faults = layers[0].digest, [503] * 30
    with pytest.raises(RegistryFailure, match="does not give"):
        Asking(host)()


# -- which image


def test_the_platform_is_chosen_and_told(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    intel = put_image(shelf, "intel", [gzipped({"a.so": library([sm(75)])})])
    arm = put_image(shelf, "arm", [gzipped({"a.so": library([sm(87)])})], architecture="arm64", variant="v8")
    put_index(shelf, "v1", [("linux/arm64/v8", arm), ("linux/amd64", intel)])
    asking = Asking(host)
    found = asking()
    assert (found.image.digest, found.image.platform) == (intel, "linux/amd64")
    assert asking.said[0].startswith("of linux/arm64/v8, linux/amd64 the image for linux/amd64 is read")
    assert Asking(host)(platform="linux/arm64").image.digest == arm
    assert Asking(host)(f"@{arm}").image.digest == arm
    with pytest.raises(UsageError, match="no image for linux/riscv64") as raised:
        Asking(host)(platform="linux/riscv64")
    assert "linux/arm64/v8, linux/amd64" in raised.value.cause
    with pytest.raises(UsageError, match="no image for linux/arm64"):
        Asking(host)(":intel", platform="linux/arm64")
    with pytest.raises(UsageError, match="is no platform"):
        Asking(host)(platform="arm")


def test_what_is_no_image_is_told(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    with pytest.raises(UsageError, match="has no v1"):
        Asking(host)()
    config = b"{}"
    shelf.blobs[digest(config)] = config
    row = {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest(config), "size": 2}
    kind = "application/vnd.oci.image.manifest.v1+json"
    put_manifest(shelf, "chart", {"schemaVersion": 2, "mediaType": kind, "config": row, "layers": []})
    with pytest.raises(UsageError, match="is no image"):
        Asking(host)(":chart")
    put_manifest(shelf, "liar", {"schemaVersion": 2, "mediaType": kind, "config": row, "layers": [{"digest": 1}]})
    with pytest.raises(Unsafe, match="not what an image is"):
        Asking(host)(":liar")
    nested = put_index(shelf, "inner", [("linux/amd64", digest(b"x"))])
    put_index(shelf, "outer", [("linux/amd64", nested)])
    with pytest.raises(Unsafe, match="not what an image is"):
        Asking(host)(":outer")


def rows(found: RemoteAudit) -> Sequence[object]:
    said = found.to_json()["layers"]
    assert isinstance(said, list)
    return nonempty(said)


def test_what_was_read_is_there_for_machines(shop: tuple[str, FakeRegistry]) -> None:
    host, shelf = shop
    layer = gzipped(LOWER)
    image = put_image(shelf, "v1", [layer])
    found = Asking(host)()
    said = found.to_json()
    assert said["digest"] == image and said["platform"] == "linux/amd64"
    assert said["bytes_read"] == said["bytes"] == len(layer.data)
    [row] = rows(found)
    size = len(layer.data)
    assert row == {"digest": layer.digest, "bytes": size, "packed": "gzip", "read": "whole", "bytes_read": size}
    assert found.by_digest.endswith(f"/team/thing@{image}")
