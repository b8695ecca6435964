"""The checks of level 2: what the probe found inside an image against what the image promises. Pure.

Each check takes a `Findings` and returns its complaints, one fact each; none means that it passed.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from images.proof.smoke.findings import Findings
from images.proof.smoke.traces import check_leftovers, check_traces

# What a declared JIT toolchain may bring: the programs of Debian's gcc (no C++), for Triton's launchers.
TOOLCHAINS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "triton": frozenset("gcc cc c89 c99 cpp as ld ld.bfd ld.gold gold collect2 cc1 lto1".split()),
}
NOTHING = "nothing"  # what the probe says where no version of a package is installed
NVIDIAS = "nvidia-"
_VERSION_SUFFIX = re.compile(r"-\d+(\.\d+)*$")
_TARGET_PREFIX = re.compile(r"^[a-z0-9_]+-(?:pc-)?linux-gnu-")
_CUTLASS = "memory_efficient_attention.cutlassF-pt"


def same_version(wanted: str, found: str) -> bool:
    """Equal; a wanted version without a local part does not ask for one ("2.6.0" is met by "2.6.0+cu124")."""
    return found == wanted or ("+" not in wanted and found.partition("+")[0] == wanted)


def check_versions(findings: Findings) -> list[str]:
    """Python and every pin as installed."""
    installed = findings.probe["versions"]
    out = []
    for package, wanted in findings.expectation.pins.items():
        own = installed.get(package)
        if own is None:
            out.append(f"{package} {wanted} is not installed")
        elif not same_version(wanted, own):
            out.append(f"{package} is {own}, expected {wanted}")
    python = findings.probe["python"]
    if not f"{python}.".startswith(f"{findings.expectation.python}."):
        out.append(f"Python is {python}, expected {findings.expectation.python}")
    return out


def check_torch(findings: Findings) -> list[str]:
    """Torch imports, is the pinned version, and was built for the stack's CUDA."""
    if error := findings.torch.get("error"):
        return [f"torch cannot be imported: {error}"]
    out = []
    wanted, version = findings.expectation.pins.get("torch"), str(findings.torch["version"])
    if wanted and not same_version(wanted, version):
        out.append(f"torch says it is {version}, expected {wanted}")
    cuda = findings.torch["cuda"]
    if findings.expectation.cuda and cuda != findings.expectation.cuda:
        out.append(f"torch was built for CUDA {cuda}, the stack has it for CUDA {findings.expectation.cuda}")
    return out


def check_kernel(findings: Findings) -> list[str]:
    """The attention package is the one built here, for exactly the wanted archs."""
    kernel = findings.expectation.kernel
    if kernel is None:
        return []
    installed = findings.probe["versions"].get(kernel.package)
    if installed is None or not same_version(kernel.version, installed):
        return [f"{kernel.package} is {installed or 'not installed'}, expected {kernel.version}"]
    return _check_xformers(findings, kernel.archs) if kernel.package == "xformers" else []


def _check_xformers(findings: Findings, archs: Sequence[str]) -> list[str]:
    info, out = findings.xformers_info, []
    if "error" in info:
        return [f"python -m xformers.info failed: {info['error']}"]
    if info.get(_CUTLASS) != "available":
        out.append(f"xformers.info: {_CUTLASS} is {info.get(_CUTLASS, 'not listed')}, expected available")
    library = findings.probe["xformers_build"]
    build_env = (library or {}).get("env") or {}
    arch_lists = {
        "xformers.info": info.get("build.env.TORCH_CUDA_ARCH_LIST", ""),
        "xformers/cpp_lib.json": build_env.get("TORCH_CUDA_ARCH_LIST") or "",
    }
    for source, text in arch_lists.items():
        if sorted(text.replace(";", " ").split()) != sorted(archs):
            out.append(f"{source}: built for {text or 'nothing'}, expected exactly {' '.join(archs)}")
    if origin := build_env.get("XFORMERS_PACKAGE_FROM"):
        out.append(f"xformers is a published wheel ({origin}), expected one built from source")
    return out


def check_imports(findings: Findings) -> list[str]:
    """Engine and server come up as modules."""
    return [f"import {name}: {error}" for name, error in findings.imports.items() if error]


def check_user(findings: Findings) -> list[str]:
    """Not root, and named by number: a name cannot be checked by an orchestrator that wants non-root."""
    out = []
    if findings.probe["uid"] == 0:
        out.append("the container runs as root (uid 0)")
    if not re.fullmatch(r"[1-9]\d*(:\d+)?", findings.config.user):
        out.append(f"USER is {findings.config.user!r}, expected a number such as 10001:10001")
    return out


def check_compilers(findings: Findings) -> list[str]:
    """No program that translates or links, save those of the toolchain that CARDSTOCK_JIT declares."""
    declared = findings.config.env.get("CARDSTOCK_JIT", "none")
    if declared not in TOOLCHAINS:
        return [f"CARDSTOCK_JIT is {declared!r}, known are {', '.join(TOOLCHAINS)}"]
    names = {path: plain_program(path) for path in findings.probe["compilers"]}
    extra = [path for path, name in names.items() if name not in TOOLCHAINS[declared]]
    return [f"a compiler is in the image: {path} (CARDSTOCK_JIT is {declared})" for path in extra]


