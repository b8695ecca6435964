"""`invoke test --gpu --without-engine`: the proof in an image's own files, where there is no engine.

The image lies unpacked in a folder. Its programs see that folder as "/" in the first of these ways that works here:
a mount namespace (unshare and chroot, as root, or as root of a user namespace of one's own), or PRoot, which needs no
right at all and is slower. The driver's libraries are copied into it from where this machine has them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, Unsafe, process
from images.proof.on_card.proof import keep_record
from images.proof.on_card.records import GpuRecord
from images.proof.on_card.runs import NO_MULTICAST
from images.render import INPUT, VARIANT

# Inside the image: the checkout, what is written, and the driver.
CHECKOUT, PROOF, DRIVER = "checkout", "proof", "opt/driver"
# Two servers that compile their models, a checkpoint of 4 GB, and PRoot between.
LIMIT = 7200.0
USER = "10001:10001"
# What CUDA loads of a driver; each also under its own version. The same names a CDI specification mounts.
LIBRARIES = ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libnvidia-nvvm", "libnvidia-gpucomp")
_LIBRARY = re.compile(rf"({'|'.join(LIBRARIES)})\.so(\.\d+)*")
# Where hosts keep them; Colab has /usr/lib64-nvidia, Kaggle /usr/local/nvidia/lib64.
FOLDERS = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib64-nvidia", "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"),
    *("/usr/lib/wsl/lib", "/usr/lib64", "/lib64", "/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib/nvidia"),
)
_MOST_DRIVER = 2 << 30  # bytes of a driver's libraries; today's have 0.2
# The shell of the namespace: its arguments are data, and it runs nothing but mount and chroot.
NAMESPACE = """set -e
root=$1; checkout=$2; proof=$3; user=$4; shift 4
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys" || true
mount --bind "$checkout" "$root/checkout"
mount -o remount,bind,ro "$root/checkout" || true
mount --bind "$proof" "$root/proof"
if [ -n "$user" ]; then exec chroot --userspec="$user" "$root" "$@"; fi
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Entry:
    """A way to run a program with an image's folder as its "/".

    ``name`` says which; ``words`` makes the command of the program's own, ``env`` is what the way itself needs.
    """

    name: str
    words: Callable[[Sequence[str]], list[str]]
    env: Mapping[str, str]


def entries(root: Path, checkout: Path, proof: Path, *, superuser: bool) -> list[Entry]:
    """Every way, the fastest first."""
    places = [str(root), str(checkout), str(proof)]
    inside = ["/bin/sh", "-c", NAMESPACE, "sh", *places, USER if superuser else ""]
    own = [] if superuser else ["--map-root-user"]

    def namespace(words: Sequence[str]) -> list[str]:
        return ["unshare", *own, "--mount", "--propagation", "private", *inside, *words]

    def proot(words: Sequence[str]) -> list[str]:
        binds = [*("/dev", "/proc", "/sys"), f"{checkout}:/{CHECKOUT}", f"{proof}:/{PROOF}"]
        return ["proot", "-r", str(root), "-w", "/", *(word for one in binds for word in ("-b", one)), *words]

    return [
        Entry("a mount namespace", namespace, {}),
        Entry("PRoot", proot, {}),
        Entry("PRoot without seccomp", proot, {"PROOT_NO_SECCOMP": "1"}),
    ]


