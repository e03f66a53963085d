"""The published study as first subject: what it really ran, and how well the rest of it is predicted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis import predict, spread, suggest
from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.layer_groups import LayerGroups, layer_groups, noise
from blip2sweep.errors import UserError
from blip2sweep.importing.study import Counts, honest_entries, read_study
from blip2sweep.models.shipped import model_anatomy

Imported = tuple[Path, Counts, pd.DataFrame]
pytestmark = [pytest.mark.xdist_group("java"), pytest.mark.thorough]


def test_the_counts_come_out_of_the_data(imported: Imported) -> None:
    counts = imported[1]
    assert counts.configs == 1500
    assert counts.noop == 1087
    assert counts.nothing == 100
    assert counts.distinct == 629
    assert counts.distinct_16_untouched == 510
    assert counts.wrong_sizes == 850
    assert counts.with_predictions == 300


def test_rows_are_honest_and_duplicates_merged(imported: Imported) -> None:
    folder, _, table = imported
    assert len(table) == 629
    assert sum(len(c) for c in table["configs"]) == 1500
    base = table[table["part"] == "none"]
    assert len(base) == 1
    assert len(base["configs"].iloc[0]) == 100
    assert base["cider"].iloc[0] == pytest.approx(1.2852764152502318, abs=1e-12)
    assert (table["imported"] == "gautomdas/blip2-coco").all()
    lines = next((folder / "journals").iterdir()).read_text().splitlines()
    assert max(map(len, lines)) <= 2048
    # LLM attention was never reached, nor the Q-Former's MLP and cross-attention
    reached = {
        e["target"].split(":")[0] + ":" + e["target"].split(":")[2] for r in table["recipe_json"] for e in json.loads(r)
    }
    assert not {
        x for x in reached if x in ("llm:attention", "llm:all", "qformer:mlp", "qformer:all", "qformer:crossattention")
    }


def test_sizes_are_computed_again(imported: Imported) -> None:
    table = imported[2]
    row = table[
        table["recipe"]
        == "vit:all:all=minmax4/tensor; qformer:all:attention=minmax4/tensor; llm:all:mlp=minmax4/tensor"
    ].iloc[0]
    # In the study's own count (32-bit floats) 4 bits over all parts leave .3712; it said .1751.
    touched = row["params_touched"]
    assert 1 - touched * 28 / 32 / 3744679936 == pytest.approx(0.3712, abs=3e-4)
    assert row["bits_per_weight"] == pytest.approx(16 - 12 * touched / 3744679936, abs=0.01)


def test_published_scores_are_reproduced_and_have_intervals_where_captions_are(imported: Imported, study: Path) -> None:
    table, published = imported[2], pd.read_csv(study / "scores.csv").set_index("config")
    for row in table.to_dict("records"):
        assert row["cider"] == pytest.approx(published.loc[row["configs"][0], "CIDEr"], abs=1e-9)
    assert table["drop_cider_low"].notna().sum() == 227
    assert table["drop_cider"].notna().all()


@pytest.mark.parametrize(("change", "words"), [
    ("no scores", "scores.csv is missing, so this is no whole copy"),
    ("cut json", "configs.json: not whole JSON"),
    ("half the captions", "captions, not one for each image of references.json in order"),
    ("nan score", "config 7 has no score"),
    ("unknown config", "config 9999 is not in configs.json"),
    ("wrong score", "changed the same layers but have other scores"),
])  # fmt: skip
def test_a_half_imported_study_is_refused_in_one_line(study: Path, tmp_path: Path, change: str, words: str) -> None:
    for path in study.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path, change)
    with pytest.raises(UserError, match=words) as told:
        read_study(tmp_path)
    assert "\n" not in str(told.value)


def spoil(folder: Path, change: str) -> None:
    scores = pd.read_csv(folder / "scores.csv")
    if change == "no scores":
        (folder / "scores.csv").unlink()
    elif change == "cut json":
        (folder / "configs.json").write_bytes((folder / "configs.json").read_bytes()[:5000])
    elif change == "half the captions":
        table = pd.read_parquet(folder / "predictions.parquet")
        table.iloc[:-300].to_parquet(folder / "predictions.parquet")
    else:
        row, column, value = {
            "nan score": (7, "CIDEr", np.nan),
            "unknown config": (9, "config", 9999),
            "wrong score": (1, "CIDEr", 1.0),
        }[change]
        scores.loc[row, column] = value
        scores.to_csv(folder / "scores.csv", index=False)


def test_without_captions_published_scores_are_kept(study: Path, tmp_path: Path) -> None:
    for name in ("configs.json", "scores.csv", "references.json"):
        shutil.copyfile(study / name, tmp_path / name)
    assert read_study(tmp_path).predictions == {}


def test_what_a_config_reached() -> None:
    reached = [
        e["target"]
        for e in honest_entries({"model_part": "LLM", "layer_group": "FIRST", "layer_type": "BOTH", "num_bits": 4})
    ]
    assert reached == ["llm:first:mlp"]
    assert honest_entries({"model_part": "QFORMER", "layer_group": "ALL", "layer_type": "MLP", "num_bits": 4}) == []


# ---- prediction


@pytest.fixture(scope="module")
def distinct(imported: Imported) -> tuple[LayerGroups, np.ndarray, np.ndarray, np.ndarray, float]:
    """The 510 models that differ when 16-bit min-max counts as untouched: widths, noise, CIDEr, baseline."""
    cells = comparable(imported[2])
    pieces = layer_groups(cells, model_anatomy("blip2-opt-2.7b"))
    widths = np.where(pieces.widths == 16, 0, pieces.widths)
    _, first = np.unique(widths, axis=0, return_index=True)
    first = np.sort(first)
    assert len(first) == 510
    base = float(cells.loc[cells["part"] == "none", "cider"].iloc[0])
    return pieces, widths[first], noise(widths[first]), cells["cider"].to_numpy(float)[first], base


def test_the_pieces_the_study_can_tell_apart(
    distinct: tuple[LayerGroups, np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    assert [t[0] for t in distinct[0].targets] == [
        *(f"vit:{third}:{kind}" for third in ("first", "middle", "last") for kind in ("attention", "mlp")),
        *(f"qformer:{third}:attention" for third in ("first", "middle", "last")),
        *(f"llm:{third}:mlp" for third in ("first", "middle", "last")),
    ]


def errors(guess: np.ndarray, metric: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Mean absolute error overall, and among cells with .1 < CIDEr < 1.2."""
    off, telling = np.abs(guess - metric)[test], ((metric > 0.1) & (metric < 1.2))[test]
    return float(off.mean()), float(off[telling].mean())


