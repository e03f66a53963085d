"""Python values become the words that the command line has for them, and are read as the same values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blip2sweep.config.grid import product
from blip2sweep.config.overrides import parse
from blip2sweep.config.words import with_output_dir, words_of
from blip2sweep.errors import UserError, UserErrors
from tests.composing import composer, plan


def read(words: list[str]) -> list[dict[str, object]]:
    """What Hydra reads: {key: value} of each cell."""
    cells = product(parse(words), composer().options)
    return [{o.key_or_group: o.value() for o in parse(cell)} for cell in cells]


def test_a_mapping_is_the_words_of_the_command_line() -> None:
    text = words_of("quant.bits=2,4 part=vit,llm per_part.vit.bits=8 quant.symmetric=true keep=null")
    mapping = words_of(
        {"quant": {"bits": [2, 4]}, "part": ["vit", "llm"], "per_part.vit": {"bits": 8}},
        [{"quant.symmetric": True, "keep": None}],
    )
    assert read(mapping) == read(text)
    assert len(read(text)) == 4
    mixed = words_of("part=vit,llm", ["quant.bits=2", {"keep": None}])
    assert mixed == ["part=vit,llm", "quant.bits=2", "keep=null"]


def test_lists_of_any_kind_multiply() -> None:
    for values in ([2, 4], (2, 4), range(2, 5, 2), np.array([2, 4])):
        assert words_of({"quant.bits": values}) == ["quant.bits=2,4"]
    assert words_of({"quant.bits": np.int64(3), "quant.damp": np.float64(0.5)}) == ["quant.bits=3", "quant.damp=0.5"]
    (both,) = read(words_of({"task.rule": [["official", "lavis"]]}))
    assert both == {"task.rule": ["official", "lavis"]}


@pytest.mark.parametrize(
    "text",
    ["a photo of, say: {}", "it's", "null", "2", "1e3", "${oc.env:HOME}", "range(2,5)", "ü", "a b=c", "", "None"],
)
def test_a_text_is_one_value_as_it_stands(text: str) -> None:
    (cell,) = read(words_of({"generation.prompt": text}))
    assert cell["generation.prompt"] == text.replace("${", r"\${")  # OmegaConf takes the backslash away


@pytest.mark.parametrize("value", [2, 0.5, 1e-05, True, False, None, float("inf"), {"a": 1, "b": [None, "x,y"]}])
def test_values_are_what_hydra_reads(value: object) -> None:
    (cell,) = read(words_of({"backend.options.x": [value]}))
    assert {k.lstrip("+"): v for k, v in cell.items()}["backend.options.x"] == value


def test_folders_and_keys_are_quoted_where_they_have_to_be(tmp_path: Path) -> None:
    assert read(words_of({"output_dir": Path("/data/my results")})) == [{"output_dir": "/data/my results"}]
    assert words_of({"rerun": ["49e823001112", "abc"]}) == ["rerun=['49e823001112',abc]"]
    assert with_output_dir(["part=vit"], tmp_path) == ["part=vit", f"output_dir={tmp_path}"]


def test_the_flag_of_a_copied_command_adds_nothing() -> None:
    assert words_of("-m part=vit") == words_of("--multirun +part=vit") == ["part=vit"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"quant.bits": object()}, "quant.bits: a value of type object; right: a text, a number"),
        ({"quant.bits": {2, 4}}, "quant.bits: a value of type set"),
        ({"quant": {"bits": []}}, "quant.bits: an empty list, so no cell"),
        (
            {"quant.bits": "2, 4"},
            "quant.bits=2, 4: one text, since a text is one value in a mapping; right: 'quant.bits': ['2', '4']",
        ),
        ({"model": "tiny,tiny-llava"}, "right: 'model': ['tiny', 'tiny-llava']"),
        ({3: 4}, "3: a key of type int; right: a text"),
        (None, "None: of type NoneType; right: a text such as"),
        ("part='a", "part='a: no closing quotation; right: quotes in pairs"),
        ("part", "part: no key=value; right: such as quant.bits=2,4"),
        ("quant.bits=2, 4", "quant.bits=2, ends with a comma"),
        ("--config-dir=own", "--config-dir=own: a flag of the command line; right: config_dir=…"),
        ("hydra/launcher=slurm", "hydra/launcher=slurm: a setting of the command line"),
        ("hydra.launcher.workers=2", "right: workers=… of the function"),
    ],
)
def test_what_is_no_override_is_told(overrides: object, told: str) -> None:
    with pytest.raises(UserError) as error:
        words_of(overrides)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserErrors) as error:
        words_of({"part": [], "quant.bits": object()}, ["keep", 7])  # type: ignore[list-item]
    assert [line.partition(":")[0] for line in error.value.lines] == ["part", "quant.bits", "keep", "7"]


@pytest.mark.parametrize("folder", ["", "a\nb"])
def test_a_folder_needs_a_name(folder: str) -> None:
    with pytest.raises(UserError, match="output_dir"):
        with_output_dir([], folder)
    with pytest.raises(UserError, match="output_dir=a: output_dir=b is given too; right: one of them"):
        with_output_dir(["output_dir=a"], "b")


def test_keys_do_not_depend_on_how_it_is_said() -> None:
    words = words_of({"quant": {"bits": [2, "none"], "method": "rtn"}, "part": "vit+llm", "blocks": ["0-1", 2]})
    text = "quant.bits=2,none quant.method=rtn part=vit+llm blocks=0-1,2".split()
    assert plan(*words).keys == plan(*text).keys


def test_hydra_composes_our_config_without_help() -> None:
    """In a process that has imported nothing else of this package."""
    code = (
        "from hydra import compose, initialize_config_module\n"
        "with initialize_config_module('blip2sweep.conf', version_base='1.3'):\n"
        "    config = compose('config', ['quant.bits=3', 'part=vit', 'model=tiny-llava', 'hydra/launcher=slurm'])\n"
        "assert (config.quant.bits, config.part, config.model.name) == (3, 'vit', 'tiny-llava')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
