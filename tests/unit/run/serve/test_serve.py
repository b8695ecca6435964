"""`invoke serve` without an engine: the container it makes, models' places, cards, options."""

from __future__ import annotations

import json
import shlex
import struct
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from images.cards.here import of_this_machine
from images.cards.nvml_errors import explain_card
from images.cards.this_machine import LocalCard, LocalMachine, LostCard
from images.commands import serve as command
from images.core.errors import CardstockError, NoImageFits, NothingSelected, RegistryFailure, UsageError
from images.core.report import Report
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import NO_CARDS, ContainerSpec, Gpus, Mount, PublishedPort, read_gpus
from images.docker.container_text import compose, docker_line
from images.matrix.arch import Arch
from images.proof.tiny_model.checkpoint import write_checkpoint
from images.run.fit.choose import fit
from images.run.serve import asked as asked_module
from images.run.serve import hub, modelscope, pick
from images.run.serve.by_hand import serve_words, spec_without_model
from images.run.serve.make import Options, check_memory, cpu_environment, make_spec, merged, model_name, read_flags
from images.run.serve.source import Source, check_weights, find_source
from tests.helpers.advisories import HOLE, assessments, listed
from tests.helpers.contexts import context, silent
from tests.helpers.fits import SM75, ask, model, variant

CPU = "cpu-vllm0.32.0-sdpa"
SPEC = ContainerSpec(
    name="cardstock",
    image="cardstock/qwen2.5-vl:x",
    arguments=("--max-model-len", "4096"),
    env=(("A", "b"),),
    passed=("HF_TOKEN",),
    mounts=(Mount("/models/tiny", "/models"), Mount("cardstock-cache", "/cache", read_only=False)),
    gpus=Gpus(2),
    shm=4,
    labels=(("dev.cardstock.serve", "x"), ("dev.cardstock.model", "tiny")),
    ports=(PublishedPort(8000, 8000),),
    restart="unless-stopped",
)

OPEN = (PublishedPort(8000, 8000, "0.0.0.0"),)


def served(name: str, on: str, count: int = 1, *, by: str = "", **options: Any) -> ContainerSpec:
    """What `invoke serve` makes of a published model on cards."""
    found = fit(ask(name, on, count, by=by))
    source = Source(found.ask.model.source, repository=found.ask.model.source)
    return make_spec(found.ask.variant, "an/image:x", source, found.ask.model, found, Options(**options))


def value(words: list[str] | tuple[str, ...], flag: str) -> str:
    return list(words)[list(words).index(flag) + 1]


# -- the value


def test_a_fit_becomes_a_container() -> None:
    made = served("7b-awq", "2080 Ti", 2)
    assert (made.gpus, made.shm, made.restart) == (Gpus(2), 6, "always")
    assert made.ports == (PublishedPort(8000, 8000, "127.0.0.1"),)
    assert value(made.arguments, "--model") == model_name(made) == "Qwen/Qwen2.5-VL-7B-Instruct-AWQ"
    assert value(made.arguments, "--tensor-parallel-size") == "2"
    assert dict(made.env) == {}  # how vLLM makes its processes is in the image
    assert made.mounts == (Mount("cardstock-cache", "/cache", read_only=False),)


def test_the_transformers_engine_serves_several_cards_by_one_process() -> None:
    made = served("7b", "T4", 2, by="cu124-transformers5.24.0-sdpa-sm75")
    assert value(made.arguments, "--pipeline-parallel-size") == "2" and "--tensor-parallel-size" not in made.arguments
    assert (made.gpus, made.shm) == (Gpus(2), 0)
    assert set(dict(made.env)) == {"CARDSTOCK_MIN_PIXELS", "CARDSTOCK_MAX_PIXELS", "CARDSTOCK_MAX_IMAGES"}


def test_the_cpu_needs_no_fit() -> None:
    source = Source("mine", folder="/m/mine")
    made = make_spec(variant(CPU), "an/image:x", source, model("3b-awq"), None, Options(gpus=Gpus(1)))
    assert made.gpus == NO_CARDS and made.arguments == ("--served-model-name", "mine", "--max-model-len", "8192")
    assert made.mounts[0] == Mount("/m/mine", "/models") and dict(made.env)["HF_HUB_OFFLINE"] == "1"