def test_sixty_random_cells_predict_the_rest(
    distinct: tuple[LayerGroups, np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    pieces, widths, power, metric, base = distinct
    model, parts, designed = [], [], []
    for draw in range(20):
        train = np.random.default_rng(draw).choice(len(metric), 60, replace=False)
        test = np.setdiff1d(np.arange(len(metric)), train)
        model.append(errors(predict.fit(power[train], metric[train], base, pieces.families)(power), metric, test))
        parts.append(errors(predict.bits_by_parts(widths, pieces.parts, train, metric), metric, test))
    overall, telling = np.mean(model, axis=0)
    assert overall <= 0.07
    assert telling <= 0.5 * np.mean(parts, axis=0)[1]
    for seed in range(3):
        chosen = np.array(suggest.design(power, pieces.families, base, lambda i: float(metric[i]), 60, seed))
        assert len(set(chosen)) == 60
        test = np.setdiff1d(np.arange(len(metric)), chosen)
        designed.append(errors(predict.fit(power[chosen], metric[chosen], base, pieces.families)(power), metric, test))
    assert (np.mean(designed, axis=0) < np.array([overall, telling]) / 2).all()


def test_single_part_cells_predict_joint_ones(
    distinct: tuple[LayerGroups, np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    pieces, widths, power, metric, base = distinct
    names = np.array(pieces.parts)
    single = np.array([len(set(names[w > 0])) <= 1 for w in widths])
    train, test = np.flatnonzero(single), np.flatnonzero(~single)
    overall, telling = errors(predict.fit(power[train], metric[train], base, pieces.families)(power), metric, test)
    alone, _ = errors(predict.bits_alone(widths, train, metric), metric, test)
    print(f"single -> joint: {overall:.4f} overall, {telling:.4f} among .1-1.2, bits alone {alone:.4f}")
    assert overall < alone / 4


@pytest.mark.parametrize("n", [15, 60])
def test_intervals_of_predictions_hold_what_was_not_run(
    distinct: tuple[LayerGroups, np.ndarray, np.ndarray, np.ndarray, float], n: int
) -> None:
    """Nominal 90 %, over random choices of the cells that were run; and a bad end that is seldom worse than it says."""
    pieces, _, power, metric, base = distinct
    covered, cliff, worse = [], [], []
    for draw in range(12):
        train = np.random.default_rng(draw).choice(len(metric), n, replace=False)
        test = np.setdiff1d(np.arange(len(metric)), train)
        q = spread.quantile(power[train], metric[train], base, pieces.families)
        kept = predict.fit(power[train], metric[train], base, pieces.families)(power[test]) / base
        off, reach = metric[test] / base - kept, q * spread.scale(kept)
        covered.append((np.abs(off) <= reach).mean())
        cliff.append((np.abs(off) <= reach)[(metric[test] > 0.1 * base) & (metric[test] < 0.9 * base)].mean())
        worse.append((off < -reach)[kept > 0.9].mean())
    assert 0.8 <= np.mean(covered) <= 0.97
    assert np.mean(cliff) >= 0.75
    assert np.mean(worse) <= 0.06  # of recipes that look safe


def test_without_cells_to_hold_out_there_is_no_interval() -> None:
    one = np.array([[0.0], [1.0]])
    assert spread.quantile(one, np.array([1.0, 0.5]), 1.0, ["vit"]) == np.inf
