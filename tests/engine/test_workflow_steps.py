"""What publishes, executed: the workflows' own commands for the image for the CPU, with a registry on loopback."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.catalogue.model import read_catalogue
from images.core import process
from images.docker.engine import Engine
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, Cosign, find_cosign
from images.render.labels import VARIANT
from tests.engine.real_registry import RealRegistry
from tests.engine.workflow_steps import Runner, cloned

ROOT = Path(__file__).parents[2]
REPO = "vars.CARDSTOCK_REPOSITORY || format('ghcr.io/{0}', github.repository)"
# What only GitHub has, or nobody wants on his own machine.
NOT_HERE = {
    "actions/checkout",
    "actions/setup-python",
    "sigstore/cosign-installer",
    "actions/upload-artifact",
    "Log in to the registry",
    "Make room for the image",
    "Keep what was measured and proven",
}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fresh pair of keys of cosign's, whose password the environment has."""
    monkeypatch.setenv(PASSWORD, "of a test")
    process.run([find_cosign(say=print), "generate-key-pair"], cwd=tmp_path)
    return tmp_path


@pytest.fixture
def runner(engine: Engine, registry: RealRegistry, keys: Path) -> Iterator[Runner]:
    """A runner with a checkout of the last commit: what is published comes from a commit."""
    known = {
        "inputs.only || '*'": "cpu*",
        REPO: f"{registry.host}/Team/qwen",
        "inputs.repo": f"{registry.host}/Team/qwen",
        "vars.CARDSTOCK_SIGN || '--keyless'": f"--key={keys / 'cosign.key'}",
        # What is open in the image for the CPU, if anything is: a name that is not open is let pass.
        "vars.CARDSTOCK_ACCEPT": "GHSA-5r3c-5x4v-8gjh",
        "vars.CARDSTOCK_ZSTD": "yes" if shutil.which("zstd") else "",  # minutes sooner than gzip
        "startsWith(env.REPO, 'ghcr.io/')": "false",
        "startsWith(inputs.repo, 'ghcr.io/')": "false",
        "runner.environment == 'github-hosted'": "false",
    }
    with tempfile.TemporaryDirectory(prefix="cardstock-checkout-") as folder:
        yield Runner(cloned(ROOT, Path(folder) / "cardstock"), known)
    for facts in engine.images(VARIANT):
        for name in facts.digests:
            if name.startswith(registry.host):
                engine.untag(name)


@pytest.mark.timeout(3600)
def test_an_image_goes_from_plan_to_catalogue(
    runner: Runner, registry: RealRegistry, keys: Path, tmp_path: Path
) -> None:
    remote = tmp_path / "remote.git"
    process.run(["git", "init", "--quiet", "--bare", str(remote)])
    planned = runner.job("publish.yml", "plan")
    [[image]] = json.loads(planned["images"])
    assert image["id"].startswith("cpu-")
    assert planned["kernels"] == "[]"  # so the job that compiles does not run

    runner.known |= {f"matrix.image.{key}": value for key, value in image.items()}
    runner.job("images.yml", "image")
    shop = Repository(f"{registry.host}/team/qwen")
    published = shop.manifest(image["id"])
    assert published is not None
    Cosign(find_cosign()).verify(shop.name, published.digest, keys / "cosign.pub")
    audit = json.loads((runner.checkout / "build" / "audits" / f"{image['id']}.json").read_text(encoding="utf-8"))
    assert audit

    runner.known["fromJSON(needs.plan.outputs.images)[0][0].id"] = image["id"]
    runner.job("publish.yml", "catalogue")
    saved = runner.checkout / "build" / "catalogue.json"

    runner.known["format('https://x-access-token:{0}@github.com/{1}', secrets.GITHUB_TOKEN, github.repository)"] = str(
        remote
    )
    runner.job("publish.yml", "readme")
    shown = process.run(["git", "show", "catalogue:README.md"], cwd=remote).out
    assert f"| - | no card | `{image['id']}` |" in shown
    [entry] = read_catalogue(saved.read_bytes(), "build/catalogue.json").images
    assert (entry.variant, entry.digest) == (image["id"], published.digest)
    assert {proof.level: proof.status for proof in entry.evidence}["canary"] == "passed"
    assert {name.partition("@")[0] for name in runner.left} == NOT_HERE
