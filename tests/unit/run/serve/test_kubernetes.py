"""`invoke serve --kubernetes`: what it prints, held against Kubernetes' schemas; mistakes that they must refuse."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.cards.this_machine import LocalMachine
from images.commands.serve import EXAMPLE, example_base, start_server
from images.core import process
from images.core.errors import NothingSelected, UsageError
from images.distribution import pull
from images.docker.container_arguments import create_arguments
from images.render import PORT
from images.run.fit.choose import fit
from images.run.serve import kubernetes
from images.run.serve.kubernetes import Served, documents, kustomize_base, manifest, start_seconds
from images.run.serve.make import Options, make_spec
from images.run.serve.opened import HOSTS, Opened
from images.run.serve.pick import ServeOptions
from images.run.serve.source import Source
from tests.helpers.catalogues import catalogue, digest
from tests.helpers.containers import of_arguments, of_pod
from tests.helpers.contexts import context, silent
from tests.helpers.fits import SM75, ask, model, variant
from tests.helpers.kubernetes import faults, unrelated
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

DIGEST = f"sha256:{'0' * 64}"
IMAGE = f"registry.example.com/team/qwen:{SM75}@{DIGEST}"
CPU = "cpu-vllm0.32.0-sdpa"
SDPA = "cu124-transformers5.24.0-sdpa-sm75"
Document = dict[str, Any]


def served(named: str, on: str, count: int = 1, *, by: str = "", folder: str = "", **options: Any) -> Served:
    """What is printed for a published model on cards."""
    found = fit(ask(named, on, count, by=by))
    source = Source("mine", folder=folder) if folder else Source(found.ask.model.source, repository="r/x")
    how = Options(**options)
    spec = make_spec(found.ask.variant, IMAGE, source, found.ask.model, found, how)
    return Served(spec, found.ask.variant, found.ask.model, not folder, how.environment or {})


def pod_of(made: Mapping[str, Document]) -> Document:
    return dict(made["deployment.yaml"]["spec"]["template"]["spec"])


def typed(*, environment: Mapping[str, str] | None = None, **options: Any) -> tuple[str, str]:
    """Told and printed, of a machine without a card."""
    report, err = silent()
    asked = ServeOptions(kubernetes=True, **{"model": "3b-awq", "cards": ("T4",), "image": IMAGE, **options})
    given = context(report, environment=environment or {}, locked={"cu124-vllm": True, "cpu-vllm": True})
    start_server(given, asked, LocalMachine())
    return err.getvalue(), ""


CASES = {
    "one card": lambda: served("3b-awq", "T4"),
    "two cards": lambda: served("7b-awq", "2080 Ti", 2, name="second", port=9000),
    "start settings": lambda: served("3b-awq", "H200", by="cu130-vllm0.33.0-flash-attn-sm90"),
    "transformers": lambda: served("3b", "T4", by=SDPA, environment={"HF_TOKEN": "secret"}),
    "opened": lambda: served("3b-awq", "T4", opened=Opened(["gpu.example.org"], ["*"])),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_fits_kubernetes_schemas_and_itself(case: Callable[[], Served]) -> None:
    made = case()
    read = list(yaml.safe_load_all(manifest(made)))
    assert [one["kind"] for one in read] == ["PersistentVolumeClaim", "Deployment", "Service"]
    assert [fault for one in nonempty(read) for fault in faults(one)] == []
    assert list(unrelated(read)) == []
    assert read == list(documents(made).values())
    assert "&id" not in manifest(made)


def test_without_cards() -> None:
    source = Source("mine", repository="r/x")
    spec = make_spec(variant(CPU), IMAGE, source, model("3b-awq"), None, Options())
    made = documents(Served(spec, variant(CPU), model("3b-awq"), True, {}))
    assert [fault for one in nonempty(made.values()) for fault in faults(one)] == []
    pod = pod_of(made)
    assert pod["containers"][0]["resources"]["limits"] == {"memory": spec.memory} and "tolerations" not in pod


# -- a mistake is found: a check that passes everything would pass these


def at(document: Document, path: str) -> tuple[Any, Any]:
    """The last container on the way to a field, and the field's key."""
    *way, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    here: Any = document
    for part in way:
        here = here[part]
    return here, last


