"""Starting the page: the port, what it may know of the machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from images.commands.demo import free_port, surroundings
from images.core.errors import UsageError
from tests.helpers.matrices import ROOT


def test_a_port_in_use_is_reported_with_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}") as caught:
            free_port("127.0.0.1", port)
        assert caught.value.do.startswith("take another: --port ")
    free_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(UsageError, match="cannot listen") as caught:
        free_port("127.0.0.1", port)
    assert caught.value.do == "take one of 1 to 65535: --port 7860"


def test_the_page_keeps_the_sites_exceptions_to_its_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "qwen.example.com")
    assert surroundings(ROOT, tmp_path)["NO_PROXY"] == "qwen.example.com,127.0.0.1,localhost,::1"


def test_all_that_the_page_writes_lies_in_its_folder(tmp_path: Path) -> None:
    env = surroundings(ROOT, tmp_path)
    assert {env["GRADIO_TEMP_DIR"], env["TMPDIR"]} == {str(tmp_path / "uploads"), str(tmp_path / "tmp")}
    assert (env["GRADIO_ANALYTICS_ENABLED"], env["GRADIO_SHARE"]) == ("False", "False")
