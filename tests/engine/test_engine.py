"""The engine's edge for real: images in and out, containers run, collected and cleaned up."""

from __future__ import annotations

import errno
import io
import tarfile
import time
import uuid
from pathlib import Path

import pytest

from images.core.errors import CardstockError
from images.docker.container_spec import Mount
from images.docker.engine import Engine
from images.docker.facts import ContainerFailed

BROKEN = "cardstock/test-host:broken"


def test_an_import_says_what_was_given(engine: Engine, host_image: str) -> None:
    facts = engine.inspect(host_image)
    assert facts is not None
    assert facts.env["WHO"] == "host image"
    session = host_image.partition(":")[2]
    assert facts.labels == {"dev.cardstock.test": session}
    assert len(facts.layers) == 1
    assert facts.size > 100_000
    assert [image.id for image in engine.images(f"dev.cardstock.test={session}")] == [facts.id]
    assert engine.images("dev.cardstock.test=other") == ()


def test_names_come_and_go(engine: Engine, host_image: str) -> None:
    name = "localhost:5999/cardstock-test:x"
    engine.tag(host_image, name)
    tagged = engine.inspect(name)
    assert tagged is not None
    assert name in tagged.tags
    assert engine.untag(name) is True
    assert engine.untag(name) is False
    assert engine.inspect(name) is None
    assert engine.inspect(host_image) is not None
    with pytest.raises(CardstockError, match=r"(?s)could not be tagged.*No such image"):
        engine.tag("cardstock/no-such-image:x", name)


def test_a_broken_tar_is_refused(engine: Engine) -> None:
    with pytest.raises(CardstockError, match="could not be imported"):
        engine.import_tar(io.BytesIO(b"no tar at all" * 100), BROKEN)
    assert engine.inspect(BROKEN) is None


def test_the_root_file_system_comes_out_as_a_tar(engine: Engine, host_image: str) -> None:
    with engine.export_tar(host_image) as chunks:
        packed = io.BytesIO(b"".join(chunks))
    with tarfile.open(fileobj=packed) as tar:
        assert "/bin/cat" in tar.getnames()


def test_a_reader_that_stops_is_not_waited_for(engine: Engine, tmp_path: Path) -> None:
    """More than a socket holds is left unread: the reader's own error comes out, and the container is gone."""
    big = tmp_path / "big.tar"
    with tarfile.open(big, "w") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 64 * 2**20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    name = f"cardstock/test-host:{uuid.uuid4().hex[:12]}"
    engine.import_tar(big, name)
    with pytest.raises(OSError, match="No space left"), engine.export_tar(name) as chunks:
        assert next(chunks)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert engine.untag(name)  # refused while a container is made of it
    assert engine.inspect(name) is None


def test_a_run_is_confined_and_its_output_collected(engine: Engine, host_image: str, tmp_path: Path) -> None:
    script = (
        "cat /given/file /mounted/file; echo $A; id -u; echo err >&2;"
        "while read line; do case $line in CapEff*|NoNewPrivs*) echo $line;; esac; done </proc/self/status;"
        "cat /proc/net/dev"
    )
    (tmp_path / "file").write_text("mounted\n")
    tmp_path.chmod(0o755)
    ran = engine.run(
        host_image,
        ["sh", "-c", script],
        user="10001:10001",
        files={"/given/file": b"given\n"},
        mounts=[Mount(str(tmp_path), "/mounted")],
        env={"A": "$(not a command)"},
    )
    lines = ran.out.splitlines()
    assert lines[:4] == ["given", "mounted", "$(not a command)", "10001"]
    assert lines[4].split() == ["CapEff:", "0" * 16]
    assert lines[5].split() == ["NoNewPrivs:", "1"]
    assert [line.split(":")[0].strip() for line in lines[8:]] == ["lo"], "no network unless named"
    assert (ran.code, ran.err) == (0, "err\n")


def test_a_failed_run_shows_the_end_of_its_log_and_leaves_nothing(engine: Engine, host_image: str) -> None:
    run_id = uuid.uuid4().hex
    script = "i=0; while [ $i -lt 100 ]; do echo line$i; i=$((i+1)); done; echo why >&2; exit 7"
    with pytest.raises(ContainerFailed, match="exited with 7") as caught:
        engine.run(host_image, ["sh", "-c", script], run_id=run_id)
    assert caught.value.ran.code == 7
    assert caught.value.cause.splitlines()[-2:] == ["line99", "why"]
    assert "line10\n" not in caught.value.cause
    assert engine.cleanup(run_id) == 0
    assert engine.run(host_image, ["sh", "-c", "exit 7"], check=False).code == 7


def test_a_run_that_does_not_end_is_ended(engine: Engine, host_image: str) -> None:
    run_id = uuid.uuid4().hex
    began = time.monotonic()
    with pytest.raises(ContainerFailed, match=r"did not end within 1\.5 s") as caught:
        engine.run(host_image, ["sh", "-c", "echo begun; sleep 100"], timeout=1.5, run_id=run_id)
    assert time.monotonic() - began < 30
    assert caught.value.cause == "begun"
    assert engine.cleanup(run_id) == 0


def test_a_program_that_is_not_there_is_reported(engine: Engine, host_image: str) -> None:
    run_id = uuid.uuid4().hex
    with pytest.raises(CardstockError, match=r"(?s)could not be run.*no such file"):
        engine.run(host_image, ["/bin/nothing"], run_id=run_id)
    assert engine.cleanup(run_id) == 0


def test_what_a_killed_session_left_is_cleaned_up_by_its_id(engine: Engine, host_image: str) -> None:
    run_id = uuid.uuid4().hex
    left = engine._client.containers.run(
        host_image, ["sleep", "100"], labels={"dev.cardstock.run": run_id}, network_mode="none", detach=True
    )
    assert engine.cleanup(uuid.uuid4().hex) == 0
    assert engine.cleanup(run_id) == 1
    assert left.id not in [container.id for container in engine._client.containers.list(all=True)]
