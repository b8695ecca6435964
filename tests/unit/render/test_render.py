from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from images.build.job import input_hash
from images.core.errors import UsageError
from images.core.files import write_atomically
from images.matrix.model import Base
from images.render.bakefile import (
    MachineInputs,
    bake_file,
    bake_plan,
    bake_target,
    finish_file,
    kernel_override_file,
    override_file,
    registry_reference,
    target_name,
)
from images.render.checkout import Checkout
from images.render.dockerfile import (
    GENERATED,
    compile_templates,
    differences,
    quoted,
    render,
    render_dockerfile,
    render_kernel,
    unquoted,
)
from images.render.lock_state import lock_states
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SM75_KERNEL = "xformers0.0.29.post2-torch2.6.0-cu124-sm75"
STAGES = ("base AS os", "os AS tools", "os AS nvidia")


def rendered(identifier: str, locked: bool = True) -> str:
    templates = compile_templates(Checkout(ROOT).templates())
    return render_dockerfile(templates, matrix(), variants().valid[identifier], locked)


def rendered_kernel(identifier: str, locked: bool = True) -> str:
    (kernel,) = [k for k in variants().kernels if k.id == identifier]
    return render_kernel(compile_templates(Checkout(ROOT).templates()), matrix(), kernel, locked)


def baked() -> Any:
    return json.loads(bake_file(matrix(), tuple(variants().valid.values()), variants().kernels))


def test_the_committed_files_are_what_the_matrix_says() -> None:
    checkout = Checkout(ROOT)
    locks = {name: state == "locked" for name, state in lock_states(matrix(), checkout.locks).items()}
    files = render(matrix(), variants(), checkout.templates(), locks)
    assert differences(files, checkout.generated()) == []
    assert len(files) == len(variants().valid) + len(variants().kernels) + 2


def test_differences_of_each_kind_are_listed() -> None:
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ["differs: b", "left over: c", "missing: a"]


@pytest.mark.parametrize("value", ["a b", 'a"b', "a\nRUN id", "$(id)", "${x}", "a\\b", "`id`", "", "a'b", "a\tb"])
def test_a_word_cannot_become_an_instruction(value: str) -> None:
    with pytest.raises(UsageError, match="Dockerfile"):
        unquoted(value)


@pytest.mark.parametrize("value", ['a"b', "a\nRUN id", "$(id)", "a\\", "`id`", "a\0b", "a\rb"])
def test_a_quoted_value_cannot_leave_its_quotes(value: str) -> None:
    with pytest.raises(UsageError, match="Dockerfile"):
        quoted(value)
    assert quoted("7.0 7.5") == '"7.0 7.5"'


def test_an_unknown_template_variable_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        compile_templates({"x": "{{ variant.nonsense }}"}).dockerfile("x", variant=SimpleNamespace())


def test_a_cuda_image_asks_for_its_driver_and_cards() -> None:
    text = rendered(SM75)
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=12.0"' in text
    assert 'NVIDIA_VISIBLE_DEVICES="all"' in text
    assert 'NVIDIA_DRIVER_CAPABILITIES="compute,utility"' in text
    assert "USER 10001:10001" in text


def test_the_cpu_image_asks_for_no_card() -> None:
    assert "NVIDIA_" not in rendered("cpu-vllm0.32.0-sdpa")


def test_a_kernel_is_rendered_once_for_all_variants_that_share_it() -> None:
    sm80 = [v for v in variants().valid.values() if v.stack == "cu124" and v.attention == "flash-attn"]
    assert len({v.kernel for v in sm80}) < len(sm80)
    text = rendered_kernel(SM75_KERNEL)
    assert '"TORCH_CUDA_ARCH_LIST=7.5"' in text
    assert "vllm" not in text.replace("cu124-vllm", "")
    assert text != rendered_kernel("xformers0.0.29.post2-torch2.6.0-cu124-sm70_75")


def test_a_variant_takes_its_kernel_and_compiles_nothing() -> None:
    text = rendered(SM75)
    assert "from=kernels,target=/run/build/wheels" in text
    assert not [word for word in ("nvcc", "toolkit", "TORCH_CUDA_ARCH_LIST", "sccache") if word in text]


def test_kernels_and_variants_share_the_layers_below_them() -> None:
    def stage(text: str) -> list[str]:
        return [text[text.index(f"FROM {start}") :].split("\n\n")[0] for start in STAGES]

    assert stage(rendered_kernel(SM75_KERNEL)) == stage(rendered(SM75))


def test_the_nvidia_layer_is_the_same_text_for_every_card_of_a_lock() -> None:
    def stage(identifier: str) -> str:
        text = rendered(identifier)
        return text[text.index("AS nvidia") :].split("\n\n")[0]

    assert stage(SM75) == stage("cu124-vllm0.8.5.post1-flash-attn-sm80")


def test_an_unlocked_stack_renders_without_its_lock() -> None:
    text = rendered("cu118-vllm0.8.5.post1-xformers-sm75", locked=False)
    assert "Not locked" in text
    assert "locks/cu118" not in text
    assert "torch==2.6.0+cu118" in text


def test_no_generated_file_holds_an_index_or_a_path_of_a_machine() -> None:
    generated = Checkout(ROOT).generated()
    for path in nonempty(path for path in generated if path.startswith(GENERATED)):
        text = generated[path]
        for asset in matrix().assets.values():  # public release files that unlocked stacks install
            text = text.replace(asset, "")
        assert "http" not in text, path
        assert "/home/" not in text.replace("/home/cardstock", ""), path