POD = "spec/template/spec"
CONTAINER = f"{POD}/containers/0"
# What a person or a change may get wrong, and the schema's words for it.
WRONG = {
    "an unknown field": ("deployment.yaml", f"{CONTAINER}/startupProb", {}, "startupProb"),
    "another case": ("deployment.yaml", f"{CONTAINER}/startupProbe/failurethreshold", 3, "failurethreshold"),
    "a number as text": ("deployment.yaml", f"{CONTAINER}/livenessProbe/periodSeconds", "10", "'10' is not of type"),
    "a variable that is a number": ("deployment.yaml", f"{CONTAINER}/env/0/value", 1, "1 is not of type"),
    "arguments as one text": ("deployment.yaml", f"{CONTAINER}/args", "--model x", "is not of type"),
    "a template without a pod": ("deployment.yaml", "spec/template", "x", "is not of type"),
    "another kind's api": ("deployment.yaml", "apiVersion", "v1", "no schema of"),
    "no selector": ("deployment.yaml", "spec/selector", ..., "'selector' is a required property"),
    "a port without a number": ("service.yaml", "spec/ports/0/port", ..., "'port' is a required property"),
    "modes as one text": ("cache.yaml", "spec/accessModes", "ReadWriteOnce", "is not of type"),
    "a volume of no kind": ("deployment.yaml", f"{POD}/volumes/0/hostpath", {"path": "/"}, "hostpath"),
}


@pytest.mark.parametrize(("file", "path", "value", "words"), WRONG.values(), ids=WRONG)
def test_the_schema_refuses(file: str, path: str, value: object, words: str) -> None:
    made = copy.deepcopy(documents(served("3b-awq", "T4")))
    where, last = at(made[file], path)
    if value is ...:
        del where[last]
    else:
        where[last] = value
    found = faults(made[file])
    assert any(words in fault for fault in found), found


APART = {
    "a selector of others": ("service.yaml", "spec/selector/app.kubernetes.io~instance", "other", "selects no pod"),
    "a port of no name": ("service.yaml", "spec/ports/0/targetPort", "web", "no port is called web"),
    "a probe of no port": ("deployment.yaml", f"{CONTAINER}/startupProbe/httpGet/port", "web", "no port is called"),
    "a mount of no volume": ("deployment.yaml", f"{CONTAINER}/volumeMounts/0/name", "x", "are mounted as"),
    "a claim of nobody": ("cache.yaml", "metadata/name", "other", "are used as"),
    "a name that cannot be": ("service.yaml", "metadata/name", "My_Server", "cannot be called"),
    "root": ("deployment.yaml", f"{POD}/securityContext/runAsUser", 0, "not restricted: runAsUser"),
    "a root that is written": (
        "deployment.yaml", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False, "readOnlyRootFilesystem",
    ),
    "a capability": (
        "deployment.yaml", f"{CONTAINER}/securityContext/capabilities", {"add": ["SYS_ADMIN"]}, "capabilities",
    ),
    "a token": ("deployment.yaml", f"{POD}/automountServiceAccountToken", True, "automountServiceAccountToken"),
    "the host's network": ("deployment.yaml", f"{POD}/hostNetwork", True, "host namespaces"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "path", "value", "words"), APART.values(), ids=APART)
def test_what_no_schema_sees_is_seen(file: str, path: str, value: object, words: str) -> None:
    made = copy.deepcopy(documents(served("3b-awq", "T4")))
    where, last = at(made[file], path)
    where[str(last).replace("~", "/") if isinstance(last, str) else last] = value
    assert any(words in fault for fault in unrelated(list(made.values())))


# -- what is in it


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_container_that_serve_starts(case: Callable[[], Served]) -> None:
    made = case()
    key = "CARDSTOCK_API_KEY" if made.variant.backend == "transformers" else "VLLM_API_KEY"
    pod = pod_of(documents(made))
    there = of_pod(pod, {key: "k"})
    started = of_arguments(made.spec.image, create_arguments(made.spec, {}))
    same = ("image", "process", "read_only", "dropped", "security")
    assert {name: there[name] for name in same} == {name: started[name] for name in same}
    own = {name: value for name, value in there["env"].items() if value is not None}
    assert own.pop(key) == "k"
    names = own.pop(HOSTS).split(",")
    assert names[-3:] == [made.spec.name, "*.svc", "*.svc.cluster.local"]
    wanted = {name: value for name, value in dict(made.spec.env).items() if name != HOSTS}
    assert own == wanted and names[:-3] == [one for one in dict(made.spec.env).get(HOSTS, "").split(",") if one]
    assert there["cards"] == made.spec.gpus.count and there["memory"] == made.spec.memory
    assert there["shm"] == ([made.spec.shm] if made.spec.shm else [])
    assert there["stop_timeout"] == made.spec.stop_timeout
    assert pod["containers"][0]["ports"] == [{"name": "http", "containerPort": PORT}]


