"""The program `which`, built with Go's own checks in a container: it answers as `invoke pull` does."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from images.cards import LocalCard, LocalMachine, all_cards
from images.catalogue import SigningKeys
from images.commands.pull import PullOptions, pull_images
from images.commands.which import WhichOptions, build_program, publish_program
from images.context import Context
from images.core import CheckFailed, process
from images.docker import Mount
from images.docker.engine import Engine
from images.docker.facts import Ran
from images.matrix import Arch, Matrix, make_variants
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, Cosign, find_cosign
from images.which import TAG
from images.which.publish import prove
from images.which.questions import Question, differences
from tests.conftest import say
from tests.engine.real_registry import RealRegistry
from tests.helpers.catalogues import catalogue, catalogue_of
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import edited, matrix, variants, with_lists
from tests.helpers.nonempty import nonempty
from tests.helpers.small_publisher import CPU, SM75, SmallPublisher
from tests.helpers.which_cases import DRIVERS, REPOSITORY, by_name, machines, mixed

pytestmark = pytest.mark.timeout(900)
IMAGE = f"test/which:{TAG}"
CARDS = 500
# What nvidia-smi answers on a machine with a T4, and NVML.
SMI = Path(__file__).with_name("stand_in_smi.sh")
T4 = LocalMachine("535.104.05", cards=(LocalCard("Tesla T4", "GPU-5e1f", Arch(7, 5), 15360 << 20, index=0),))


@dataclass(frozen=True)
class Built:
    """The program as a file, and the name of the image that holds it."""

    program: Path
    image: str


@pytest.fixture(scope="module")
def built(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Built once, without a key and without a repository."""
    report, err = silent()
    out = tmp_path_factory.mktemp("which") / "which"
    try:
        build_program(context(report, engine=engine, matrix=own_matrix()), WhichOptions(file=str(out)))
    except CheckFailed as error:
        pytest.fail(f"{error}\n{err.getvalue()}")
    yield Built(out, IMAGE)
    engine.untag(IMAGE, force=True)


@cache
def own_matrix() -> Matrix:
    """With a name for images that nobody else uses."""
    return edited((f"image: {matrix().image}", f"image: {IMAGE.partition(':')[0]}"))


