"""Rows of versions that counted 16 bits for all that is not quantized get the sizes of today, or none."""

from __future__ import annotations

from typing import Any

import pytest

from blip2sweep.compression.step import FLOAT_BITS
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.old_sizes import SIZES, OldSizes
from blip2sweep.recipe.size import alike, size
from tests.composing import plan

WORDS = (
    "part=none",
    "quant.bits=3",
    "part=vit quant=gptq quant.bits=3 quant.strategy=group quant.group_size=48 calibration.n_samples=8",
    "part=none drop_blocks=qformer:4-5+llm:0",
    "part=vit drop_blocks=qformer:4 quant.bits=3",
    "part=llm quant.bits=none sparsity=magnitude",
)


def cell(words: str) -> Cell:
    made = plan("task.limit=8", *words.split())
    return made.cells[str(made.keys[0])]


def old_row(made: Cell, **more: object) -> dict[str, Any]:
    """The row as versions before `stored` wrote it."""
    numbers = made.model.numbers
    counted = size(made.recipe, alike(numbers.total, 16, numbers.blocks))
    row = {**made.columns(), **vars(counted), **more}
    return {k: v for k, v in row.items() if k != "stored"}


def sizes_of(row: Any) -> dict[str, Any]:
    return {k: row[k] for k in SIZES}


def known(name: str) -> Anatomy:
    return model_anatomy(name)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_gets_the_size_that_its_cell_has_today(words: str, dtype: str) -> None:
    made = cell(f"{words} model.dtype={dtype}")
    found = OldSizes(known)(old_row(made))
    assert found["stored"] == made.columns()["stored"] == dtype
    assert sizes_of(found) == sizes_of(made.columns())


def test_a_row_of_today_stays() -> None:
    row = cell("quant.bits=3").columns()
    assert OldSizes(known)(row) == row  # type: ignore[arg-type]


def test_no_size_is_better_than_a_wrong_one() -> None:
    """Of a model that nobody knows, and where stages differ, so that nothing says how large each is."""
    mixed = cell("quant.bits=3 model.dtype=bfloat16 model.dtype_per_part.llm=float32")
    for row, shapes in ((old_row(cell("quant.bits=3")), lambda name: None), (old_row(mixed), known)):
        found = OldSizes(shapes)(row)
        assert set(sizes_of(found).values()) == {None}
        assert found["stored"] == row["dtype"]


def test_imported_rows_count_float16() -> None:
    made = cell("quant.bits=3")
    found, other = (OldSizes(known)(old_row(made, dtype=d, imported="a table")) for d in ("unknown", "float32"))
    assert {**other, "dtype": "unknown"} == found
    half = size(made.recipe, alike(made.model.params, FLOAT_BITS // 2))
    assert (found["stored"], sizes_of(found)) == ("float16", vars(half))