def test_a_conversation_on_the_cpu_has_room_in_the_cache() -> None:
    # 8192 tokens: 3b 2 x 36 layers x 2 heads x 128 x 2 bytes = 0.28 GiB; 72b 2 x 80 x 8 x 128 x 2 = 2.5 GiB.
    assert cpu_environment(model("3b")) == {}
    assert cpu_environment(model("72b")) == {"VLLM_CPU_KVCACHE_SPACE": "3"}
    with pytest.raises(NoImageFits, match="does not fit in this machine's memory"):
        check_memory(model("7b"), 16 * 10**9)
    check_memory(model("7b"), 17 * 10**9)
    check_memory(model("72b"), 0)


def test_several_machines_are_for_the_cluster() -> None:
    found = fit(ask("72b", "2080 Ti", 8, 2))
    with pytest.raises(NoImageFits, match="more than one container serves") as told:
        make_spec(found.ask.variant, "x", Source("m", repository="a/m"), found.ask.model, found, Options())
    assert "cluster" in told.value.do


def test_what_is_taken_from_outside_is_named_and_not_told() -> None:
    outside = {
        "HF_TOKEN": "hf_secret",
        "CARDSTOCK_REPOSITORY": "r/x",
        "VLLM_API_KEY": "s3cret",
        "CARDSTOCK_API_KEY": "other",
        "HTTP_PROXY": "",
    }
    made = served("3b-awq", "T4", environment=outside)
    assert made.passed == ("VLLM_API_KEY", "CARDSTOCK_REPOSITORY", "HF_TOKEN")
    for text in (docker_line(made), compose(made)):
        assert "s3cret" not in text and "hf_secret" not in text and "HF_TOKEN" in text
    assert create_arguments(made, outside)["environment"]["VLLM_API_KEY"] == "s3cret"
    folder = Options(environment=outside)
    local = make_spec(variant(CPU), "x", Source("m", folder="/m"), model("3b"), None, folder)
    assert local.passed == ("VLLM_API_KEY", "CARDSTOCK_REPOSITORY")
    other = variant("cu124-transformers5.24.0-sdpa-sm75")
    found = fit(ask("3b", "T4", by=other.id))
    made = make_spec(other, "x", Source("m", folder="/m"), model("3b"), found, folder)
    assert made.passed == ("CARDSTOCK_API_KEY", "CARDSTOCK_REPOSITORY")


def test_what_shortens_a_start_is_in_every_form() -> None:
    made = served("3b-awq", "H200", by="cu130-vllm0.33.0-flash-attn-sm90")
    at = made.arguments.index("--cudagraph-capture-sizes")
    sizes = ["--cudagraph-capture-sizes", *(str(size) for size in (1, 2, 4, *range(8, 65, 8)))]
    plan = value(made.arguments, "--additional-config")
    assert list(made.arguments[at : at + len(sizes)]) == sizes and "startup_plan" in json.loads(plan)
    assert dict(made.env)["VLLM_ENABLE_STARTUP_PLAN"] == "1"
    words = shlex.split(docker_line(made))
    assert words[-len(made.arguments) :] == list(made.arguments) and "VLLM_ENABLE_STARTUP_PLAN=1" in words
    ((_, service),) = yaml.safe_load(compose(made))["services"].items()
    assert service["command"] == list(made.arguments) and service["environment"]["VLLM_ENABLE_STARTUP_PLAN"] == "1"
    asked_of_docker = create_arguments(made, {})
    assert asked_of_docker["command"] == list(made.arguments)
    assert asked_of_docker["environment"]["VLLM_ENABLE_STARTUP_PLAN"] == "1"


def test_what_shortens_a_start_gives_way_to_the_user() -> None:
    by = "cu130-vllm0.33.0-flash-attn-sm90"
    more = served("3b-awq", "H200", by=by, flags=("--max-num-seqs 128",))
    assert "--cudagraph-capture-sizes" not in more.arguments and "VLLM_ENABLE_STARTUP_PLAN" not in dict(more.env)
    own = served("3b-awq", "H200", by=by, flags=("--cudagraph-capture-sizes 1 2",))
    assert own.arguments[-3:] == ("--cudagraph-capture-sizes", "1", "2")
    assert own.arguments.count("--cudagraph-capture-sizes") == 1
    older = served("7b", "H200", by="cu126-vllm0.9.2-flash-attn-sm90", flags=("--compilation-config '{\"level\": 3}'",))
    assert older.arguments[-2:] == ("--compilation-config", '{"level": 3}')
    assert older.arguments.count("--compilation-config") == 1