def test_keys_come_from_a_secret_and_stand_nowhere() -> None:
    outside = {"VLLM_API_KEY": "s3cret", "HF_TOKEN": "hf_secret", "CARDSTOCK_REPOSITORY": "r.example/x"}
    made = served("3b-awq", "T4", environment=outside)
    text = manifest(made)
    assert "s3cret" not in text and "hf_secret" not in text
    (container,) = pod_of(documents(made))["containers"]
    given = {one["name"]: one for one in container["env"]}
    asked = {name: one["valueFrom"]["secretKeyRef"] for name, one in given.items() if "valueFrom" in one}
    assert asked["VLLM_API_KEY"] == {"name": "cardstock-keys", "key": "VLLM_API_KEY", "optional": False}
    assert asked["HF_TOKEN"]["optional"] is True
    assert given["CARDSTOCK_REPOSITORY"]["value"] == "r.example/x"
    assert text.startswith("# First, once: kubectl create secret generic cardstock-keys --from-literal=VLLM_API_KEY=$(")
    # Without one in the environment it is asked for all the same: a Service is reached by every pod.
    (container,) = pod_of(documents(served("3b", "T4", by=SDPA)))["containers"]
    assert container["env"][-6]["valueFrom"]["secretKeyRef"]["key"] == "CARDSTOCK_API_KEY"


def probes(made: Served) -> Document:
    (container,) = pod_of(documents(made))["containers"]
    return {name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}


def test_a_start_has_its_time() -> None:
    small, large = served("3b-awq", "T4"), served("72b-awq", "H200")
    for made in (small, large):
        start = probes(made)["startupProbe"]
        assert start["httpGet"] == {"path": "/health", "port": "http"}
        assert start["periodSeconds"] * start["failureThreshold"] >= start_seconds(made.model, True)
    # 3.4 GB at 100 Mbit/s take 272 s, 41 GB take 3300.
    assert 900 + 240 < start_seconds(small.model, True) < 900 + 300
    assert 900 + 3100 < start_seconds(large.model, True) < 900 + 3500
    assert start_seconds(large.model, False) == 900
    alive = probes(small)["livenessProbe"]
    assert (alive["periodSeconds"], alive["timeoutSeconds"], alive["failureThreshold"]) == (10, 10, 6)


def test_the_times_are_those_of_the_image_and_above_what_was_measured() -> None:
    """The image's health check gives a start the same time; the longest start on a card is in its record."""
    template = (ROOT / "dockerfiles/templates/Dockerfile.j2").read_text()
    found = re.search(
        r"HEALTHCHECK --interval=(\d+)s --timeout=(\d+)s --start-period=(\d+)s .*--retries=(\d+)", template
    )
    assert found is not None
    assert tuple(map(int, found.groups())) == (
        kubernetes.INTERVAL, kubernetes.TIMEOUT, kubernetes.START_PERIOD, kubernetes.RETRIES,
    )  # fmt: skip
    healthy = [
        float(seconds)
        for path in (ROOT / "records/cards").glob("*.json")
        for seconds in re.findall(r'"healthy": ([\d.]+)', path.read_text())
    ]
    assert 3 * max(healthy) < kubernetes.START_PERIOD


def test_the_cache_is_a_claim_that_holds_the_weights() -> None:
    made = documents(served("72b-awq", "H200"))
    assert made["cache.yaml"]["spec"]["resources"]["requests"]["storage"] == "51Gi"
    local = documents(served("3b-awq", "T4", folder="/srv/mine"))
    assert local["cache.yaml"]["spec"]["resources"]["requests"]["storage"] == "10Gi"
    (place,) = [one for one in pod_of(local)["volumes"] if one["name"] == "models"]
    assert place["hostPath"] == {"path": "/srv/mine", "type": "Directory"}
    folder = documents(served("3b-awq", "T4", cache="/srv/cache"))
    assert list(folder) == ["deployment.yaml", "service.yaml"]
    (place,) = [one for one in pod_of(folder)["volumes"] if one["name"] == "cache"]
    assert place["hostPath"]["path"] == "/srv/cache"


def test_the_service_has_the_port_that_was_asked_for() -> None:
    made = documents(served("3b-awq", "T4", port=9000))
    assert made["service.yaml"]["spec"]["ports"] == [{"name": "http", "port": 9000, "targetPort": "http"}]
    assert "type" not in made["service.yaml"]["spec"]  # ClusterIP: nothing of it is outside the cluster


# -- the command