def check_privileged(findings: Findings) -> list[str]:
    """Nothing in the image lends its user another's rights: no program and no folder is setuid or setgid."""
    return [f"setuid or setgid: {path}" for path in findings.probe["privileged"]]


def plain_program(path: str) -> str:
    """The program's name without target and version: /usr/bin/x86_64-linux-gnu-gcc-12 is gcc."""
    return _VERSION_SUFFIX.sub("", _TARGET_PREFIX.sub("", PurePosixPath(path).name))


def check_requirements(findings: Findings) -> list[str]:
    """As pip check: every requirement met, save those that the lock overrides and packages left out on purpose.

    What is left out of NVIDIA's packages the image's own list of stand-ins says, and `check_stand_ins` holds that list
    against the matrix. A package of another version than required is a complaint all the same.
    """
    left_out = {*findings.expectation.unused, *(findings.probe["stand_ins"] or {}).get("packages", ())}
    return [
        f"{row['by']} requires {row['needs']}, installed is {row['found']}"
        for row in findings.probe["conflicts"]
        if row["package"] not in findings.expectation.loose
        and not (row["found"] == NOTHING and row["package"] in left_out)
    ]


def check_stand_ins(findings: Findings) -> list[str]:
    """The image's own list of stand-ins says what the matrix says, and what it leaves out is not installed."""
    want, listed = findings.expectation, findings.probe["stand_ins"] or {}
    installed = findings.probe["versions"]
    out = []
    for kind, globs, what in (("made", want.stand_ins, "a stand-in"), ("gone", want.gone, "gone")):
        files = listed.get(kind, ())
        out += [f"no file {glob} is {what}" for glob in globs if not fnmatch.filter(files, glob)]
        strangers = [file for file in files if not any(fnmatch.fnmatchcase(file, glob) for glob in globs)]
        out += [f"{file} is {what}, and the matrix does not say so" for file in strangers]
    left_out = {*want.unused, *listed.get("packages", ())}
    out += [f"{name} is installed, and left out on purpose" for name in sorted(left_out & installed.keys())]
    strangers = [name for name in listed.get("packages", ()) if not name.startswith(NVIDIAS)]
    return [*out, *(f"{name} is left out for stand-ins, and no package of NVIDIA's" for name in strangers)]


def check_entry(findings: Findings) -> list[str]:
    """Entry point and health check are there and can be run."""
    out = []
    for what, words in (("entry point", findings.config.entrypoint), ("health check", findings.config.healthcheck)):
        if not words:
            out.append(f"the image has no {what}")
            continue
        for path in (text for at, text in enumerate(words) if at == 0 or text.startswith("/")):
            state = findings.probe["entries"].get(path, {"exists": False, "executable": False})
            first = path == words[0] or words[words.index(path) - 1] == "--"
            if not state["exists"]:
                out.append(f"{what}: {path} is not in the image")
            elif first and not state["executable"]:
                out.append(f"{what}: {path} is not executable")
    return out


def check_settings(findings: Findings) -> list[str]:
    """Environment and labels say what the matrix says; a CPU image asks for no GPU."""
    want = findings.expectation
    wanted = {
        **want.env,
        "CARDSTOCK_VARIANT": want.variant_id,
        "NVIDIA_VISIBLE_DEVICES": "all" if want.cuda else None,
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility" if want.cuda else None,
        "NVIDIA_REQUIRE_CUDA": want.require_cuda,
    }
    out = [_differs(name, findings.config.env.get(name), value) for name, value in wanted.items()]
    told_args = findings.config.env.get("CARDSTOCK_DEFAULT_ARGS", "[]")
    if told_args != json.dumps(want.default_args):
        out.append(f"CARDSTOCK_DEFAULT_ARGS is {told_args}, expected {json.dumps(want.default_args)}")
    labels = {
        "variant": want.variant_id,
        "stack": want.stack,
        "archs": " ".join(want.archs),
        "attention": want.attention,
        "engine": want.backend,
    }
    for name, value in labels.items():
        # Labels are given once the image is proven: those that are there must be right.
        label = findings.config.labels.get(f"dev.cardstock.{name}", value)
        out.append(_differs(f"label dev.cardstock.{name}", label, value))
    return [complaint for complaint in out if complaint]


def _differs(name: str, found: str | None, wanted: str | None) -> str:
    return "" if found == wanted else f"{name} is {found!r}, expected {wanted!r}"


CHECKS: Mapping[str, Callable[[Findings], list[str]]] = {
    "versions": check_versions,
    "torch": check_torch,
    "kernel": check_kernel,
    "imports": check_imports,
    "user": check_user,
    "compilers": check_compilers,
    "privileged": check_privileged,
    "leftovers": check_leftovers,
    "traces": check_traces,
    "requirements": check_requirements,
    "stand-ins": check_stand_ins,
    "entry": check_entry,
    "settings": check_settings,
}
