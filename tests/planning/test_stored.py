"""`model.stored`: in which dtype what is not quantized is written, and what that is part of."""

from __future__ import annotations

import pytest

from blip2sweep.errors import UserError
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.semantics import semantics_of
from blip2sweep.recipe.trained import training_name
from tests.composing import plan

HALF = ("float16", "bfloat16")
RTN = "quant=rtn quant.bits=4"


def cell(words: str) -> Cell:
    made = plan("task.limit=8", *words.split())
    return made.cells[str(made.keys[0])]


def test_it_is_in_the_key_only_where_it_rounds() -> None:
    plain = cell(RTN)
    assert "stored" not in plain.identity
    assert cell(f"{RTN} model.stored=null").key == cell(f"{RTN} model.stored=float32").key == plain.key
    rounded = [cell(f"{RTN} model.stored={name}") for name in HALF]
    assert [c.identity["stored"] for c in rounded] == [*HALF]
    assert len({plain.key, *(c.key for c in rounded), *(c.baseline().key for c in rounded)}) == 5
    computed = cell(f"{RTN} model.dtype=float16")
    assert cell(f"{RTN} model.dtype=float16 model.stored=float16").key == computed.key
    mixed = cell(f"{RTN} model.dtype=float16 model.dtype_per_part.llm=float32 model.stored=float16")
    assert (mixed.columns()["dtype"], mixed.columns()["stored"]) == (
        "vit:float16 qformer:float16 llm:float32",
        "float16",
    )
    assert mixed.identity["stored"] == "float16"


def test_the_size_is_that_of_the_dtype_in_which_it_is_written() -> None:
    found = {
        w: cell(w).columns() for w in ("part=none", "part=none model.stored=float16", "part=none model.dtype=bfloat16")
    }
    sizes = [(c["bits_per_weight"], c["compression_ratio"], c["model_bytes"], c["stored"]) for c in found.values()]
    assert sizes == [(32, 0.5, 4020224, "float32"), (16, 1, 2010112, "float16"), (16, 1, 2010112, "bfloat16")]
    quantized = [cell(f"{RTN} {w}").columns() for w in ("model.stored=float16", "model.dtype=float16")]
    assert quantized[0]["model_bytes"] == quantized[1]["model_bytes"]
    mixed = cell("part=none model.dtype=bfloat16 model.dtype_per_part.llm=float32").columns()
    assert mixed["model_bytes"] == 2010112 + 2 * cell("part=none").model.numbers.params["language"]


@pytest.mark.parametrize("word", ["model.stored=float16", "model.dtype=bfloat16"])
@pytest.mark.parametrize(
    ("quant", "number"),
    [("rtn", 4), ("gptq calibration.n_samples=8", 4), ("smoothquant calibration.n_samples=8", 4), ("hqq", 4), ("nf4", 3), ("minmax", 3)],
)  # fmt: skip
def test_half_precision_has_semantics_of_its_own_where_scales_are_rounded(word: str, quant: str, number: int) -> None:
    words = f"part=llm quant={quant} {'' if quant == 'nf4' else 'quant.bits=4'}"
    made, plain = cell(f"{words} {word}"), cell(words)
    assert (made.semantics, plain.semantics) == (number, 3)
    for c in (made, plain):
        columns = c.columns()
        assert semantics_of(c.job()["recipe"], columns["stored"]) == columns["semantics"] == c.semantics  # type: ignore[arg-type]


def test_only_the_parts_that_are_stored_in_half_precision_round() -> None:
    mixed = "model.dtype=float16 model.dtype_per_part.qformer=float32"
    assert [cell(f"part={p} {RTN} {mixed}").semantics for p in ("qformer", "vit", "vit+qformer")] == [3, 4, 4]


def test_what_is_trained_is_named_by_it() -> None:
    entries = [{"target": "llm:all:all", "step": "recover", "method": "lora", "steps": 8}]
    stored = ({}, {"stored": "float32"}, {"stored": "float16"})
    names = [training_name(entries, {"weights": "w", "dtype": "float32", **s}) for s in stored]  # type: ignore[arg-type]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.stored=float8", "model.stored=float8: unknown dtype; did you mean 'float32'"),
        ("model.stored=float", "model.stored=float: unknown dtype"),
        (
            "model.dtype=bfloat16 model.stored=float16",
            "model.stored=float16: vision is in bfloat16, bridge is in bfloat16, language is in bfloat16, and is written as it is",
        ),
        ("model.dtype=float16 model.stored=float32", "right: model.stored=null or model.stored=float16"),
        (
            "model.dtype_per_part.llm=bfloat16 model.stored=float16",
            "model.stored=float16: language is in bfloat16, and is written as it is; right: model.stored=null or model.stored=bfloat16",
        ),
    ],
)
def test_what_does_not_hold_the_numbers_is_refused_in_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        cell(words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