def test_flags_of_the_user_win() -> None:
    made = served("7b-awq", "RTX 3090", flags=("--max_model_len=512", "--max-num-seqs 2", "--enable-x '{\"a\": 1}'"))
    assert not {"--max-model-len", "32768"} & set(made.arguments)
    assert made.arguments[-4:] == ("--max-num-seqs", "2", "--enable-x", '{"a": 1}')
    assert list(made.arguments).count("--max-num-seqs") == 1
    assert merged(["a", "--x", "1", "2", "--y"], ["--x", "3"]) == ["a", "--y", "--x", "3"]


@pytest.mark.parametrize("flag", ["max-model-len 4", "", "--port 1", "--model x", "--served_model_name=x", "--x 'y"])
def test_flags_that_are_none_or_not_for_the_user(flag: str) -> None:
    with pytest.raises(UsageError) as told:
        read_flags([flag])
    assert told.value.do


def test_policies_and_caches_that_are_none() -> None:
    with pytest.raises(UsageError, match="no restart policy 'sometimes'"):
        served("3b", "T4", restart="sometimes")
    with pytest.raises(UsageError, match="cannot be a volume's name"):
        served("3b", "T4", cache="my cache")
    assert served("3b", "T4", cache="/var/my cache").mounts[0].kind == "bind"


# -- typed by hand


LINE = (
    "docker run --rm --gpus all --shm-size 4g --publish 127.0.0.1:8000:8000 --read-only "
    "--tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777 --cap-drop ALL --security-opt no-new-privileges --stop-timeout 30 "
    "--mount type=bind,source=/path/to/model,target=/models,readonly "
    "--mount type=volume,source=cardstock-cache,target=/cache r@d"
)


def test_what_is_typed_with_an_image_that_is_here() -> None:
    assert docker_line(spec_without_model("r@d", cards=True), foreground=True) == LINE
    line = docker_line(spec_without_model("r@d", cards=True, uuids=["GPU-1", "GPU-2"]), foreground=True)
    assert line == LINE.replace("--gpus all", "--gpus '\"device=GPU-1,GPU-2\"'")
    assert docker_line(spec_without_model("r@d", cards=False), foreground=True) == LINE.replace("--gpus all ", "")
    assert serve_words(SM75) == ["./inv", "serve", "--variant", SM75, "--model", "MODEL"]
    assert serve_words(SM75, ["GPU-1", "GPU-2"])[4:6] == ["--gpus", "device=GPU-1,GPU-2"]


def test_what_is_typed_is_as_locked_as_what_is_started() -> None:
    typed, started = spec_without_model("x", cards=True), served("3b-awq", "T4")
    kept = ("mounts", "ports", "shm", "memory", "gpus", "image", "arguments", "name", "env", "labels", "restart")
    differ = {field.name for field in fields(ContainerSpec)} - set(kept)
    assert "read_only" in differ
    assert {name: getattr(typed, name) for name in differ} == {name: getattr(started, name) for name in differ}


# -- where the weights are


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny model").folder


def test_a_folder_is_looked_at(tiny: Path) -> None:
    assert find_source(str(tiny)) == Source("tiny model", folder=str(tiny))
    with pytest.raises(UsageError, match=r"holds no config\.json") as told:
        find_source(str(tiny.parent))
    assert told.value.do == f"--model {tiny}"
    with pytest.raises(UsageError, match="is not a folder"):
        find_source(str(tiny / "config.json"))
    (tiny / "model.safetensors").rename(tiny / "model.bin")
    with pytest.raises(UsageError, match="holds no weights"):
        find_source(str(tiny))


@pytest.mark.parametrize(
    ("keep", "told"),
    [(0, "cut off in its header"), (7, "cut off in its header"), (100, "cut off in its header"), (-1, "is cut off")],
)
def test_weights_that_were_not_fetched_to_the_end(tiny: Path, keep: int, told: str) -> None:
    path = tiny / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=told):
        find_source(str(tiny))


@pytest.mark.parametrize("content", [b"\xff" * 64, struct.pack("<Q", 4) + b"[1]{", struct.pack("<Q", 2) + b"[]"])
def test_weights_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a safetensors file"):
        check_weights(path)