def questions(number: int) -> list[Question]:
    """For the first catalogue each of 500 cards with each of 40 drivers; for each some machines of several kinds."""
    chance = random.Random(number)  # noqa: S311 - the same questions each time
    cards = all_cards()
    spread = cards[:: len(cards) // CARDS][:CARDS]
    assert (len(spread), len(set(DRIVERS))) == (CARDS, 40)
    named = list(by_name(spread, DRIVERS)) if number == 0 else []
    return [*named, *mixed(1500, chance), *machines(1500, chance)]


def test_it_answers_as_pull_does(built: Built, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The sentences too: which image, why not another, what to do, how to run it."""
    chance = random.Random(18)  # noqa: S311 - the same catalogues each time
    every = list(variants().valid.values())
    catalogues = [
        catalogue(),
        catalogue_of(chance.sample(every, 40)),
        catalogue_of(chance.sample(every, 10)),
        catalogue_of([one for one in every if one.backend == "transformers"]),
        catalogue_of([one for one in every if len(one.archs) == 1]),
    ]
    asked = 0
    for number, one in enumerate(nonempty(catalogues)):
        these = questions(number)
        found = differences(built.program, these, one, REPOSITORY, matrix(), variants(), tmp_path)
        assert not found, f"{len(found)} differences, the first: {found[0]}"
        asked += len(these)
    say(request.config, f"which and pull: {asked} questions, 0 differences")


@pytest.mark.parametrize("planted", ["a recommendation moved", "a sentence changed", "a driver changed"])
def test_a_planted_difference_is_seen(built: Built, tmp_path: Path, planted: str) -> None:
    """Of a program that was built of another matrix than pull reads."""
    other = {
        "a recommendation moved": lambda: with_lists(sm86=("cu129 flash-attn",)),
        "a sentence changed": lambda: edited(("cards below 6.0 do not compute", "cards below 6.0 never compute")),
        "a driver changed": lambda: edited(('floor: "580.65.06"', 'floor: "580.65.07"')),
    }[planted]()
    here = make_variants(other)
    assert differences(built.program, questions(1), catalogue(), REPOSITORY, other, here, tmp_path)
    with pytest.raises(CheckFailed, match="questions other than pull does"):
        prove(context(matrix=other, variants=here), built.program, REPOSITORY, catalogue(), tmp_path)


def run_image(engine: Engine, image: str, *words: str, network: str = "none", card: Path | None = None) -> Ran:
    """The image as its users start it; with a card, nvidia-smi lies where a runtime puts it."""
    mounts: tuple[Mount, ...] = ()
    if card is not None:
        programs = {name: str(Path(f"/usr/bin/{name}").resolve()) for name in ("sh", "cat")}
        mounts = tuple(Mount(source, f"/usr/bin/{name}") for name, source in programs.items())
        mounts += (Mount(str(card), "/usr/bin/nvidia-smi"),)
    return engine.run(image, words, network=network, mounts=mounts, check=False, timeout=60)


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    """A stand-in for nvidia-smi; it runs by the loader and the libc of the image."""
    path = tmp_path / "nvidia-smi"
    shutil.copy(SMI, path)
    path.chmod(0o755)
    return path


def test_the_image_is_small_and_has_no_root(engine: Engine, built: Built, request: pytest.FixtureRequest) -> None:
    facts = engine.inspect(built.image)
    assert facts is not None
    assert facts.size < 12_000_000
    assert facts.user == "10001:10001"
    assert len(facts.layers) == 1
    assert facts.env["NVIDIA_DRIVER_CAPABILITIES"] == "utility"
    say(request.config, f"which: image {facts.size / 1e6:.1f} MB, program {built.program.stat().st_size / 1e6:.1f} MB")


def test_without_a_card_it_says_so(engine: Engine, built: Built) -> None:
    ran = run_image(engine, built.image)
    assert ran.code == 4
    assert "this machine has no NVIDIA card to find an image for" in ran.err
    assert ran.out == ""


def test_published_it_prints_the_line_that_pull_prints(
    engine: Engine,
    small_publisher: SmallPublisher,
    repository: str,
    keys: SigningKeys,
    smi: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_publisher.publish(repository, CPU, SM75, keys=keys)
    monkeypatch.setenv(PASSWORD, "of a test")
    report, err = silent()
    here: Context = context(report, engine=engine, machine=T4, matrix=own_matrix(), way_to_cards="")
    capsys.readouterr()
    publish_program(here, WhichOptions(to=repository, key=str(keys.private)))
    assert capsys.readouterr().out.startswith(f"{repository}@sha256:")
    assert "0 differences" in err.getvalue()
    assert "its signature is of the key that is built in" in err.getvalue()

    digest = Repository(repository).manifest(TAG)
    assert digest is not None
    assert keys.signer is not None
    keys.cosign.verify(repository, digest.digest, keys.signer)

    published = f"{repository}:{TAG}"
    engine.pull(published, lambda _: None)
    ran = run_image(engine, published, network="host", card=smi)
    assert (ran.code, ran.err.count("\n") > 3) == (0, True), ran.err
    pull_images(here, PullOptions(source=repository, key=str(keys.signer), dry_run=True))
    assert ran.out == capsys.readouterr().out
    assert shlex.split(ran.out)[:5] == ["docker", "run", "--rm", "--gpus", "all"]
    assert "audit: passed" in ran.err
    assert "driver 535.104.05; Tesla T4 (7.5, 15 GB)" in ran.err

    json_of_which = run_image(engine, published, "--json", network="host", card=smi)
    pull_images(here, PullOptions(source=repository, key=str(keys.signer), dry_run=True, json=True))
    assert json.loads(json_of_which.out) == json.loads(capsys.readouterr().out)
    engine.untag(published, force=True)


def test_another_key_than_the_catalogues_is_not_published(
    engine: Engine,
    small_publisher: SmallPublisher,
    registry: RealRegistry,
    repository: str,
    keys: SigningKeys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_publisher.publish(repository, SM75, keys=keys)
    assert isinstance(keys.cosign, Cosign)
    environment = {PASSWORD: "of a test"}
    process.run([find_cosign(say=print), "generate-key-pair"], cwd=tmp_path, env=environment)
    monkeypatch.setenv(PASSWORD, "of a test")
    with pytest.raises(CheckFailed, match="does not take the catalogue that it is built for"):
        publish_program(
            context(engine=engine, matrix=own_matrix()), WhichOptions(to=repository, key=str(tmp_path / "cosign.key"))
        )
    assert Repository(repository).manifest(TAG) is None
    assert registry.answers()
