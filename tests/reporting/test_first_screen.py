"""A report's first screen and `recommend` say one thing: the same recipe, the same ratio, one claim about safety."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.analysis.prices import HERE
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import page
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.narrower import narrower
from blip2sweep.reporting.next_steps import next_steps
from blip2sweep.reporting.overview import Overview, overview
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.smaller import ratio_text, smaller
from blip2sweep.reporting.source import Source, load_source
from tests.synthetic import build, whole

PARTS = ("vit", "qformer", "llm")
LOST = {8: 0.0, 4: 0.05, 2: 0.9}


def lost(listed: Any) -> float:
    return 0.12 if {e["bits"] for e in listed} == {3} else LOST[max(e["bits"] for e in listed)]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three parts at three widths, all of them together once, a stray, on 60 images."""
    listed = [whole([p], b) for p in PARTS for b in (8, 4, 2)] + [whole(PARTS, 4), whole(["qformer"], 3)]
    strays = [whole(["llm"], 8, m) for m in ("gptq", "awq", "mse")]
    folder = tmp_path_factory.mktemp("few")
    build(folder, [*listed, *strays], n=60, values=lost, jitter=0.3)
    return load_source(folder, all_cells=True)


@pytest.fixture(scope="module")
def head(few: Source) -> Overview:
    return overview(few, figures(few))


def test_the_next_step_is_from_the_recipe_that_the_cards_name(few: Source, head: Overview) -> None:
    key = few.cells.query("parts == 'vit+qformer+llm'")["key"].iloc[0]
    assert head.answers[2].text.startswith("vit, qformer and llm at 4 bits: ")
    told = head.sentences[1]
    assert f"At vit 4, qformer 4 and llm 4 bits (cell {key}): no narrower step is advised yet, for none was run" in told
    assert "to be run first: vit 4 → 2 bits, qformer 4 → 3 bits, llm 4 → 2 bits" in told
    assert "next: " not in told


def test_recommend_advises_from_its_own_recipe_alone(few: Source, tmp_path: Path) -> None:
    said = run_recommend(few, Budget(None, "20%"), tmp_path / "r.yaml", verify=False)
    assert not any("of these, narrow" in line for line in said)
    assert any("no narrower step is advised yet" in line for line in said)


def steps(*drops: float) -> pd.DataFrame:
    """Narrower steps to cells that lose these shares of a baseline of 2; NaN: not run."""
    rows = [{"kind": HERE, "part": p, "step": "narrower", "now": 8.0, "to": 4.0, "lost": d, "low": d / 2, "high": 2 * d,
             "saved_bytes": 1e6, "value": 2 - 2 * d} for p, d in zip(PARTS, drops, strict=False)]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("drops", "limit", "told"), [
    ((0.04, 0.01), 0.05, "of these, narrow qformer from 8 to 4 bits next"),
    ((0.04, 0.01), None, "of these, narrow qformer from 8 to 4 bits next"),
    ((0.04, 0.03), None, "no narrower step is advised, for each that was run loses more than 2 % of CIDEr"),
    ((0.01,), 0.05, "no narrower step is advised yet, for only one was run from this recipe"),
    ((0.01, float("nan")), 0.05, "only one was run from this recipe; to be run first: qformer 8 → 4 bits"),
])  # fmt: skip
def test_a_step_is_advised_where_two_compare_and_within_the_limit(
    drops: tuple[float, ...], limit: float | None, told: str
) -> None:
    assert told in narrower(steps(*drops), 2.0, metric_text("cider"), Sizes(7e9), limit)


def test_too_few_images_are_mended_first(few: Source, head: Overview) -> None:
    found = next_steps(few)
    assert {s.images for s in found} == {185}
    for step in found:
        assert step.command is not None
        assert [w for w in shlex.split(step.command) if w.startswith("task.limit=")] == ["task.limit=185"]
    told = head.sentences[-1]
    which = "vit + qformer + llm at 8, 6, 5, 4 bits on at least 185 images with rtn/channel"
    assert told.startswith(f"Run next: {which} (60 images can show no width to be safe), 4 cells: python -m ")


def test_the_limit_of_the_sweep_is_raised(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)], n=60, values=lost, jitter=0.3)
    source = load_source(tmp_path)
    source.command = "-m task.limit=60 part=vit quant.bits=4"
    (step,) = next_steps(source)
    assert step.command is not None
    assert "task.limit=60" not in step.command
    assert step.widths == (8, 6, 5, 4)
    assert step.command.endswith("task.limit=185 part=vit quant=rtn quant.bits=8,6,5,4")


def test_one_ratio_everywhere(few: Source, head: Overview) -> None:
    row = few.cells.query("parts == 'vit+qformer+llm'").iloc[0]
    ratio = f"{row['compression_ratio']:.1f} times smaller than at 16 bits"
    assert head.answers[2].short.startswith(ratio)
    assert ratio in head.answers[2].text
    shown = page(few, figures(few))
    assert all(name.startswith((" than at 16 bits", " than as it is loaded")) for name in
               re.findall(r"times smaller([^<]{30})", shown))  # fmt: skip


def test_a_ratio_below_one_is_larger() -> None:
    assert smaller(0.71) == "larger than at 16 bits"
    assert smaller(1.001) == "as large as at 16 bits"
    assert smaller(2.507) == "2.5 times smaller than at 16 bits"
    assert smaller(float("nan")) == ""
    assert (ratio_text(0.71), ratio_text(2.507)) == ("0.71 (larger than at 16 bits)", "2.51")


def test_one_claim_about_safety_and_a_reason_for_the_parts(head: Overview) -> None:
    what, far, cost = head.answers
    assert what.short == "Tried alone: llm, qformer and vit"
    assert [("safe" in a.short) for a in (what, far, cost)] == [False, True, False]
    assert re.search(r"keeps \d+\s% \[\d+, \d+\] of CIDEr", cost.short)
    assert "These are the most parts that were run together." in far.text
    assert far.text.endswith("With rtn/channel, which of the 4 methods that were run compresses furthest.")


def test_of_equal_parts_the_one_that_saves_most_is_spoken_of(tmp_path: Path) -> None:
    build(tmp_path, [whole([p], 8) for p in PARTS], n=200, values=lambda e: 0.0, jitter=0.001)
    source = load_source(tmp_path)
    _, far, cost = overview(source, figures(source)).answers
    smallest = source.cells.sort_values("model_bytes").iloc[0]["parts"]
    assert cost.text.startswith(f"{smallest} at 8 bits: ")
    assert "Of the parts alone it saves most." in far.text


def test_settings_of_one_sentence_are_joined(head: Overview) -> None:
    told = head.sentences[0]
    assert re.search(r" With awq/channel, gptq/channel and mse/channel nothing that was run breaks|; with ", told), told
    assert "; With " not in told


def test_a_page_of_all_sweeps_does_not_send_to_itself(few: Source) -> None:
    made = figures(few)
    assert any(f.empty for f in made)
    assert "Not in any sweep shown here." in page(few, made)
    assert "shows all sweeps together" not in page(few, made)
