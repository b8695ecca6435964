"""`invoke warm`: what a server compiles when it first starts, kept by its key, for this machine and for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.catalogue import PublishedImage, SigningKeys
from images.commands.options import command
from images.compiled import remote, write_file
from images.context import Context
from images.core import NoImageFits, UsageError, human_bytes, print_out
from images.core.options import option
from images.registry import Cosign, Repository, find_cosign
from images.run.serve import WAIT, ServeOptions
from images.run.serve import warm as warming


@dataclass(frozen=True)
class WarmOptions:
    """What `invoke warm` was asked. What it has in common with `serve` is to be said as it will be served."""

    model: str = option("3b-awq and its like, a repository OWNER/NAME, or a model's folder", "")
    only: str = option("the variant of this id instead of the card's own, such as the one for the CPU", "")
    image: str = option("an image by its own name, instead of --only", "")
    gpus: str = option("all, 2, device=0,1 or none, as docker takes it", "")
    flags: Sequence[str] = option(
        "a flag of the server, such as '--max-model-len 4096', as it will be served with; repeat", (), flag="flag"
    )
    env: Sequence[str] = option("NAME=VALUE for the server; repeat", ())
    config: str = option("the config.json of --model, where no hub is reached", "")
    tp: int = option("this tensor parallel size", 0)
    pp: int = option("this pipeline parallel size", 0)
    video: int = option("videos in one request, as it will be served with", 0)
    memory_limit: str = option("the container's memory, such as 24g, or none; without it what fit sums up", "")
    wait: int = option("seconds until it must be healthy", WAIT)
    out: str = option("also write it to this file, for ./inv serve --artifact on a machine like this one", "")
    push: str = option("also write it to this repository, beside its image", "")
    key: str = option("sign what is pushed with this private key of cosign's; its password is $COSIGN_PASSWORD", "")
    keyless: bool = option("sign what is pushed by the identity of this CI job", False)

    def served(self) -> ServeOptions:
        """As `invoke serve` would be asked."""
        return ServeOptions(
            model=self.model,
            variant=self.only,
            image=self.image,
            gpus=self.gpus,
            flags=self.flags,
            env=self.env,
            config=self.config,
            tp=self.tp,
            pp=self.pp,
            video=self.video,
            memory_limit=self.memory_limit,
            wait=self.wait,
        )


@command("warm --model 3b-awq")
def warm(context: Context, options: WarmOptions) -> None:
    """Start a server with empty caches, ask it once, and keep what it has compiled, for later starts and for others."""
    keep_compiled(context, options)


def keep_compiled(context: Context, options: WarmOptions) -> None:
    """Keep it here, write it to a file, push it. Raises what images/run/serve/warm.py does, RegistryFailure."""
    if not options.model:
        raise UsageError("which model?", do="./inv warm --model 3b-awq, OWNER/NAME, or a folder")
    if (options.key or options.keyless) and not options.push:
        raise UsageError("--key and --keyless sign what is pushed", do="--push REPO")
    out = Path(options.out).expanduser() if options.out else None
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", do="make it, or name another file")
    repository = context.repository(options.push) if options.push else None
    keys = signing_keys(context, options.key, options.keyless) if repository else None
    context.engine.cleanup()
    made = warming.warm(context, options.served())
    record = made.kept.record
    context.report.line(
        f"kept by {record.key.digest[:12]}: {record.files} files, {human_bytes(record.unpacked)}, as an archive "
        f"{human_bytes(record.size)}; ./inv serve with the same settings finds it"
    )
    if out is not None:
        write_file(made.kept, out)
        context.report.line(f"written: {out}")
    if repository is not None:
        digest = remote.push(repository, made.kept, keys, context.report.line)
        context.report.line(f"pushed: {repository.name}:{record.key.tag} ({digest[:19]})")
    print_out(record.key.digest)


def signing_keys(context: Context, key: str, keyless: bool) -> SigningKeys | None:
    """How to sign; None (and a line that says so) where nothing is signed. Raises UsageError."""
    if not key and not keyless:
        context.report.line("not signed: no --key, no --keyless")
        return None
    if key and keyless:
        raise UsageError("--key and --keyless exclude each other", do="name one")
    private = Path(key).expanduser() if key else None
    if private and not private.is_file():
        raise UsageError(f"there is no key {private}", do="cosign generate-key-pair makes one")
    return SigningKeys(Cosign(find_cosign(say=context.report.line), ca=context.ca), private)


def keep_published(
    context: Context,
    repository: Repository,
    images: Sequence[PublishedImage],
    model: str,
    gpus: str,
    keys: SigningKeys | None,
) -> None:
    """Make the compiled code of published images for a model, by their digests, and put it beside them.

    An image that is for no card of this machine is passed over, and said.
    """
    for image in images:
        reference = f"{repository.name}@{image.digest}"
        context.engine.pull(reference, context.report.line)
        try:
            made = warming.warm(context, WarmOptions(model=model, image=reference, gpus=gpus).served())
        except NoImageFits as error:
            context.report.line(f"no compiled code of {image.variant} for {model}: {error.what}", "yellow")
            continue
        finally:
            context.engine.drop_name(reference, context.report.line)
        digest = remote.push(repository, made.kept, keys, context.report.line, image.digest)
        context.report.line(f"compiled code: {repository.name}:{made.kept.record.key.tag} ({digest[:19]})")
