"""`invoke which`: the small program that says which published image a machine wants, as an image or as a file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from images.catalogue import SigningKeys
from images.commands.options import command
from images.commands.warm import signing_keys
from images.context import Context
from images.core import UsageError, human_bytes, print_out, read_file, to_text, work_folder
from images.core.options import option
from images.which import TAG, BuiltIn, build_which, publish_which, read_program

_MOST_KEY = 64 << 10


@dataclass(frozen=True)
class WhichOptions:
    """What `invoke which` was asked."""

    to: str = option("publish it beside the images of this repository, as REPO:which", "")
    key: str = option("sign it with this private key of cosign's, and build its public key in", "")
    keyless: bool = option("sign by the identity of this CI job", False)
    verify_key: str = option("build this public key (cosign.pub) in: it must have signed the catalogue", "")
    source: str = option("build this repository in, as the one whose catalogue is read", "", flag="from")
    file: str = option("write the program to this file: one static file, for hosts that want no container", "")
    zstd: bool = option("layers as zstd (engines of 2023 and later) instead of gzip", False)


@command("which --to registry.example.com/team/qwen --key cosign.key")
def which(context: Context, options: WhichOptions) -> None:
    """Build the small program that says which published image a machine's cards want; publish it as REPO:which."""
    if options.to:
        publish_program(context, options)
    else:
        build_program(context, options)


def publish_program(context: Context, options: WhichOptions) -> None:
    """Publish the image. Raises as images/which/publish.py does, UsageError for flags that exclude each other."""
    if options.source or options.file:
        raise UsageError("--to builds its own repository in, and writes no file", do="leave --from and --file out")
    repository = context.repository(options.to)
    keys = signing_keys(context, options.key, options.keyless)
    public = public_key(options, keys)
    if not public:
        context.report.line("no key is built in: the program wants --key cosign.pub, or --unverified", "yellow")
    print_out(publish_which(context, repository, keys, public, "zstd" if options.zstd else "gzip"))
    context.report.next_command(f"docker run --rm --gpus all {repository.name}:{TAG}", "on a machine with a card")


def build_program(context: Context, options: WhichOptions) -> None:
    """Build the image on this engine, and write the program to a file where one was named."""
    keys = signing_keys(context, options.key, keyless=False) if options.key else None
    out = Path(options.file).expanduser() if options.file else None
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", do="make it, or name another file")
    reference = f"{context.matrix.image}:{TAG}"
    with work_folder("which") as folder:
        build_which(
            context, reference, BuiltIn(options.source, public_key(options, keys)), folder / "out" if out else None
        )
        if out is not None:
            program = read_program(folder / "out")
            part = out.with_name(f".{out.name}.part")
            shutil.copy(program, part)
            part.replace(out)
            context.report.line(f"{out}: {human_bytes(out.stat().st_size)}, one static file for x86-64")
    print_out(str(out or reference))


def public_key(options: WhichOptions, keys: SigningKeys | None) -> str:
    """The public key to build in, as PEM: the one that was named, else that of the private one; "" without either."""
    if options.verify_key:
        path = Path(options.verify_key).expanduser()
        text = to_text(read_file(path, "give the publisher's public key (cosign.pub)", _MOST_KEY), str(path))
        if "-----BEGIN PUBLIC KEY-----" not in text:
            raise UsageError(f"{path} is no public key", do="give the publisher's public key (cosign.pub)")
        return text
    return keys.cosign.public_key(keys.private) if keys and keys.private else ""