def test_more_than_the_header_says_is_not_the_file(tiny: Path) -> None:
    path = tiny / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UsageError, match="longer than its header says"):
        find_source(str(tiny))


def test_an_index_names_the_files(tiny: Path) -> None:
    index = tiny / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(UsageError, match=r"model-2\.safetensors cannot be read"):
        find_source(str(tiny))
    for wrong, told in (
        ("{", "is not JSON"),
        ("[]", "is not an index of weights"),
        ("{}", "is not an index of weights"),
    ):
        index.write_text(wrong)
        with pytest.raises(UsageError, match=told):
            find_source(str(tiny))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3b-awq", "Qwen/Qwen2.5-VL-3B-Instruct-AWQ"),
        ("7b-fp16", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("someone/my-model", "someone/my-model"),
    ],
)
def test_models_of_a_hub(text: str, name: str) -> None:
    assert find_source(text) == Source(name, repository=name)


@pytest.mark.parametrize("text", ["nothing", "7b-gptq", "./not-there", "/not/there", "a/b/c", "9b"])
def test_models_that_are_nowhere(text: str) -> None:
    with pytest.raises(UsageError) as told:
        find_source(text)
    assert told.value.do


# -- the command, as far as it goes without an engine


def printed(capsys: pytest.CaptureFixture[str], machine: LocalMachine | None = None, **words: Any) -> list[str]:
    options = pick.ServeOptions(**{"print": True, **words})
    command.start_server(context(locked={}), options, machine or LocalMachine(why="no driver"))
    return shlex.split(capsys.readouterr().out)


def rig(*names: str) -> LocalMachine:
    arch = {"NVIDIA GeForce RTX 3090": Arch(8, 6), "Tesla T4": Arch(7, 5)}
    cards = tuple(LocalCard(name, f"GPU-{at}", arch[name], 24 * 2**30) for at, name in enumerate(names))
    return LocalMachine("570.86.10", "12.8", cards)


def test_the_cards_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    two = rig("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090")
    words = printed(capsys, two, model="7b")
    assert value(words, "--gpus") == "2" and value(words, "--tensor-parallel-size") == "2"
    assert "cardstock/qwen2.5-vl:cu129-vllm0.19.1-flash-attn-sm86" in words
    words = printed(capsys, two, model="7b", gpus="device=1", served="mine", port=9000, name="other")
    assert value(words, "--gpus") == "device=1" and "--tensor-parallel-size" not in words
    assert value(words, "--publish") == "127.0.0.1:9000:8000" and value(words, "--served-model-name") == "mine"
    assert value(printed(capsys, two, model="7b", gpus="1"), "--gpus") == "1"
    mixed = rig("NVIDIA GeForce RTX 3090", "Tesla T4")
    assert any(SM75 in word for word in printed(capsys, mixed, model="7b-awq", gpus="device=GPU-1"))


def test_cards_by_name_and_an_image_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, model="3b-awq", cards=["RTX 2080 Ti"], image=f"registry.example.com:5000/a/b:{SM75}")
    assert f"registry.example.com:5000/a/b:{SM75}" in words
    words = printed(capsys, model="7b", cards=["T4"], gpus="2", env=["X=a=b"])
    assert value(words, "--gpus") == "2" and "X=a=b" in words
    assert "--gpus" not in printed(capsys, model="7b-awq", cards=["T4"], gpus="none")
    words = printed(capsys, model="3b-awq", variant=CPU)
    assert "--gpus" not in words and words[-2:] == ["--max-model-len", "8192"]


def test_the_image_with_all_of_nvidias_libraries_is_served_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, model="3b-awq", cards=["RTX 2080 Ti"], variant=f"{SM75}-whole")
    assert f"cardstock/qwen2.5-vl:{SM75}-whole" in words
    assert f"dev.cardstock.serve={SM75}-whole" in words
    plain = printed(capsys, model="3b-awq", cards=["RTX 2080 Ti"], variant=SM75)
    assert [word.replace("-whole", "") for word in words] == plain
    words = printed(capsys, model="3b-awq", cards=["RTX 2080 Ti"], image=f"a/b:{SM75}-whole")
    assert f"a/b:{SM75}-whole" in words
    words = printed(capsys, model="3b-awq", variant=f"{CPU}-whole")
    assert f"cardstock/qwen2.5-vl:{CPU}-whole" in words