def test_the_command_prints_what_kubectl_takes(capsys: pytest.CaptureFixture[str]) -> None:
    told, _ = typed()
    read = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [fault for one in nonempty(read) for fault in faults(one)] == [] and list(unrelated(read)) == []
    assert read[1]["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    assert "next: kubectl create secret generic cardstock-keys" in told and "next: kubectl apply -f" in told


def test_the_time_to_wait_is_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    typed(wait=7200)
    start = list(yaml.safe_load_all(capsys.readouterr().out))[1]["spec"]["template"]["spec"]["containers"][0]
    assert start["startupProbe"]["failureThreshold"] == 1440


@pytest.mark.parametrize(
    ("options", "what", "do"),
    [
        ({"image": f"registry.example.com/team/qwen:{SM75}"}, "not an image by its digest", "--from REPO"),
        ({"image": ""}, "which image is a node to pull?", "--from REPO"),
        ({"restart": "no"}, "--restart no is not for Kubernetes", "leave it out"),
        ({"name": "My_Server"}, "--name 'My_Server' cannot be the name", "--name cardstock"),
        ({"cache": "My_Cache"}, "--cache 'My_Cache' cannot be the name", "--cache cardstock"),
        ({"compose": True}, "exclude each other", "name one"),
    ],
)
def test_what_kubernetes_cannot_have_is_refused(options: dict[str, Any], what: str, do: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed(**options)
    assert what in caught.value.what and do in caught.value.do


def test_out_is_for_kubernetes_alone() -> None:
    with pytest.raises(UsageError, match="--out is for --kubernetes"):
        start_server(context(locked={}), ServeOptions(model="3b-awq", cards=("T4",), print=True, out="x"))


def test_the_image_of_a_repository_comes_by_its_digest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = catalogue(SM75)
    monkeypatch.setattr(pull, "read", lambda repository, keys: published)
    monkeypatch.setattr(pull, "verify", lambda *one: None)
    typed(image="", source="registry.example.com/team/qwen")
    image = f"registry.example.com/team/qwen:{SM75}@{digest(f'manifest {SM75} ')}"
    assert f"image: {image}\n" in capsys.readouterr().out
    with pytest.raises(NothingSelected, match="nothing is published as"):
        typed(image="", source="registry.example.com/team/qwen", cards=("RTX 4090",))


def test_out_writes_a_base_that_kustomize_reads(tmp_path: Path) -> None:
    told, _ = typed(out=str(tmp_path / "base"))
    files = {path.name: path.read_text() for path in (tmp_path / "base").iterdir()}
    assert sorted(files) == ["cache.yaml", "deployment.yaml", "kustomization.yaml", "service.yaml"]
    assert sorted(yaml.safe_load(files.pop("kustomization.yaml"))["resources"]) == sorted(files)
    assert "kubectl apply -k" in told
    assert [fault for text in nonempty(files.values()) for fault in faults(yaml.safe_load(text))] == []


# -- the example


def same(text: str) -> Any:
    """A file's content, with the local name of the image."""
    return yaml.safe_load(text.replace(IMAGE, f"cardstock/qwen2.5-vl:{SM75}"))


def test_the_example_is_what_the_command_writes(tmp_path: Path) -> None:
    """`./inv render --check` holds it to this; here, that it is the command's own output but for the image's place."""
    typed(out=str(tmp_path))
    for path, text in nonempty(example_base(context()).items()):
        assert (ROOT / path).read_text() == text
        written = (tmp_path / Path(path).name).read_text()
        assert same(written) == same(text)
    assert sorted(path.name for path in (ROOT / EXAMPLE).iterdir()) == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kustomize_sets_the_image_of_the_example(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(ROOT / EXAMPLE, base)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(
        f"resources: [../base]\nnamespace: models\nimages:\n"
        f"- {{name: cardstock/qwen2.5-vl, newName: registry.example.com/team/qwen, digest: '{DIGEST}'}}\n"
    )
    made = process.run(["kubectl", "kustomize", str(tmp_path / "mine")], timeout=60).out
    read = list(yaml.safe_load_all(made))
    assert [fault for one in nonempty(read) for fault in faults(one)] == [] and list(unrelated(read)) == []
    (deployment,) = [one for one in read if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/team/qwen@{DIGEST}"
    assert deployment["metadata"]["namespace"] == "models"


def test_a_base_is_the_manifest_in_files() -> None:
    made = served("3b-awq", "T4")
    files = kustomize_base(made)
    del files["kustomization.yaml"]
    assert [yaml.safe_load(text) for text in files.values()] == list(documents(made).values())
