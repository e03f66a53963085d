"""A row that was just planned is not of an earlier version, whichever dtypes its parts have."""

from __future__ import annotations

import pytest

from blip2sweep.commands.export import recipe_of
from blip2sweep.results.table import is_stale
from tests.composing import plan

DTYPES = [
    (), ("model.dtype=bfloat16",), ("model.stored=float16",), ("model.dtype_per_part.vit=bfloat16",),
    ("model.dtype=bfloat16", "model.dtype_per_part.vit=float32"),
    ("model.stored=float16", "model.dtype_per_part.vit=float32"),
]  # fmt: skip


@pytest.mark.parametrize("words", DTYPES)
def test_no_planned_row_is_stale(words: tuple[str, ...]) -> None:
    cells = plan(*words, "part=vit,llm,all", "quant=gptq,minmax", "quant.bits=4", "task.limit=8").todo
    assert len(cells) == 7
    for job in (cell.job() for cell in cells):
        assert not is_stale({"columns": job["columns"]})  # type: ignore[typeddict-item]
        recipe_of(job)
