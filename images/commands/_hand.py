"""From a repository to a card: publish, pull."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from invoke.tasks import task

from images.commands import options as typed
from images.matrix import make_variants
from images.matrix import selection as planning


@task(
    iterable=typed.LISTS,
    help=typed.SELECT
    | typed.WHEELS
    | typed.JSON
    | {
        "to": "the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)",
        "key": "sign with this private key of cosign's; its password is $COSIGN_PASSWORD",
        "keyless": "sign by the identity of this CI job",
        "zstd": "layers as zstd (engines of 2023 and later) instead of gzip",
        "gpus": "prove on cards (all), also what is published already",
        "rollback": "move the moving tags back to the image before",
        "dry-run": "say what is published and what would be, touch nothing",
    },
)
def publish(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    to="",
    key="",
    keyless=False,
    zstd=False,
    gpus="",
    wheels="",
    rollback=False,
    dry_run=False,
    json=False,
    debug=False,
):
    """Build, push by digest, prove, sign, and only then let tags and the catalogue name the images."""
    words = typed.Words(arch, cuda, attention, only, all, card)
    how = {"to": to, "key": key, "keyless": keyless, "zstd": zstd, "gpus": gpus, "wheels": wheels}
    how |= {"dry_run": dry_run, "json": json}
    typed.run(partial(publish_images, words, how, rollback=rollback), debug)


@task(
    iterable=["card"],
    help=typed.JSON
    | {
        "card": "a card's name; repeat for the cards of one machine; without it, this machine's own",
        "driver": "its driver, such as 535.104",
        "from": "the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)",
        "name": "the image of this tag instead, such as a variant's id",
        "verify-key": "a public key (cosign.pub) that the catalogue and the image must be signed by",
        "verify-identity": "a regular expression on the CI workflow that must have signed them instead",
        "save": "write the catalogue to this file",
        "offline": "use a saved catalogue; asks and pulls nothing",
        "dry-run": "find and verify, pull nothing",
    },
)
def pull(
    c,
    card,
    driver="",
    from_="",
    name="",
    verify_key="",
    verify_identity="",
    save="",
    offline="",
    dry_run=False,
    json=False,
    debug=False,
):
    """The published image for a card: found, verified, pulled by digest; prints the command that runs it."""
    found = {"cards": card, "driver": driver, "source": from_, "name": name, "save": save, "offline": offline}
    signed = {"key": verify_key, "identity": verify_identity}
    typed.run(partial(pull_image, **found, **signed, dry_run=dry_run, json=json), debug)


def publish_images(words: typed.Words, told: Mapping[str, Any], *, rollback: bool) -> None:
    """`invoke publish`; ``told`` are its own words (images/commands/_publish.py)."""
    from images.commands import _publish as publish_command

    matrix, variants, wanted = typed.selected(words)
    chosen, how = planning.select(matrix, variants, wanted), publish_command.Words(**told)
    if rollback:
        publish_command.roll_back(typed.CHECKOUT, matrix, variants, chosen, how)
        return
    publish_command.publish(typed.CHECKOUT, matrix, variants, typed.jobs(matrix, chosen), how)


def pull_image(**words: Any) -> None:
    """`invoke pull`; its words are those of images/commands/_pull.py."""
    from images.commands import _pull as pull_command

    matrix = typed.CHECKOUT.matrix()
    pull_command.pull(typed.CHECKOUT, matrix, make_variants(matrix), pull_command.Words(**words))