def image_settings(configuration: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Environment and labels of an image's configuration. Raises Unsafe for one that has none."""
    try:
        config = json.loads(configuration)["config"]
        pairs = (str(one).partition("=") for one in config.get("Env") or ())
        labels = {str(name): str(value) for name, value in (config.get("Labels") or {}).items()}
        return {name: value for name, _, value in pairs}, labels
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unsafe("the image's configuration is none", cause=str(error), do="do not use it") from error


def driver_files(env: Mapping[str, str], folders: Sequence[str] = FOLDERS) -> dict[str, Path]:
    """Name -> file of the driver's libraries on this machine, of the first folder that has libcuda; {} without one."""
    searched = [*(env.get("LD_LIBRARY_PATH") or "").split(":"), *folders]
    for folder in (Path(name) for name in dict.fromkeys(searched) if name.startswith("/")):
        found = dict(_libraries(folder))
        if "libcuda.so.1" in found:
            return found
    return {}


def _libraries(folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return
    for name in names:
        if _LIBRARY.fullmatch(name) and (folder / name).is_file():
            yield name, (folder / name).resolve()


def copy_driver(files: Mapping[str, Path], into: Path) -> int:
    """Copy each file once, and make its other names links; bytes. Raises CardstockError for one that is none."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    size = 0
    for file in dict.fromkeys(files.values()):
        size += file.stat().st_size
        if size > _MOST_DRIVER:
            raise CardstockError("the driver's libraries are too large", cause=f"more than {_MOST_DRIVER} bytes")
        shutil.copyfile(file, into / file.name)
        (into / file.name).chmod(0o755)
    for name, file in {**files, "libcuda.so": files["libcuda.so.1"]}.items():
        if name != file.name:
            (into / name).unlink(missing_ok=True)
            (into / name).symlink_to(file.name)
    return size


def prepare(root: Path) -> None:
    """The folders that are mounted, made in the image's root. Raises Unsafe where a link stands in their place."""
    for name in ("dev", "proc", "sys", "tmp", CHECKOUT, PROOF):
        place = root / name
        if place.is_symlink():
            raise Unsafe(f"/{name} of the image is a link", cause=str(place.readlink()), do="do not use it")
        place.mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    if (root / "opt").is_symlink():
        raise Unsafe("/opt of the image is a link", cause=str((root / "opt").readlink()), do="do not use it")


def choose_entry(ways: Sequence[Entry], env: Mapping[str, str]) -> Entry:
    """The first way in which the image's own Python starts. Raises CardstockError with what each of them said."""
    said = []
    for way in ways:
        try:
            process.run(
                way.words(environment(env, ["python", "-c", "import os; os.getuid()"])), env=dict(way.env), timeout=120
            )
        except process.ProcessFailed as error:
            said.append(f"{way.name}: {' '.join(error.tail.split())[-200:]}")
        else:
            return way
    raise CardstockError(
        "the image's programs cannot be started here",
        cause="; ".join(said),
        do="install PRoot, which needs no rights: apt-get install proot; or run it as root",
        where="images/proof/on_card/without_engine.py",
    )


def environment(env: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """A command that has these variables and no others."""
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]


def inside_environment(own: Mapping[str, str], *, driver: bool) -> dict[str, str]:
    """What the image's programs get: its own settings, the checkout's modules, the driver."""
    made = {
        **own,
        **NO_MULTICAST,
        "HOME": "/tmp",
        "PYTHONPATH": f"/{CHECKOUT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if driver:
        made |= {"LD_LIBRARY_PATH": f"/{DRIVER}", "TRITON_LIBCUDA_PATH": f"/{DRIVER}"}
    return made


@dataclass(frozen=True)
class Unpacked:
    """An image that lies unpacked: its root, the bytes of its configuration, and the digests that the record names."""

    root: Path
    configuration: bytes
    digest: str
    id: str


def prove_unpacked(
    image: Unpacked,
    checkout: Path,
    folder: Path,
    say: Callable[[str], None],
    only: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    ways: Sequence[Entry] | None = None,
) -> tuple[Path, GpuRecord]:
    """Run prove.py in the image, keep the record in ``folder``; its place, and what it says.

    What it makes for itself lies beside the root until the end. A step may have failed: see `proof.require_passed`.
    Raises CheckFailed when no record came, CardstockError where the image cannot be entered on this machine.
    """
    own, labels = image_settings(image.configuration)
    prepare(image.root)
    found = driver_files(os.environ if env is None else env)
    if found:
        size = copy_driver(found, image.root / DRIVER)
        say(f"the driver's libraries: {found['libcuda.so.1'].parent}, {size / 1e6:.0f} MB")
    proof = image.root.parent / "proof"
    proof.mkdir(exist_ok=True)
    proof.chmod(0o777)
    superuser = os.geteuid() == 0
    inside = inside_environment(own, driver=bool(found))
    way = choose_entry(ways or entries(image.root, checkout, proof, superuser=superuser), inside)
    say(f"the image is entered by {way.name}")
    words = ["python", "-m", "images.proof.on_card.prove", "--out", f"/{PROOF}/record.json"]
    words += ["--scratch", f"/{PROOF}/scratch", "--place", "unpacked", "--given", "host"]
    words += ["--variant", labels.get(VARIANT, ""), "--input-hash", labels.get(INPUT, "")]
    words += ["--image-digest", image.digest, "--image-id", image.id, "--note", f"entered by {way.name}"]
    words += [word for glob in only for word in ("--only", glob)]
    try:
        code = process.stream(way.words(environment(inside, words)), say, env=dict(way.env), check=False, timeout=LIMIT)
        do = "see its last lines above; ./inv doctor looks at the driver"
        return keep_record(proof / "record.json", folder, f"it ended with {code}", do)
    finally:
        shutil.rmtree(proof, ignore_errors=True)
