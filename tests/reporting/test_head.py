"""The head of a report: answers to three questions, worst blocks, what the ledger has already, commands in boxes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.reporting.answer import COST, HOW_FAR, WHAT
from blip2sweep.reporting.boxes import boxed, portable, where_to_run
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import page
from blip2sweep.reporting.next_steps import next_steps
from blip2sweep.reporting.overview import Overview, overview
from blip2sweep.reporting.source import load_source
from tests.synthetic import build, entry, whole

PARTS = (["vit"], ["qformer"], ["llm"], ["vit", "qformer", "llm"])
DROPS = {("vit", 4): 0.3, ("vit", 3): 0.6, ("llm", 3): 0.1}


def lost(listed: Any) -> float:
    """What is planted for the widest loser among the entries; blocks alone lose 0.02 times their number."""
    places = [e["target"].split(":") for e in listed]
    if places[0][1] != "all":
        return 0.02 * int(places[0][1])
    return max(DROPS.get((p[0], e["bits"]), 0.0) for p, e in zip(places, listed, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("head")
    listed = [whole(p, b) for p in PARTS for b in (8, 4, 3)]
    build(out, [*listed, *([entry(f"vit:{i}:all", 3)] for i in range(6))], values=lost, jitter=0.01)
    return out


@pytest.fixture(scope="module")
def head(folder: Path) -> Overview:
    found = load_source(folder)
    return overview(found, figures(found))


def test_the_three_questions_are_answered_from_what_was_planted(head: Overview) -> None:
    what, far, cost = head.answers
    assert [a.question for a in head.answers] == [WHAT, HOW_FAR, COST]
    assert what.short == "qformer, llm and vit, each alone"
    assert "qformer down to 3 bits, llm down to 4 bits, vit down to 8 bits" in what.text
    assert re.search(r"Spare vit block 5: alone at 3 bits it loses 0\.1\d\d \[", what.text)
    assert far.short == "Down to 8 bits"
    assert re.search(r"At 4 bits it keeps 70\.0\s% .*; at 3 bits it keeps 40\.0\s% .* and is broken\.", far.text)
    assert far.text.endswith("With rtn/channel.")
    assert cost.short.replace("\N{NO-BREAK SPACE}", " ") == "1.9 times smaller than at 16 bits, keeps 100 % of CIDEr"
    assert "One step further, at 4 bits: " in cost.text


def test_worst_blocks_have_bands_that_hold_over_all_of_them(folder: Path, head: Overview) -> None:
    found = load_source(folder)
    blocks = next(f.data for f in figures(found) if f.name == "blocks").set_index("first")
    sentence = next(s for s in head.sentences if s.startswith("Quantized alone"))
    assert re.findall(r"vit block (\d)", sentence) == ["5", "4", "3"]
    worst = blocks.loc[5]
    assert f"vit block 5 {worst['effect']:.3f} [{worst['band_low']:.3f}, {worst['band_high']:.3f}]" in sentence
    assert worst["band_low"] < worst["low"]
    assert f"bands over all 6 together; {int((blocks['band_low'] > 0).sum())} of them lie above 0" in sentence


def test_where_all_parts_together_are_not_safe_the_most_that_are_answer(tmp_path: Path) -> None:
    """Of the Q-Former only its attention was compressed, and vision loses at every width."""
    unions = (["qformer"], ["llm"], ["vit"], ["qformer", "llm"], ["vit", "qformer", "llm"])
    listed = [
        [entry(f"{p}:all:{'attention' if p == 'qformer' else 'all'}", b) for p in u] for u in unions for b in (16, 8, 4)
    ]
    build(tmp_path, listed, values=lambda e: 0.4 * any(x["target"].startswith("vit") for x in e), jitter=0.01)
    found = load_source(tmp_path)
    what, far, cost = overview(found, figures(found)).answers
    assert what.short == "llm and qformer, each alone"
    assert "Shown at no width that was run: vit." in what.text
    assert "Compressed were only: of qformer the attention." in what.text
    assert far.text.startswith(
        "qformer and llm together, with less than 2% lost on 200 images. vit, qformer and llm together: shown at no"
    )
    assert cost.text.startswith("qformer and llm at 4 bits: ")


def test_without_a_baseline_above_zero_nothing_is_answered(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)], scale=0.0)
    found = load_source(tmp_path)
    assert overview(found, figures(found)).answers == []
    assert '<div class="answers"></div>' in page(found, figures(found))


def test_blocks_alone_are_answered_by_what_ships_or_loses_least(tmp_path: Path) -> None:
    build(tmp_path, [[entry(f"vit:{i}:all", 3)] for i in (1, 4)], values=lost, jitter=0.01)
    found = load_source(tmp_path)
    what, far, cost = overview(found, figures(found)).answers
    assert what.short == "vit:1:all=rtn3/channel"
    assert far.text == "With vit:1:all=rtn3/channel."
    assert cost.short.startswith("A drop of 0.0")


# ---- what the ledger has


def test_next_cells_that_other_sweeps_ran_are_counted(tmp_path: Path) -> None:
    build(tmp_path, [whole(p, b) for p in PARTS[:1] for b in (8, 4)], name="first", values=lost, jitter=0.01)
    build(tmp_path, [whole(["vit"], 6)], name="second", values=lost, jitter=0.01)
    found = load_source(tmp_path, "first")
    (step,) = next_steps(found)
    assert (step.widths, step.cells, step.there) == ((6, 5), 2, 1)
    assert (
        "2 cells, 1 of which the ledger has already: python -m blip2sweep -m "
        in overview(found, figures(found)).sentences[-1]
    )
    build(tmp_path, [whole(["vit"], 5)], name="third", values=lost, jitter=0.01)
    (step,) = next_steps(load_source(tmp_path, "first"))
    assert step.known
    assert step.command == f"blip2sweep report --all --output-dir {tmp_path}"


def test_cells_of_this_sweep_alone_are_not_counted_as_there(folder: Path) -> None:
    steps = [s for s in next_steps(load_source(folder)) if s.parts]
    assert steps
    assert {s.there for s in steps} == {0}


# ---- commands


@pytest.mark.parametrize(("typed", "shown"), [
    ("-m output_dir=/a/b/outputs part=vit", "-m output_dir=outputs part=vit"),
    ("--config-dir /a/site model.path=/a/b/m,/c/m", "--config-dir ../site model.path=m,../../c/m"),
    ("'task.data_dir=/a/b c/coco' part=vit", "'task.data_dir=../b c/coco' part=vit"),
    ('"task.files={a: /a/c/x, b: \'/a/b c/y\'}"', """'task.files={a: ../c/x, b: '"'"'../b c/y'"'"'}'"""),
    ("an 'unpaired quote /a/b/x", "an 'unpaired quote x"),
    ("chat.system='say /think'", "chat.system='say /think'"),
    ("path=https://host/a/b", "path=https://host/a/b"),
    ("part=vit+llm quant.bits=2,3 sweep_name=and/or", "part=vit+llm quant.bits=2,3 sweep_name=and/or"),
])  # fmt: skip
def test_commands_have_no_absolute_paths(typed: str, shown: str) -> None:
    assert portable(typed, Path("/a/b/outputs")) == shown


def test_commands_are_for_the_current_folder_where_it_holds_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable(f"output_dir={tmp_path}/runs/outputs", Path("runs/outputs")) == "output_dir=runs/outputs"
    assert where_to_run(Path("runs/outputs")) == "Commands are run in the folder that holds runs/outputs."


def test_commands_of_a_text_stand_in_boxes_and_stay_text() -> None:
    made = boxed("Run <b>: python -m x 'a<b'; then y.", ["python -m x 'a<b'"], Path("outputs"))
    assert made.startswith('Run &lt;b&gt;: <span class="command"><code>python -m x &#x27;a&lt;b&#x27;</code><button ')
    assert made.endswith("</button></span>then y.")


@pytest.mark.thorough
def test_a_page_names_no_absolute_path_in_its_commands(folder: Path) -> None:
    found = replace(load_source(folder), command=f"-m part=vit quant.bits=4 output_dir={folder}")
    text = page(found, figures(found))
    commands = re.findall(r'<span class="command"><code>([^<]*)', text)
    assert len(commands) > 5
    assert not [c for c in commands if str(folder) in c]
    assert str(folder) not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
