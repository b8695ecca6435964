"""The stages of the rendered Dockerfiles: who starts from whom, and what may reach a runtime image."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty

REPOSITORY = Path(__file__).parents[3]
RENDERED = REPOSITORY / "dockerfiles" / "rendered"
SCRIPTS = REPOSITORY / "dockerfiles" / "build"
VARIANTS = sorted(path.parent.name for path in RENDERED.glob("*/Dockerfile"))
KERNELS = sorted(f"kernels/{path.parent.name}" for path in RENDERED.glob("kernels/*/Dockerfile"))


@cache
def stages(variant: str) -> dict[str, tuple[str, list[str]]]:
    """Stage -> what it starts from, and its instructions (continued lines joined, comments dropped)."""
    text = (RENDERED / variant / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in (" ".join(line.split()) for line in text.splitlines() if line.strip()):
        if line == f'{WHOLE}=""' and not found:
            continue  # before the first stage: for the FROM of the last one
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = (match[1], [])
            current = found[match[2]][1]
        else:
            current.append(line)
    return found


def packages(instruction: str) -> list[str]:
    """What a line of apt-install, or of compiler-install, installs."""
    return (
        list(json.loads(instruction[instruction.index('["') :])[1:])
        if '"/run/build/apt-install"' in instruction or '"/run/build/compiler-install"' in instruction
        else []
    )


COPIES = (
    "COPY build/mountpoints/ /etc/",
    "COPY rootfs/ /",
    "COPY plugins/text_positions/ /opt/cardstock/plugins/text_positions/",
    "COPY --from=stand-ins /opt/ /opt/",
    *(f"COPY --from=shared-{part} /opt/venv /opt/venv" for part in ("torch", "triton", "rest")),
    *(f"COPY --from=slim /out/{part}/ /opt/venv/" for part in ("torch", "rest")),
    "COPY --from=kernels /out/ /",
)


# None is a secret: a count and a name, and the suffix of an image with all of NVIDIA's libraries.
ARGUMENTS = ('ARG CARDSTOCK_KERNEL_JOBS=""', 'ARG CARDSTOCK_KERNEL_CACHE="cardstock-sccache"')
WHOLE = "ARG CARDSTOCK_WHOLE"


def test_there_are_rendered_dockerfiles() -> None:
    assert len(VARIANTS) > 100
    assert len(KERNELS) > 20


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wheel_comes_alone_out_of_an_empty_stage(kernel: str) -> None:
    found = stages(kernel)
    assert list(found)[-1] == "wheels"
    assert found["wheels"] == ("scratch", ["COPY --from=kernels /out/ /"])
    assert found["kernels"][0] == "nvidia"


@pytest.mark.parametrize("variant", VARIANTS)
def test_history_is_right_because_the_runtime_line_comes_last_among_siblings(variant: str) -> None:
    found = stages(variant)
    libraries, _ = found["libraries"]
    assert [name for name, (parent, _) in found.items() if parent == libraries][-1] == "libraries"
    assert [name for name, (parent, _) in found.items() if parent == "os"][-1] in ("libraries", "nvidia")
    assert [name for name, (parent, _) in found.items() if parent.startswith("libraries")] == ["runtime"]
    assert list(found)[-1] == "runtime"


@pytest.mark.parametrize("variant", VARIANTS)
def test_nvidias_libraries_are_one_layer_with_stand_ins_or_all_of_them(variant: str) -> None:
    found = stages(variant)
    assert found["runtime"][0] == "libraries${CARDSTOCK_WHOLE}"
    assert found["libraries-whole"] == ("nvidia-whole", [])
    if "stand-ins" in found:
        assert found["stand-ins"][0] == "nvidia"
        assert found["libraries"] == ("os", ["COPY --from=stand-ins /opt/ /opt/"])
    else:
        assert found["libraries"] == ("nvidia", [])
    (environment,) = [line for line in found["runtime"][1] if line.startswith("ENV ")]
    assert f'CARDSTOCK_VARIANT="{variant}${{CARDSTOCK_WHOLE}}"' in environment
    assert found["runtime"][1].index(WHOLE) + 1 == found["runtime"][1].index(environment)  # no step above is made anew


def modules_of(name: str) -> set[str]:
    """A module or folder of images/device_code and all of that folder that it imports, as they are mounted."""
    found: set[str] = set()
    wanted = {name}
    while wanted:
        one = wanted.pop()
        found.add(one)
        path = REPOSITORY / "images/device_code" / one
        for source in [path] if path.is_file() else path.glob("*.py"):
            text = source.read_text(encoding="utf-8")
            imported = set(re.findall(r"^\s*from images\.device_code\.(\w+)", text, re.MULTILINE))
            wanted |= {f"{own}.py" if own != "stand_ins" else own for own in imported} - found
    return found


def test_the_stand_ins_are_made_by_their_own_modules_alone_so_that_no_other_makes_them_anew() -> None:
    _, lines = stages("cu124-vllm0.8.5.post1-xformers-sm75")["stand-ins"]
    compiler, made = lines
    assert packages(compiler) == ["gcc", "libc6-dev"]
    assert set(re.findall(r"from=device-code,source=(\S+),target", made)) == modules_of("stand_ins")
    words = json.loads(made[made.index('["') :])
    assert words[:4] == ["/run/build/stand-ins", "/opt/venv/lib/python3.11/site-packages", "--version", "1"]
    told = list(zip(words[4::2], words[5::2], strict=True))
    assert ("--made", "nvidia/*/lib/libcufft.so.*=Fourier transforms (torch.fft)") in told
    assert told[-1] == ("--gone", "nvidia/*/lib/libnvJitLink.so.*")
    assert len(told) == 6


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_compiled_against_the_real_libraries(kernel: str) -> None:
    assert not {"stand-ins", "libraries", "libraries-whole"} & set(stages(kernel))


@pytest.mark.parametrize("variant", VARIANTS + KERNELS)
def test_nvidias_wheels_are_cut_for_every_image_alike_and_whole_for_measuring(variant: str) -> None:
    found = stages(variant)
    (whole,) = [line for line in found["nvidia-whole"][1] if "RUN" in line]
    assert whole.endswith('["/run/build/venv-install"]')
    (cut,) = [line for line in found["nvidia"][1] if "RUN" in line]
    assert cut.endswith(f'["/run/build/nvidia-install", "{"no-card" if variant.startswith("cpu-") else "nvidia"}"]')
    of_whole = [name for name, (parent, _) in found.items() if parent == "nvidia-whole"]
    assert of_whole == ([] if variant in KERNELS else ["libraries-whole"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_compiler_reaches_only_the_images_that_declare_one(variant: str) -> None:
    _, lines = stages(variant)["runtime"]
    installed = [name for line in lines for name in packages(line)]
    jit = "-vllm" in variant and not variant.startswith("cpu-")
    assert installed == (["gcc", "libc6-dev", "libpython3.11-dev"] if jit else [])
    (environment,) = [line for line in lines if line.startswith("ENV ")]
    assert f'CARDSTOCK_JIT="{"triton" if jit else "none"}"' in environment
    assert any("/run/build/class-facts" in line for line in lines)
    (seal,) = [line for line in lines if "/run/build/seal" in line]
    assert seal.endswith(f'"{"yes" if jit else "no"}"]')


@pytest.mark.parametrize("variant", VARIANTS + KERNELS)
def test_secrets_and_build_scripts_are_mounted_never_copied(variant: str) -> None:
    for line in nonempty(line for _, lines in stages(variant).values() for line in lines):
        assert not line.startswith("ADD ")
        assert not line.startswith("ARG ") or line in (ARGUMENTS if variant in KERNELS else (WHOLE,))
        if line.startswith("COPY "):
            assert line in COPIES


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_runtime_gets_the_environment_from_slim_and_runs_as_a_number(variant: str) -> None:
    _, lines = stages(variant)["runtime"]
    copies = [line for line in lines if line.startswith("COPY ")]
    jit = "-vllm" in variant and not variant.startswith("cpu-")
    shared = [f"COPY --from=shared-{part} /opt/venv /opt/venv" for part in ("torch", *["triton"] * jit, "rest")]
    of_cards = [f"COPY --from=slim /out/{part}/ /opt/venv/" for part in ("torch", "rest")]
    environment = shared if variant.startswith("cpu-") else [*shared, *of_cards]
    own = [f"COPY plugins/{name}/ /opt/cardstock/plugins/{name}/" for name in variants().valid[variant].plugins]
    assert copies == [*environment, "COPY rootfs/ /", *own]  # the most shared first
    assert "USER 10001:10001" in lines
    assert any(line.startswith('ENTRYPOINT ["/usr/bin/tini"') for line in lines)
    assert lines[-1] == "CMD []"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_names_a_layer_for_each_instruction_that_makes_one(variant: str) -> None:
    _, lines = stages(variant)["runtime"]
    (label,) = [line for line in lines if line.startswith("LABEL dev.cardstock.layers=")]
    names = label.partition("=")[2].strip('"').split()
    made = [line for line in lines if line.startswith(("COPY ", "RUN "))]
    told = []
    for line in made:
        if match := re.match(r"COPY --from=(?:shared-(\w+)|slim /out/(\w+)/)", line):
            told.append(match[1] or f"card-{match[2]}")
        elif match := re.match(r"COPY (rootfs|plugin)s?/", line):
            told.append(match[1])
        else:
            (name,) = re.findall(r'\["/run/build/([a-z-]+)"', line)
            told.append("compiler" if name == "compiler-install" else name)
    assert names == ["os", "libraries", *told]


@pytest.mark.parametrize("variant", VARIANTS)
def test_torch_lies_below_the_compiler_and_apart_from_the_engine(variant: str) -> None:
    """Image layers of other engines on the same torch begin alike: libraries, torch."""
    found = stages(variant)
    _, lines = found["runtime"]
    assert lines[0] == "COPY --from=shared-torch /opt/venv /opt/venv"
    (only,) = [line for line in found["shared-torch"][1] if "device-code" in line]
    (without,) = [line for line in found["shared-rest"][1] if "device-code" in line]
    assert only.endswith('"torch", "torchvision"]')
    more = ', "triton"' if "shared-triton" in found else ""
    assert without.endswith(f'"torch", "torchvision"{more}]')


def test_every_script_that_a_stage_runs_exists_and_can_be_run() -> None:
    text = "".join((RENDERED / name / "Dockerfile").read_text(encoding="utf-8") for name in VARIANTS + KERNELS)
    used = set(re.findall(r"source=build/([a-z-]+)", text))
    scripts = [path for path in SCRIPTS.iterdir() if path.is_file()]
    assert used == {path.name for path in scripts}
    assert all(path.stat().st_mode & 0o111 for path in scripts)


def test_what_stands_for_mount_points_is_empty() -> None:
    files = sorted((SCRIPTS / "mountpoints").iterdir())
    assert [(path.name, path.read_bytes()) for path in files] == [("hosts", b""), ("resolv.conf", b"")]


def test_a_kernel_is_installed_from_the_stage_that_compiled_it_and_not_from_the_index() -> None:
    _, lines = stages("cu124-vllm0.8.5.post1-xformers-sm75")["attention"]
    assert "from=kernels,target=/run/build/wheels" in lines[0]
    assert "xformers.txt" not in lines[0]
