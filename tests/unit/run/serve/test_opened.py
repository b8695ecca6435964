"""What a server lets in beyond its guard's defaults, and the memory of its container."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from images.core.errors import NoImageFits, UsageError
from images.docker.container_spec import ContainerSpec, read_memory
from images.docker.container_text import docker_words
from images.run.fit.beside_the_cards import cpu_memory, host_memory, memory_limit
from images.run.fit.choose import fit
from images.run.fit.usable_memory import GIB
from images.run.serve.make import Options, cpu_cache, make_spec, on_cpu
from images.run.serve.opened import Opened
from images.run.serve.source import Source
from tests.helpers.fits import SM75, ask, model, variant

CPU = "cpu-vllm0.32.0-sdpa"


def on_the_cpu(**options: Any) -> ContainerSpec:
    return make_spec(variant(CPU), "x", Source("m", folder="/m"), model("3b-awq"), None, Options(**options))


def on_a_card(video: int = 0, **options: Any) -> ContainerSpec:
    found = fit(replace(ask("3b-awq", "T4", by=SM75), video=video))
    return make_spec(found.ask.variant, "x", Source("m", folder="/m"), found.ask.model, found, Options(**options))


def test_hosts_and_domains_are_variables_of_the_container() -> None:
    opened = Opened(["gpu.example.org", "*.lab"], ["a.org", "10.0.0.7"])
    for made in (on_the_cpu(opened=opened), on_a_card(opened=opened)):
        env = dict(made.env)
        assert env["CARDSTOCK_ALLOWED_HOSTS"] == "gpu.example.org,*.lab"
        assert env["CARDSTOCK_MEDIA_DOMAINS"] == "a.org,10.0.0.7"
    assert Opened(["*"], ["*"]).environment()["CARDSTOCK_MEDIA_DOMAINS"] == "*"
    assert not set(dict(on_the_cpu().env)) & {"CARDSTOCK_ALLOWED_HOSTS", "CARDSTOCK_MEDIA_DOMAINS"}


@pytest.mark.parametrize("name", ["", "a b", "http://a.org", "a.org/x", "a,b", "*x", "-a", "a$b"])
def test_a_host_that_is_none(name: str) -> None:
    for opened in (Opened(hosts=[name]), Opened(domains=[name])):
        with pytest.raises(UsageError, match="no name of a host"):
            opened.environment()


def test_videos_are_off_unless_asked_for() -> None:
    def limits(made: ContainerSpec) -> dict[str, int]:
        words = list(made.arguments)
        return dict(json.loads(words[words.index("--limit-mm-per-prompt") + 1]))

    assert limits(on_a_card())["video"] == 0 and limits(on_a_card(video=2))["video"] == 2
    assert "--limit-mm-per-prompt" not in on_the_cpu().arguments  # the image's own has none
    assert limits(on_the_cpu(video=1)) == {"image": 8, "video": 1}
    with pytest.raises(NoImageFits, match="takes no videos"):
        fit(replace(ask("3b", "T4", by="cu124-transformers5.24.0-sdpa-sm75"), video=1))


def test_the_memory_is_the_sum_and_may_be_set() -> None:
    found = fit(ask("3b-awq", "T4", by=SM75))
    assert on_a_card().memory == memory_limit(host_memory(found)) > 8 * GIB
    assert on_the_cpu().memory == memory_limit(on_cpu(model("3b-awq")))
    for made in (on_a_card(memory="24g"), on_the_cpu(memory="24GiB")):
        assert made.memory == 24 * GIB
        words = docker_words(made)
        assert words[words.index("--memory") + 1] == words[words.index("--memory-swap") + 1] == str(24 * GIB)
    assert on_a_card(memory="none").memory == 0 and "--memory" not in docker_words(on_a_card(memory="none"))


@pytest.mark.parametrize("text", ["", "24", "24t", "-1g", "0g", "100m", "1.5g", "all"])
def test_a_memory_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-limit"):
        read_memory(text)


def test_what_is_summed() -> None:
    old, new = fit(ask("7b-awq", "T4", 2, by=SM75)), fit(ask("7b-awq", "RTX 3090", 1))
    lines = {line.name: line.bytes for line in host_memory(old)}
    assert lines["cards"] == 2 * 4 * GIB and lines["swapped cache"] == 2 * 4 * GIB and lines["shared memory"] == 6 * GIB
    assert "swapped cache" not in {line.name for line in host_memory(new)}
    own = fit(ask("7b", "T4", 2, by="cu124-transformers5.24.0-sdpa-sm75"))
    weights = {line.name: line.bytes for line in host_memory(own)}["weights"]
    assert 14 * GIB < weights < 17 * GIB and "prepared pictures" not in {line.name for line in host_memory(own)}
    on = {line.name: line.bytes for line in cpu_memory(model("3b"), cpu_cache(model("3b")), 2)}
    assert on["key-value cache"] == GIB and on["weights"] > 12 * GIB
    assert memory_limit(host_memory(old)) % GIB == 0