def test_compose_is_printed_alone(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    command.start_server(context(locked={}), pick.ServeOptions(model=str(tiny), variant=CPU, compose=True))
    service = yaml.safe_load(capsys.readouterr().out)["services"]["cardstock"]
    assert service["volumes"][0]["source"] == str(tiny) and service["command"][-1] == "4096"


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ({}, UsageError, "which model"),
        ({"model": "3b"}, NoImageFits, "no card to serve on"),
        ({"model": "3b", "variant": "cpu"}, NothingSelected, "no variant cpu"),
        ({"model": "3b", "variant": CPU, "image": "x:y"}, UsageError, "exclude each other"),
        ({"model": "3b", "image": "x:latest"}, UsageError, "no image of this matrix"),
        ({"model": "72b", "cards": ["T4"]}, NoImageFits, "does not fit"),
        ({"model": "3b", "variant": CPU, "env": ["X"]}, UsageError, "has no '='"),
    ],
)
def test_words_that_cannot_be(words: dict[str, Any], kind: type[CardstockError], told: str) -> None:
    with pytest.raises(kind) as found:
        command.start_server(
            context(locked={}), pick.ServeOptions(**{"print": True, **words}), LocalMachine(why="no driver")
        )
    assert told in found.value.what and found.value.do


def test_cards_that_this_machine_has_not() -> None:
    one = rig("Tesla T4")
    for gpus in ("2", "device=1", "device=GPU-9"):
        chosen = read_gpus(gpus)
        with pytest.raises(UsageError, match="this machine has"):
            of_this_machine(one, chosen.count, chosen.devices)
    assert of_this_machine(one, -1) == of_this_machine(one) == (one, (), ())


def test_a_repository_is_asked_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    config = json.loads((tiny / "config.json").read_text())
    asked: list[str] = []

    def answer(repository: str, environment: Any, ca: Any) -> Any:
        asked.append(repository)
        return config

    monkeypatch.setattr(asked_module, "read_config", answer)
    words = printed(capsys, model="someone/my-model", variant=CPU)
    assert value(words, "--model") == "someone/my-model" and words[-1] == "4096"
    printed(capsys, model="3b-awq", variant=CPU)
    assert asked == ["someone/my-model"], "a published model needs no look"


class Answer:
    """What a hub answers."""

    def __init__(self, status: int, data: Any = None, **headers: str) -> None:
        self.status_code, self._data = status, data
        self.headers = {name.replace("_", "-"): told for name, told in headers.items()}

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise requests.exceptions.HTTPError(str(self.status_code))

    def iter_content(self, _: int) -> list[bytes]:
        return [self._data if isinstance(self._data, bytes) else json.dumps(self._data).encode()]


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (Answer(404), UsageError, "has no repository"),
        (Answer(404, X_Error_Code="EntryNotFound"), UsageError, "has no config.json"),
        (Answer(401), UsageError, "not for this token"),
        (Answer(500), RegistryFailure, "could not be looked up"),
        (Answer(200, []), UsageError, "holds no settings"),
        (Answer(200, b"<html>"), UsageError, "is not JSON"),
        (Answer(200, b" " * (1 << 21)), UsageError, "is too large"),
        (requests.exceptions.ConnectionError("no route"), RegistryFailure, "could not be looked up"),
    ],
)
def test_hubs_that_do_not_tell(
    monkeypatch: pytest.MonkeyPatch, answer: Any, kind: type[CardstockError], told: str
) -> None:
    def get(url: str, **how: Any) -> Any:
        assert url == "https://hub.example/a/b/resolve/main/config.json"
        assert how["headers"] == {"Authorization": "Bearer t"}
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(kind) as found:
        hub.read_config("a/b", {"HF_ENDPOINT": "https://hub.example/", "HF_TOKEN": "t"})
    assert told in found.value.what and found.value.do


def test_what_to_type_next() -> None:
    lines = command.how_to_use(SPEC, "unix:///own.sock")
    words = shlex.split(lines[0].removeprefix("ask: "))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == "tiny"
    assert lines[1] == "metrics: http://127.0.0.1:8000/metrics" and lines[-1].startswith(
        "export DOCKER_HOST=unix:///own"
    )
    assert "./inv serve --stop cardstock" in lines[3]
    assert not any("anyone" in line for line in lines)
    assert "anyone who reaches 0.0.0.0" in command.how_to_use(replace(SPEC, ports=OPEN), "")[-1]
    keyed = command.how_to_use(replace(SPEC, ports=OPEN, passed=("VLLM_API_KEY",)), "")
    assert "Authorization: Bearer" in keyed[0] and not any("anyone" in line for line in keyed)