def test_bake_targets_have_names_that_bake_allows() -> None:
    data = baked()
    assert not [name for name in data["target"] if "." in name]
    groups = data["group"]
    assert set(data["target"]) == {*groups["default"]["targets"], *groups["kernels"]["targets"]}
    assert data["target"][target_name(SM75)]["dockerfile"] == f"rendered/{SM75}/Dockerfile"


def test_a_variants_kernel_is_another_target() -> None:
    target = f"kernel-{SM75_KERNEL.replace('.', '-')}"
    assert baked()["target"][target_name(SM75)]["contexts"]["kernels"] == f"target:{target}"
    assert baked()["target"][target]["dockerfile"] == f"rendered/kernels/{SM75_KERNEL}/Dockerfile"
    assert baked()["target"][target]["output"] == ["type=cacheonly"]
    assert "kernels" not in baked()["target"]["cpu-vllm0-32-0-sdpa"]["contexts"]


def test_a_base_is_used_by_digest_or_not_at_all() -> None:
    digest = "sha256:" + "0" * 64
    assert registry_reference(Base(image="debian:bookworm-slim", digest=digest)) == f"debian@{digest}"
    assert registry_reference(Base(image="debian:bookworm-slim", digest=None)) is None


def test_what_a_machine_adds_stays_in_the_second_file() -> None:
    site = MachineInputs((("base", "docker-image://cardstock/base:x"),), (("ca", "/ca.pem"),))
    data = json.loads(override_file({variants().valid[SM75]: "cardstock/staging:abc"}, site))
    target = data["target"][target_name(SM75)]
    assert target["secret"] == ["id=ca,src=/ca.pem"]
    assert target["tags"] == ["cardstock/staging:abc"]
    assert target["contexts"] == {"base": "docker-image://cardstock/base:x"}


def test_a_wheel_that_is_there_takes_the_place_of_the_kernels_target() -> None:
    site = MachineInputs((("base", "docker-image://b"),), ())
    data = json.loads(override_file({variants().valid[SM75]: "r"}, site, wheels={SM75: "/store/abc"}))
    assert data["target"][target_name(SM75)]["contexts"] == {"base": "docker-image://b", "kernels": "/store/abc"}


def test_a_whole_image_inherits_the_target_of_its_variant() -> None:
    whole = variants().valid[SM75].as_whole()
    site = MachineInputs((("base", "docker-image://b"),), ())
    data = json.loads(override_file({whole: "r", variants().valid[SM75]: "s"}, site, wheels={whole.id: "/store/abc"}))
    target = data["target"][f"{target_name(SM75)}-whole"]
    assert target["inherits"] == [target_name(SM75)] and target["inherits"][0] in baked()["target"]
    assert target["args"] == {"CARDSTOCK_WHOLE": "-whole"}
    assert target["contexts"] == {"base": "docker-image://b", "kernels": "/store/abc"}
    assert not {"inherits", "args"} & set(data["target"][target_name(SM75)])
    assert "args" not in baked()["target"][target_name(SM75)]
    assert bake_target(matrix(), whole) == baked()["target"][target_name(SM75)] | {"args": target["args"]}


def test_kernels_get_what_the_machine_adds_and_a_folder_to_go_to() -> None:
    (kernel,) = [k for k in variants().kernels if k.id == SM75_KERNEL]
    site = MachineInputs((("base", "docker-image://b"),), (("ca", "/ca.pem"),))
    data = json.loads(kernel_override_file({kernel: "/store/new"}, site, {"CARDSTOCK_KERNEL_JOBS": "1"}))
    assert data["target"][kernel.target] == {
        "contexts": {"base": "docker-image://b"},
        "secret": ["id=ca,src=/ca.pem"],
        "args": {"CARDSTOCK_KERNEL_JOBS": "1"},
        "output": ["type=local,dest=/store/new"],
    }


def test_labels_are_not_read_as_templates_by_bake() -> None:
    data = json.loads(finish_file("r:x", ["i:t"], {"a": "${HOME} %{if} $x"}))
    assert data["target"]["finish"]["labels"] == {"a": "$${HOME} %%{if} $x"}
    assert data["target"]["finish"]["tags"] == ["i:t"]


def test_the_plan_for_people_names_the_tags() -> None:
    variant = variants().valid[SM75]
    assert bake_plan(matrix(), {variant: ["i:t"]})["target"][target_name(SM75)]["tags"] == ["i:t"]


def test_the_input_hash_changes_with_any_name_or_content() -> None:
    base = input_hash({"a": b"1", "b": b"2"})
    assert base == input_hash({"b": b"2", "a": b"1"})
    others = [{"a": b"12", "b": b""}, {"a": b"1", "c": b"2"}, {"a": b"1"}, {"a": b"2", "b": b"1"}]
    assert len({base, *map(input_hash, others)}) == 5


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x"
    write_atomically(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_generated_files_that_no_variant_has_any_more_are_removed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkout = Checkout(tmp_path)
    checkout.write_generated({f"{GENERATED}/old/Dockerfile": "FROM x\n"})
    assert checkout.write_generated({f"{GENERATED}/new/Dockerfile": "FROM y\n"}) == [
        f"{GENERATED}/new/Dockerfile",
        f"{GENERATED}/old/Dockerfile",
    ]
    assert not (tmp_path / GENERATED / "old").exists()
