"""Cells that were calibrated or trained on other samples are other cells: no piece, curve or seed mixes them."""

from __future__ import annotations

import pandas as pd
import pytest

from blip2sweep.analysis.cells import comparable, one_seed
from blip2sweep.analysis.features import with_recipe_features
from blip2sweep.analysis.recovery import recovery
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


# ---- recovery


def learnt(planted: pd.DataFrame, *samples: tuple[int | None, str]) -> pd.DataFrame:
    """The curve of one dropped model, one cell for each (number, digest) of training samples; sorted by steps."""
    own = planted[(planted["what"] == "without qformer:4-5") & (planted["kind"] == "drop blocks + LoRA")]
    numbers, digests = zip(*samples, strict=True)
    cells = own.assign(recover_samples=numbers, recover_data=digests)
    before = planted[planted["what"].eq("without qformer:4-5") & planted["kind"].eq("drop blocks")]
    return recovery(with_recipe_features(pd.concat([before, cells], ignore_index=True)), "cider", None)


def test_cells_that_learnt_from_other_samples_are_on_other_curves(planted: pd.DataFrame) -> None:
    one = learnt(planted, (64, "aa"), (64, "aa"), (64, "aa"))
    assert (one["how"].unique().tolist(), one["steps"].tolist()) == (["LoRA r8 task on llm"], [0, 50, 150, 500])
    found = learnt(planted, (64, "aa"), (512, "bb"), (512, "bb")).groupby("how")["steps"].apply(list)
    assert found.to_dict() == {
        "LoRA r8 task on llm, 64 samples": [0, 50], "LoRA r8 task on llm, 512 samples": [0, 150, 500],
    }  # fmt: skip
    found = learnt(planted, (64, "aa"), (64, "bb"), (64, "bb")).groupby("how")["steps"].apply(list)
    assert found.to_dict() == {
        "LoRA r8 task on llm, 64 samples aa": [0, 50], "LoRA r8 task on llm, 64 samples bb": [0, 150, 500],
    }  # fmt: skip


def test_a_seed_that_draws_other_samples_is_a_point_of_the_curve(planted: pd.DataFrame) -> None:
    row = planted[planted["kind"] == "drop blocks + LoRA"].iloc[:1].assign(recover_samples=64, recover_data="aa")
    seed = row.assign(key="seed", recipe_json=row["recipe_json"].str.replace('"seed":0', '"seed":7'), recover_data="bb")
    found = recovery(with_recipe_features(pd.concat([row, seed], ignore_index=True)), "cider", None)
    assert (len(found["how"].unique()), found["point"].tolist()) == (1, [False, True])


def test_recovered_cells_of_several_calibration_seeds_are_one(planted: pd.DataFrame) -> None:
    """Calibration leaves other images to train on, so the digests differ; a cell of another split is another cell."""
    row = planted[planted["kind"] == "drop blocks + LoRA"].iloc[:1]
    seeds = [
        row.assign(
            key=f"{i}", calibration_seed=float(i), calibration_data=f"c{i}", recover_samples=64, recover_data=f"t{i}",
            recipe_json=row["recipe_json"].str.replace('"seed":0', f'"seed":0,"trained_on":"d{i}"'),
        )
        for i in (0, 1)
    ]  # fmt: skip
    other = seeds[0].assign(key="other", recover_data="elsewhere")
    for cells, left in (([seeds[1], seeds[0]], ["0"]), ([*seeds, other], ["0", "1", "other"])):
        assert sorted(one_seed(with_recipe_features(pd.concat(cells, ignore_index=True)))["key"]) == left
