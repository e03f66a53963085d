"""What a whole run cannot do without, by hand: FLOPs and bytes of each stage, and the seconds that they take at least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.planning.plan import Plan
from scripts.benchmarks import arithmetic, grids, models, rates
from scripts.benchmarks.arithmetic import Batches, Model, Need, read_prompts
from scripts.benchmarks.ours import Setting, planned
from scripts.benchmarks.rates import Rates
from tests.checkpoints import ROOT

IMAGES = 4
VIT = 2 * 37 * (4 * 64**2 + 2 * 64 * 256) + 4 * 37**2 * 64  # a block: 36 patches and a class token
PATCHES = 2 * 36 * 3 * 8**2 * 64
OPT = 4 * 64**2 + 2 * 64 * 256  # weights of a block


@pytest.fixture(scope="module")
def tiny() -> Model:
    folder = ROOT / "blip2sweep/assets/tiny"
    task = models.task("shapes_caption", "pkg://blip2sweep.assets/shapes", IMAGES)
    given = Setting(models.model_config("tiny"), task, "cpu", 32, False, folder)
    config = json.loads((folder / "config.json").read_text())
    return Model(given, config, 4)


def plan_of(model: Model, cells: list[dict[str, Any]], folder: Path) -> Plan:
    return planned(model.given, cells, folder)


def test_a_block_runs_once_for_each_recipe_up_to_it(tiny: Model, tmp_path: Path) -> None:
    """The card: three recipes of the ViT and none; behind them the Q-Former's three and none where the ViT is left alone."""
    runs = arithmetic.block_runs(tiny, plan_of(tiny, grids.card(), tmp_path))
    assert runs == {"vision": [4] * 6, "bridge": [7] * 6}
    last = {**grids.card()[0], "blocks": "last"}
    assert arithmetic.block_runs(tiny, plan_of(tiny, [last], tmp_path))["vision"] == [1, 1, 1, 1, 2, 2]


def test_image_stages_are_counted_as_their_shapes_say(tiny: Model, tmp_path: Path) -> None:
    plan = plan_of(tiny, grids.part_wise(), tmp_path)
    need = arithmetic.image_stages(tiny, plan, IMAGES, Batches(2, 8))
    assert need["vision"].flops == pytest.approx(IMAGES * (4 * 6 * VIT + PATCHES))
    assert set(need["vision"].products) == {(2 * 37, 64, n) for n in (64, 192, 256)} | {(2 * 37, 256, 64)}
    queries, seen, crossing = 12, 37, 3
    own = 2 * queries * (4 * 64**2 + 2 * 64 * 256) + 4 * queries**2 * 64
    cross = 2 * queries * 2 * 64**2 + 2 * seen * 2 * 64**2 + 4 * queries * seen * 64
    assert need["bridge"].flops == pytest.approx(IMAGES * 16 * (6 * own + crossing * cross))


def test_questions_of_a_picture_share_what_they_begin_with() -> None:
    """Ten tokens of each of two pictures, then 1 2, 3 and 4 of the first, and 1 2 3 of the second."""
    found = read_prompts(["a", "a", "b"], [[1, 2, 3], [1, 2, 4], [1, 2, 3]], 10)
    assert found.distinct == 2 * 10 + 4 + 3
    assert found.pairs == 2 * 55 + (11 + 12 + 13 + 13) + (11 + 12 + 13)
    assert (found.last_pairs, found.lengths) == (39, [13, 13, 13])


def test_the_language_model_is_counted_as_its_shapes_say(tiny: Model) -> None:
    """Two cells of two captions: a BOS behind 12 queries, references of 3 and 5 tokens with their ends, texts of 2 and 4."""
    prompts = read_prompts(["a", "b"], [[2], [2]], 12)
    need = arithmetic.language(tiny, prompts, [3, 5], [[2, 4], [2, 4]], 2, Batches(2, 8))
    words, read, last = tiny.config["text_config"]["vocab_size"], 2 * 13, 2
    of_last = read * 2 * 64**2 + last * (OPT - 2 * 64**2)
    begin = 2 * (5 * read * OPT + of_last + 2 * 12 * 64**2)
    looked = 4 * 64 * (5 * 2 * (13 * 14 // 2) + 2 * 13)
    assert need["begin"].flops == 2 * (begin + looked)
    pairs = (14 + 15) + (14 + 15 + 16 + 17)
    assert need["likelihood"].flops == 2 * (2 * 6 * (6 * OPT + 64 * words) + 4 * 64 * 6 * pairs)
    pairs = 14 + (14 + 15 + 16)
    assert need["greedy"].flops == 2 * (2 * 4 * 6 * OPT + 2 * 6 * 64 * words + 4 * 64 * 6 * pairs)
    assert need["greedy"].moved == 2 * 4 * (3 * 6 * OPT + pairs * 6 * 2 * 64)  # three steps, and keys and values


def test_a_layer_is_quantized_once_for_each_of_its_schemes(tiny: Model, tmp_path: Path) -> None:
    need = arithmetic.quantizing(
        tiny, plan_of(tiny, grids.card()[3:6], tmp_path)
    )  # 2, 4 and 8 bits of the language model
    assert need.moved == 2 * 4 * 3 * 6 * OPT
    assert need.flops == 0


def test_a_floor_is_products_at_their_rates_or_bytes() -> None:
    measured = Rates({(1, 2, 3): 10.0, (4, 2, 3): 40.0}, memory=5.0)
    need = Need()
    need.add(1, 2, 3, tokens=10)
    need.add(4, 2, 3, tokens=20)
    need.attention = 80.0
    assert measured.floor(need) == 120 / 10 + 240 / 40 + 80 / 40
    assert measured.bound_by(need) == "products"
    need.moved = 500.0
    assert (measured.floor(need), measured.bound_by(need)) == (100.0, "memory")


def test_rates_are_those_of_products_and_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks at each look: a round of one call takes a second, whatever is computed."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(rates, "COPIED", 2**10)
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    found = rates.rates([(4, 8, 16)], "cpu", "float32", threads=1)
    assert found == Rates({(4, 8, 16): 2 * 4 * 8 * 16}, 2 * 2**10)
