"""`invoke cluster` without an engine: words and hosts.yaml to files, or to what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.commands.cluster import ClusterOptions, serve_on_hosts
from images.core.errors import CardstockError, NoImageFits, UsageError
from tests.helpers.clusters import CARDS, CPUS
from tests.helpers.contexts import context, silent

LOCKED = {"cu124-vllm": True, "cpu-vllm": True}


def _run(words: ClusterOptions) -> str:
    report, err = silent()
    serve_on_hosts(context(report, locked=LOCKED), words)
    return err.getvalue()


def _file(folder: Path, text: str) -> str:
    (folder / "hosts.yaml").write_text(text)
    return str(folder / "hosts.yaml")


def test_a_file_for_each_host(tmp_path: Path) -> None:
    told = _run(ClusterOptions(hosts=_file(tmp_path, CARDS), out=str(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["box1.compose.yaml", "box2.compose.yaml"]
    service = yaml.safe_load((tmp_path / "out" / "box2.compose.yaml").read_text())["services"]["cardstock-box2"]
    assert service["container_name"] == "cardstock-box2"
    assert service["image"].endswith(":cu124-vllm0.8.5.post1-xformers-sm75")
    assert "tensor parallel 8 x 2 stages" in told
    assert "RAY_AUTH_TOKEN" in told


def test_the_owner_of_a_model_is_told(tmp_path: Path) -> None:
    theirs = "someone/Qwen2.5-VL-72B-Instruct-AWQ"
    asked = ClusterOptions(hosts=_file(tmp_path, CARDS), model=theirs, out=str(tmp_path / "out"))
    report, err = silent()
    serve_on_hosts(context(report, locked=LOCKED, environment={"HF_HUB_OFFLINE": "1"}), asked)
    assert f"{theirs} on " in err.getvalue() and f"the config.json of {theirs} was not read" in err.getvalue()
    # 231 groups of 128 are not dealt to eight cards: what is known of the published one is not known of theirs.
    assert "tensor parallel 8" not in err.getvalue()


def test_print_and_kuberay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = _file(tmp_path, CARDS)
    _run(ClusterOptions(hosts=name, print=True, image="registry.example/own:tag"))
    printed = capsys.readouterr().out
    assert printed.count("image: registry.example/own:tag") == 2
    _run(ClusterOptions(hosts=name, kuberay=True))
    kinds = [one["kind"] for one in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["RayCluster", "Service"]


def test_the_model_is_read_where_its_folder_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "qwen2_5_vl", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 512, "vocab_size": 368, "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "vision_config": {"depth": 2, "hidden_size": 128, "num_heads": 2, "intermediate_size": 256},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    _run(ClusterOptions(hosts=_file(tmp_path, CPUS.replace("/srv/tiny", str(tmp_path))), print=True))
    assert "--pipeline-parallel-size 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("model: 72b\n", ""), "does not say what model is in /srv/Qwen2.5-VL-72B-Instruct"),
        (("    card: RTX 2080 Ti\n", ""), "does not say card and devices of box1, box2"),
        (("    engine: ssh://box2\n", "variant: cu124-nothing\n"), "there is no variant cu124-nothing"),
    ],
)
def test_what_is_missing(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(CardstockError, match=told):
        _run(ClusterOptions(hosts=_file(tmp_path, CARDS.replace(*change)), print=True))


def test_a_uuid_that_the_images_vllm_cannot_read_is_refused(tmp_path: Path) -> None:
    uuid = "environment: {CUDA_VISIBLE_DEVICES: GPU-5fb2e1b4-7f1e-4a3c-8a0e-2f4c1c6a0a01}\nhosts:\n"
    with pytest.raises(UsageError, match="does not start with CUDA_VISIBLE_DEVICES=GPU-5fb2e1b4") as caught:
        _run(ClusterOptions(hosts=_file(tmp_path, CARDS.replace("hosts:\n", uuid)), print=True))
    assert caught.value.where.endswith("hosts.yaml")


def test_different_cards(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _run(ClusterOptions(hosts=_file(tmp_path, CARDS.replace("RTX 2080 Ti", "RTX 3090", 1)), print=True))
    assert caught.value.what == "the hosts have different cards: RTX 3090, RTX 2080 Ti"


def test_what_does_not_fit_is_fits_own_answer(tmp_path: Path) -> None:
    with pytest.raises(NoImageFits, match="72b-bf16 cannot be served on"):
        _run(ClusterOptions(hosts=_file(tmp_path, CARDS), model="72b-bf16", print=True))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which hosts"):
        _run(ClusterOptions())
    with pytest.raises(UsageError, match="No such file"):
        _run(ClusterOptions(hosts=str(tmp_path / "none.yaml")))


def test_memory_hosts_and_videos_reach_the_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = _file(tmp_path, CARDS)
    words = ClusterOptions(
        hosts=name, kuberay=True, memory_limit="40g", video=1, allow_host=["gpu.example.org"], allow_media_domain=["*"]
    )
    _run(words)
    head, worker = _pods(capsys.readouterr().out)
    assert head["resources"]["limits"]["memory"] == worker["resources"]["limits"]["memory"] == 40 * 2**30
    named = {one["name"]: one.get("value") for one in head["env"]}
    assert named["CARDSTOCK_ALLOWED_HOSTS"] == "gpu.example.org" and named["CARDSTOCK_MEDIA_DOMAINS"] == "*"
    assert "CARDSTOCK_ALLOWED_HOSTS" not in {one["name"] for one in worker["env"]}
    assert '"video": 1' in " ".join(head["args"])
    _run(ClusterOptions(hosts=name, kuberay=True))
    assert all(pod["resources"]["limits"]["memory"] > 20 * 2**30 for pod in _pods(capsys.readouterr().out))


def _pods(manifest: str) -> list[dict[str, Any]]:
    cluster, _ = yaml.safe_load_all(manifest)
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]
