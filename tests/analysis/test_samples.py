"""Cells that were calibrated or trained on other samples are other cells: no piece, curve or seed mixes them."""

from __future__ import annotations

import pandas as pd
import pytest

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.together import together
from blip2sweep.models.shipped import model_anatomy
from tests.synthetic_steps import build_steps

TINY = model_anatomy("tiny")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("samples")
    build_steps(folder, n=20)
    return comparable(pd.read_parquet(folder / "sweeps/planted/table.parquet"))


def calibrated(cells: pd.DataFrame, samples: int, seed: int = 0) -> pd.DataFrame:
    """Copies that gptq quantizes in place of rtn, measured on so many samples."""
    name = f"{samples} samples, seed {seed}"
    return cells.assign(
        key=cells["key"] + name, recipe_json=cells["recipe_json"].str.replace('"rtn"', '"gptq"'), seed=float(seed),
        setting=cells["setting"] + f" {samples} samples", calibrated_on=name, drop_cider=cells["drop_cider"] + samples,
    )  # fmt: skip


def steps_of(*cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that are taken apart by their steps."""
    return together(pd.concat(cells, ignore_index=True), "cider", None, TINY).query("by == 'steps'")


def test_pieces_are_calibrated_on_the_same_samples(planted: pd.DataFrame) -> None:
    four = planted[(planted["width"] == 4) & planted["kind"].isin(["quantize", "drop blocks + quantize"])]
    alone, both = (four[four["kind"] == kind] for kind in ("quantize", "drop blocks + quantize"))
    dropped = planted[planted["kind"] == "drop blocks"]
    others = [calibrated(alone, 8), calibrated(alone, 32, seed=1), calibrated(alone, 32)]
    found = steps_of(dropped, *others, calibrated(both, 32))
    gone = dropped.set_index("what").loc["without llm:4-5", "drop_cider"]
    assert found["sum"].tolist() == pytest.approx([gone + others[2]["drop_cider"].iloc[0]])
    assert steps_of(dropped, *others[:2], calibrated(both, 32)).empty


def test_a_cell_of_a_higher_seed_has_its_own_pieces(planted: pd.DataFrame) -> None:
    """Where the step alone was measured with further seeds, that of the whole cell's seed is its piece."""
    four = planted[(planted["width"] == 4) & planted["kind"].isin(["quantize", "drop blocks + quantize"])]
    alone, both = (four[four["kind"] == kind] for kind in ("quantize", "drop blocks + quantize"))
    seeds = [calibrated(alone, 8, s) for s in (0, 1)]
    assert len(steps_of(planted[planted["kind"] == "drop blocks"], *seeds, calibrated(both, 8, 1))) == 1