# -- ModelScope


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what is fetched, and a downloader that copies a tiny checkpoint."""
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "modelscope"
    program.write_text(
        f"#!{sys.executable}\nimport json, shutil, sys\nfrom pathlib import Path\n"
        f"Path({str(tmp_path)!r}, 'asked.json').write_text(json.dumps(sys.argv[1:]))\n"
        f"source = Path({str(tmp_path)!r}, 'hub')\n"
        "if not source.is_dir():\n    sys.exit('no such repository')\n"
        "shutil.copytree(source, sys.argv[4], dirs_exist_ok=True)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(modelscope, "provide_environment", lambda lock, home, say: tmp_path / "bin" / "python")
    return tmp_path


def test_a_model_of_modelscope_is_fetched_to_a_folder(home: Path) -> None:
    source = Source("Qwen/X", repository="Qwen/X")
    with pytest.raises(RegistryFailure, match="could not be fetched from ModelScope") as told:
        modelscope.source_of(home, source, Report(live=False))
    assert "no such repository" in told.value.cause
    write_checkpoint(home / "hub")
    found = modelscope.source_of(home, source, Report(live=False))
    assert found == Source("Qwen/X", folder=str(home / "models/modelscope/Qwen/X"))
    asked = json.loads((home / "asked.json").read_text())
    assert asked[:4] == ["download", "Qwen/X", "--local-dir", found.folder] and "*.safetensors" in asked
    mine = Source("mine", folder="/m")
    assert modelscope.source_of(home, mine, Report()) == mine
    (home / "hub" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="cut off"):
        modelscope.source_of(home, source, Report(live=False))


def test_a_line_for_modelscope_fetches_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = printed(capsys, model="3b-awq", variant=CPU, from_modelscope=True)
    folder = home / "models/modelscope/Qwen/Qwen2.5-VL-3B-Instruct-AWQ"
    assert value(words, "--mount") == f"type=bind,source={folder},target=/models,readonly"
    assert value(words, "--served-model-name") == "Qwen/Qwen2.5-VL-3B-Instruct-AWQ" and "--model" not in words
    assert not (home / "asked.json").exists()
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    assert printed(capsys, model="3b-awq", variant=CPU) == words


@pytest.mark.parametrize("tag", [SM75, f"{SM75}-0123456789ab"])
def test_open_advisories_are_told_before_a_server_starts(tmp_path: Path, tag: str) -> None:
    given = assessments(tmp_path, listed(HOLE))
    report, err = silent()
    here = context(report, root=tmp_path, matrix=given.matrix, variants=given.variants, assessments=given)
    command.tell_open_advisories(here, spec_without_model(f"cardstock/qwen2.5-vl:{tag}", cards=True))
    assert err.getvalue().startswith(f"open advisories in {SM75}: CVE-2026-0001 (critical 9.8)")


def test_an_image_of_another_kind_is_told_nothing_of(tmp_path: Path) -> None:
    given = assessments(tmp_path, listed(HOLE))
    report, err = silent()
    here = context(report, root=tmp_path, matrix=given.matrix, variants=given.variants, assessments=given)
    command.tell_open_advisories(here, spec_without_model("somebody/else:1", cards=True))
    assert err.getvalue() == ""


def test_a_machine_that_has_lost_a_card_serves_on_the_others_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    whole = rig(*["Tesla T4"] * 4)
    cards = tuple(replace(card, index=at) for at, card in enumerate(whole.cards) if at != 1)
    lame = replace(whole, cards=cards, lost=(LostCard(1, "0000:3b:00.0", explain_card(15, "0000:3b:00.0")),))
    words = printed(capsys, lame, model="3b-awq")
    assert value(words, "--gpus") == "device=GPU-0" or value(words, "--gpus").startswith('"device=GPU-0,GPU-2')
    assert "GPU-1" not in value(words, "--gpus")
    assert value(printed(capsys, lame, model="3b-awq", gpus="device=3"), "--gpus") == "device=3"
    assert of_this_machine(lame, devices=("3",))[0].cards[0].uuid == "GPU-3"
    assert value(printed(capsys, lame, model="3b-awq", gpus="2"), "--gpus") == '"device=GPU-0,GPU-2"'
    with pytest.raises(UsageError, match="no card 1") as caught:
        of_this_machine(lame, devices=("1",))
    assert "0000:3b:00.0" in caught.value.cause


def test_a_uuid_that_the_images_vllm_cannot_read_is_refused_with_what_to_type() -> None:
    asked = pick.ServeOptions(print=True, model="3b-awq", cards=["T4"], env=["CUDA_VISIBLE_DEVICES=GPU-5fb2e1b4"])
    with pytest.raises(UsageError, match="does not start with CUDA_VISIBLE_DEVICES=GPU-5fb2e1b4") as caught:
        command.start_server(context(locked={}), asked, LocalMachine(why="no driver"))
    assert "--gpus device=GPU-5fb2e1b4" in caught.value.do


def test_printed_lines_ask_for_cards_as_this_machines_engine_gives_them(capsys: pytest.CaptureFixture[str]) -> None:
    here = context(locked={}).having(way_to_cards="cdi")
    options = pick.ServeOptions(print=True, model="3b-awq")
    command.start_server(here, options, rig("Tesla T4"))
    words = shlex.split(capsys.readouterr().out)
    assert value(words, "--device") == "nvidia.com/gpu=0" and "--gpus" not in words
    command.start_server(here, replace(options, compose=True), rig("Tesla T4"))
    service = yaml.safe_load(capsys.readouterr().out)["services"]["cardstock"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "cdi"
    command.start_server(here, replace(options, cards=["T4"]), rig("Tesla T4"))
    assert "--gpus" in shlex.split(capsys.readouterr().out), "another machine's engine is not known"


@pytest.mark.parametrize(
    ("gpus", "devices"),
    [
        ("nvidia.com/gpu=1", ["nvidia.com/gpu=1"]),
        ("nvidia.com/gpu=0,nvidia.com/gpu=1", ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
    ],
)
def test_cards_that_are_named_as_cdi_devices_stay_such(
    capsys: pytest.CaptureFixture[str], gpus: str, devices: list[str]
) -> None:
    words = printed(capsys, rig("Tesla T4", "Tesla T4"), model="3b-awq", gpus=gpus)
    assert [words[at + 1] for at, word in enumerate(words) if word == "--device"] == devices
    assert "--gpus" not in words


# -- an engine on another machine


@pytest.mark.parametrize(
    ("host", "engine", "told"),
    [
        ("127.0.0.1", "ssh://me@far:2222", "from here first: ssh -L 8000:127.0.0.1:8000 -p 2222 me@far"),
        ("127.0.0.1", "tcp://far:2376", "from here first: ssh -L 8000:127.0.0.1:8000 THAT_HOST"),
        ("0.0.0.0", "ssh://far", "it listens on 0.0.0.0, port 8000, of the engine's machine (ssh://far)"),
    ],
)
def test_where_a_server_of_another_machine_listens(host: str, engine: str, told: str) -> None:
    spec = replace(SPEC, ports=(PublishedPort(8000, 8000, host),))
    assert told in command.how_to_use(spec, "", engine)[0]
    assert not any(told in line for line in command.how_to_use(spec, ""))


def test_the_cards_of_an_engine_elsewhere_are_said_not_taken_from_here() -> None:
    class Elsewhere:
        endpoint, beside = "ssh://far", False

    card = LocalMachine(cards=(LocalCard("Tesla T4", "GPU-1", Arch(7, 5), 15 * 2**30),), driver="535.104.05")
    asked = pick.ServeOptions(model="3b-awq")
    source = Source("m", repository="a/m")
    known = context(locked={})
    with pytest.raises(UsageError, match="which cards has the engine's machine") as caught:
        pick.plan(known, asked, source, model("3b-awq"), card, Elsewhere())  # type: ignore[arg-type]
    assert "./inv serve --card NAME --driver VERSION" in caught.value.do
    named = replace(asked, cards=("T4",), driver="535.104")
    locked = context(locked={"cu124-vllm": True})
    assert pick.plan(locked, named, source, model("3b-awq"), card, Elsewhere()).gpus == Gpus(1)  # type: ignore[arg-type]
    on_cpu = replace(asked, variant=CPU)
    assert pick.plan(known, on_cpu, source, model("3b-awq"), card, Elsewhere()).gpus == NO_CARDS  # type: ignore[arg-type]
