"""What the digests of measured and trained layers depend on, and what they do not."""

from __future__ import annotations

import pytest

from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.trained import training_name
from tests.composing import plan

GPTQ = "part=all quant=gptq quant.bits=4 calibration.n_samples=8"
WANDA = "part=all quant.bits=none sparsity=wanda calibration.n_samples=8"


def cell(words: str) -> Cell:
    made = plan("task.limit=8", *words.split())
    return made.cells[str(made.keys[0])]


def measured(words: str) -> dict[str, str]:
    """{part: the digest of what its layers are measured on}."""
    found = cell(words).job()["recipe"]
    return {str(e["target"]).split(":")[0]: str(e["calibration"]) for e in found if "calibration" in e}


@pytest.mark.parametrize("upstream", ["part", "model"])
@pytest.mark.parametrize("base", [GPTQ, WANDA])
def test_what_is_trained_afterwards_is_not_measured(base: str, upstream: str) -> None:
    words = f"{base} calibration.upstream={upstream}"
    assert measured(f"{words} recover=lora recover.n_samples=16") == measured(words)


def test_merged_and_unmerged_cells_share_what_is_trained() -> None:
    words = f"{GPTQ} calibration.upstream=model recover=lora recover.n_samples=16"
    jobs = [cell(f"{words} recover.merge={merge}").job() for merge in ("true", "false")]
    assert len({j["key"] for j in jobs}) == 2
    assert len({training_name(j["recipe"], j["columns"]) for j in jobs}) == 1


@pytest.mark.parametrize("base", [GPTQ, WANDA])
def test_steps_in_later_parts_are_not_measured(base: str) -> None:
    plain, connector, language = (measured(f"{base} drop_blocks={d}") for d in ("none", "qformer:1", "llm:4-5"))
    assert set(plain) == {"vit", "qformer", "llm"}
    assert {part for part in plain if plain[part] != connector[part]} == {"qformer", "llm"}
    assert {part for part in plain if plain[part] != language[part]} == {"llm"}


def test_sparse_weights_count_for_what_comes_behind_them() -> None:
    plain, sparse = (
        measured(f"{GPTQ} {words}") for words in ("", "sparsity=magnitude per_part.vit.sparsity.method=none")
    )
    assert {part for part in plain if plain[part] != sparse[part]} == {"qformer", "llm"}


@pytest.mark.thorough
def test_the_control_of_all_that_is_left_is_that_of_the_whole_part() -> None:
    """As docs/compression.md has it."""
    words = "part=none recover=lora recover.n_samples=16"
    left, whole = (cell(f"{words} drop_blocks=llm:4-5 recover.target={t}") for t in ("llm:0-3", "llm"))
    assert left.key == whole.key
    assert left.control is not None
    assert left.control.key == cell(f"{words} recover.target=llm").key
