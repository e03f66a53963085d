"""The sentences of a report against planted truth, what to run next, and reports of ledgers that are hard to report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import load_draws
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.commands.rescore import rescore
from blip2sweep.commands.suggest import run_suggest
from blip2sweep.errors import UserError
from blip2sweep.reporting import tracking
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.next_steps import next_steps, suggest_command
from blip2sweep.reporting.overview import overview
from blip2sweep.reporting.prediction_quality import model_quality
from blip2sweep.reporting.source import Source, load_source
from tests.command_line import blip2sweep, refused
from tests.composing import plan, recipes
from tests.synthetic import WEIGHTS, build, build_planned, damage, entry, whole
from tests.synthetic import source as synthetic_source

pytestmark = pytest.mark.thorough

PARTS = (["vit"], ["llm"], ["qformer"])
EVERY = (*PARTS, ["vit", "llm"], ["vit", "qformer"], ["qformer", "llm"], ["vit", "qformer", "llm"])
METHODS = {"rtn": (8, 6, 4, 3, 2), "gptq": (8, 4, 3, 2)}


def told(source: Source) -> list[str]:
    return overview(source, figures(source)).sentences


def opened(folder: Path, listed: Sequence[Sequence[dict[str, Any]]], **more: Any) -> Source:
    build(folder, listed, n=more.pop("n", 200), **more)
    return load_source(folder)


# ---- planted truth


@pytest.fixture(scope="module")
def two_methods(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """GPTQ is planted to be much better; RTN has one width more, so the page speaks of it first."""
    cells = [whole(p, b, m) for p in EVERY for m, widths in METHODS.items() for b in widths]
    return opened(tmp_path_factory.mktemp("two"), cells, jitter=0.02, values=lost)


def lost(listed: Sequence[dict[str, Any]]) -> float:
    weights = {p: w * (0.5 if listed[0]["method"] == "gptq" else 1) for p, w in WEIGHTS.items()}
    return damage(listed, weights)


def first_broken(method: str) -> int:
    """The widest width at which some cell of the method is planted to lose half."""
    return max((b for p in EVERY for b in METHODS[method] if lost(whole(p, b, method)) > 0.5), default=0)


def test_a_block_is_no_part(tmp_path: Path) -> None:
    """Cells of one block, and of all but one, say nothing of what their part tolerates."""
    one = [[entry(f"{p}:{b}:all", 3)] for p in ("vit", "llm") for b in range(3)]
    source = opened(tmp_path, [*one, [entry("vit:1-5:all", 3), *whole(["llm"], 3)]])
    breaks, matters, blocks, safe, _ = told(source)
    assert blocks.startswith("Quantized alone at 3 bits with rtn/channel, a block loses most CIDEr here: ")
    assert breaks.startswith("No whole part was run at one width")
    assert matters.startswith("No whole part was compressed alone")
    assert safe.startswith("No width that was run is shown to be safe")
    drawn = {f.name: f.data for f in figures(source)}
    assert not drawn["dropoff"]["headline"].any()
    assert drawn["map"].empty


def test_layers_that_were_left_out_of_a_part_are_told(tmp_path: Path) -> None:
    source = opened(tmp_path, [[entry("vit:all:mlp", b)] for b in (8, 4)])
    assert "Compressed were only: of vit the mlp." in told(source)[0]


def test_where_it_breaks_is_told_for_each_method(two_methods: Source) -> None:
    breaks = told(two_methods)[0]
    rtn, gptq = first_broken("rtn"), first_broken("gptq")
    assert rtn > gptq > 0  # else the planted truth could not tell them apart
    assert breaks.startswith(f"With rtn/channel it breaks at {rtn} bits: ")
    assert f"With gptq/channel it breaks at {gptq} bits: " in breaks
    kept = 100 * (1 - max(damage(whole(p, rtn), WEIGHTS) for p in EVERY))
    assert float(re.findall(r"keeps (\d+) %", breaks)[0]) == pytest.approx(kept, abs=3)
    alone = dict(re.findall(r"(vit|llm|qformer) at (\d) bits", breaks.partition("Alone")[2]))
    assert alone == {p[0]: str(max(b for b in (4, 3, 2) if damage(whole(p, b), WEIGHTS) > 0.5))
                     for p in PARTS if damage(whole(p, 2), WEIGHTS) > 0.5}  # fmt: skip


def test_what_is_safe_is_told_for_each_method(two_methods: Source) -> None:
    safe = told(two_methods)[2]
    for method in METHODS:
        clause = safe.partition(f"with {method}/channel ")[2].partition(";")[0]
        for part in PARTS:
            lowest = int(re.findall(rf"(?:^|, ){part[0]} down to (\d)", clause)[0])
            assert lost(whole(part, lowest, method)) < 0.02
            narrower = [b for b in METHODS[method] if b < lowest]
            assert not narrower or lost(whole(part, narrower[0], method)) > 0.005


def test_what_matters_is_of_one_method_and_width(two_methods: Source) -> None:
    matters = told(two_methods)[1]
    width = int(re.findall(r"With rtn/channel at (\d) bits the drop of", matters)[0])
    total = float(re.findall(r"the drop of ([\d.]+)", matters)[0])
    shares = {p: float(v) for p, v in re.findall(r"(vit|llm|qformer) (-?[\d.]+) \[", matters)}
    base = float(two_methods.cells.loc[two_methods.cells["part"] == "none", "cider"].iloc[0])
    assert sum(shares.values()) == pytest.approx(total, abs=0.005)
    assert total == pytest.approx(base * damage(whole(EVERY[-1], width), WEIGHTS), abs=0.03)
    assert list(shares) == sorted(shares, key=lambda p: -shares[p])


def test_without_a_drop_nothing_matters(tmp_path: Path) -> None:
    """All drops exactly 0."""
    cells = [whole(p, b) for p in EVERY for b in (8, 4)]
    source = opened(tmp_path, cells, values=lambda e: 0.0, jitter=0.0)
    assert (source.cells["drop_cider"] == 0).all()
    breaks, matters, safe, _ = told(source)
    assert breaks == "With rtn/channel nothing that was run breaks the model: every cell keeps at least 100 % of CIDEr."
    assert "lose no CIDEr" in matters
    assert "vit down to 4 bits" in safe
    single = opened(tmp_path / "single", [whole(p, 4) for p in PARTS], values=lambda e: 0.0, jitter=0.0)
    assert "no part alone loses any CIDEr" in told(single)[1]


def test_a_broken_cell_has_its_interval(two_methods: Source) -> None:
    """A number without one would be read as exact."""
    for kept, low, high in re.findall(r"keeps (\d+) % \[(-?\d+), (\d+)\] of CIDEr", told(two_methods)[0]):
        assert int(low) <= int(kept) <= int(high)
        break
    else:
        raise AssertionError(told(two_methods)[0])


def test_parts_are_compared_at_one_width(tmp_path: Path) -> None:
    """At 2 bits only the Q-Former was run, and it loses more there than any part at 4: that says nothing of the parts."""
    drops = {("vit", 4): 0.3, ("llm", 4): 0.1, ("qformer", 4): 0.05, ("qformer", 2): 0.6}

    def planted(listed: Sequence[dict[str, Any]]) -> float:
        return drops[listed[0]["target"].split(":")[0], listed[0]["bits"]]

    source = opened(tmp_path / "a", [whole([p], b) for p, b in drops], values=planted, jitter=0.01)
    matters = told(source)[1]
    assert matters.startswith("With rtn/channel, of the parts alone at 4 bits, vit costs most: vit 0.3")
    assert re.search(r"vit \S+ \[\S+, \S+\] CIDEr, llm \S+ \[\S+, \S+\] CIDEr, qformer", matters)
    listed = [whole(["vit"], 4), whole(["qformer"], 2)]
    apart = opened(tmp_path / "b", listed, values=planted, jitter=0.01)
    assert "no two parts were run alone at one width" in told(apart)[1]
    one = opened(tmp_path / "c", listed[:1], values=planted, jitter=0.01)
    assert re.search(r"only vit was compressed alone; at 4 bits its drop is 0\.3\d+ \[", told(one)[1])


# ---- a likelihood is no accuracy


def of_likelihood(folder: Path, listed: Sequence[Sequence[dict[str, Any]]], **more: Any) -> Source:
    """The rows of a task that has references to measure and nothing else: NLL is the main metric."""
    build(folder, listed, n=150, **more)
    for path in (folder / "scores").glob("*.npz"):
        with np.load(path) as stored:
            kept = {k: v for k, v in stored.items() if "cider" not in k}
        np.savez(path, **kept)
    table = pd.read_parquet(folder / "table.parquet")
    cells = comparable(table[[c for c in table if "cider" not in c]])
    assert main_metric(cells) == "nll"
    draws = load_draws(folder, cells, "nll")
    return Source(folder, "planted", folder / "sweeps/planted", table, cells, "nll", draws, "-m planted=true")


BACKWARDS = ("keeps", "kept", "drop", "loses", "most NLL", "costs most", "Gain in")


def test_sentences_of_a_likelihood_say_that_it_rises(tmp_path: Path) -> None:
    """The planted NLL of a cell is 1 + 2 × the share lost, so all parts at 2 bits have about 2.8 times the baseline's."""
    source = of_likelihood(tmp_path / "a", [whole(p, b) for p in EVERY for b in (8, 4, 2)], jitter=0.02)
    lines = told(source)
    assert re.match(
        r"With rtn/channel it breaks at \d bits: .* raises NLL to \d{3} % \[\d{3}, \d{3}\] of the baseline \(higher is worse\)\.",
        lines[0],
    )
    assert "Alone, a part raises NLL by half: " in lines[0]
    assert re.search(r"the rise of NLL by \d\.\d+ nats a token is shared out as", lines[1])
    text = " ".join([*lines[:3], *(f.caption for f in figures(source) if f.name != "blocks")])
    assert [w for w in BACKWARDS if w in text] == []
    assert "The least NLL at a size" in text
    curves = next(f for f in figures(source) if f.name == "dropoff").data
    assert (curves["retained"] - 100 * curves["value"] / curves["baseline"]).abs().max() < 1e-6
    assert (curves["retained_low"] <= curves["retained"]).all()
    assert (curves["retained"] <= curves["retained_high"]).all()


def test_a_likelihood_that_nothing_breaks(tmp_path: Path) -> None:
    source = of_likelihood(tmp_path, [whole([p], b) for p in ("vit", "llm") for b in (8, 6)], jitter=0.02)
    lines = told(source)
    assert re.search(
        r"nothing that was run breaks the model: no cell raises NLL above 1\d\d % of the baseline\.", lines[0]
    )
    assert re.search(
        r"of the parts alone at \d bits, vit raises NLL most: vit \S+ \[\S+, \S+\] nats a token, llm", lines[1]
    )
    assert [w for w in BACKWARDS if w in " ".join(lines[:3])] == []


# ---- what to run next


def test_a_gap_in_a_sequence_is_filled_first_and_its_command_does_it(tmp_path: Path) -> None:
    """ViT is safe at 8 bits and not at 4; the LLM is safe down to 4."""
    drops = {("vit", 4): 0.3}

    def planted(listed: Sequence[dict[str, Any]]) -> float:
        return drops.get((listed[0]["target"].split(":")[0], listed[0]["bits"]), 0.0)

    more = {"strategy": "group", "group_size": 32, "symmetric": True}
    listed = [[{**whole([p], b)[0], **more}] for p in ("vit", "llm") for b in (8, 4)]
    source = opened(tmp_path, listed, values=planted, jitter=0.01)
    steps = next_steps(source)
    assert [(s.parts, s.widths, s.why) for s in steps] == [
        (("vit",), (6, 5), "between 8 bits, safe, and 4, not shown to be"),
        (("llm",), (3,), "4 bits are still safe"),
    ]
    assert steps[0].command is not None
    words = shlex.split(steps[0].command)
    assert words[:4] == ["python", "-m", "blip2sweep", "-m"]
    planned = recipes(*words[4:], "task.limit=4")
    assert planned == ["vit:all:all=rtn6/group32/sym", "vit:all:all=rtn5/group32/sym"]
    assert (
        f"vit at 6, 5 bits with rtn/group32/sym (between 8 bits, safe, and 4, not shown to be), 2 cells: {steps[0].command}"
        in told(source)[3]
    )


def test_the_command_for_more_cells_takes_the_same_cells(tmp_path: Path) -> None:
    """Of a ledger of two tasks: without --task the verb would refuse them."""
    out = tmp_path / "outputs"
    for task in ("one", "two"):
        build(
            out, [whole(p, b) for p in PARTS for b in (8, 4, 3)], name=task, made_from=synthetic_source(task=task), n=40
        )
    source = load_source(out, all_cells=True, only={"model": None, "task": "one", "dtype": "float32"})
    command = suggest_command(source)
    assert command == f"blip2sweep suggest --all --task one --only dtype=float32 --output-dir {out}"
    assert blip2sweep(*shlex.split(command)[1:], "-n", "1", cwd=tmp_path).code == 0


def test_parts_in_the_same_state_share_a_command_and_say_their_layers(tmp_path: Path) -> None:
    listed = [[entry(f"{p}:all:mlp", b)] for p in ("vit", "llm") for b in (8,)]
    steps = next_steps(opened(tmp_path, listed, values=lambda e: 0.0, jitter=0.01))
    assert [s.parts for s in steps] == [("llm", "vit")]
    assert steps[0].command is not None
    planned = recipes(*shlex.split(steps[0].command)[4:], "task.limit=4")
    assert sorted(planned) == ["llm:all:mlp=rtn6/channel", "vit:all:mlp=rtn6/channel"]


def test_with_the_baseline_alone_the_first_sweep_is_named(tmp_path: Path) -> None:
    source = opened(tmp_path, [])
    assert "part=vit,qformer,llm,all quant.bits=2,3,4,6,8" in told(source)[3]


# ---- hard to report


def report(source: Source) -> str:
    from blip2sweep.reporting.html import page

    return page(source, figures(source))


def test_few_cells_of_each_method_have_a_report_and_no_prediction(tmp_path: Path) -> None:
    source = opened(tmp_path, [whole(p, 4, m) for p in PARTS for m in ("rtn", "gptq", "mse", "awq", "minmax")])
    assert len(source.cells) == 16
    assert model_quality(source) is None
    assert re.search(r"[Ww]ith rtn/channel", report(source))
    lines = run_recommend(source, Budget("1.6MB", None), tmp_path / "r.yaml", verify=False)
    assert any(x.startswith("measured, cell ") for x in lines)  # the best of what was run needs no fit
    assert any(x.startswith("only measured cells competed: too few cells to predict others: 3 of ") for x in lines)
    with pytest.raises(UserError, match="too few cells to predict others: 3 of "):
        run_suggest(source, 3, None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_cell_without_a_number_in_the_fitted_method_stops_nothing(tmp_path: Path) -> None:
    listed = [whole(p, b) for p in EVERY for b in (8, 4, 3)]
    source = opened(tmp_path, listed, nan=lambda e: e == listed[4])
    assert source.cells["cider"].isna().sum() == 1
    assert "nan" not in " ".join(told(source)).lower()
    assert "mean absolute error in CIDEr (5-fold): model " in str(model_quality(source))
    assert "With rtn/channel" in report(source)
    assert any("wrote" in line for line in run_recommend(source, Budget(None, "5%"), tmp_path / "r.yaml", verify=False))
    assert len(run_suggest(source, 2, tmp_path / "suggested")) == 4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_baseline_of_zero_is_said(tmp_path: Path) -> None:
    source = opened(tmp_path, [whole(p, b) for p in EVERY for b in (8, 4)], scale=0.0)
    assert told(source) == [
        "The baseline's CIDEr is 0: there is nothing to lose, and no drop means anything (blip2sweep doctor)."
    ]
    assert "there is nothing to lose" in report(source)
    with pytest.raises(UserError, match="the baseline's cider is 0"):
        run_suggest(source, 3, None)


def test_a_report_sees_cells_that_finished_later(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)], n=40)
    assert len(load_source(tmp_path, "planted").cells) == 2
    build(tmp_path, [whole(["vit"], 4), whole(["llm"], 4)], n=40, collected=False)
    assert len(load_source(tmp_path, "planted").cells) == 3
    assert len(load_source(tmp_path, all_cells=True).cells) == 3


def test_rescoring_renews_the_tables_of_sweeps(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)], n=40)
    build(tmp_path, [whole(["vit"], 4), whole(["llm"], 4)], n=40, collected=False)
    rescore(tmp_path)
    assert len(pd.read_parquet(tmp_path / "sweeps/planted/table.parquet")) == 3


def test_an_empty_folder_stays_empty(tmp_path: Path) -> None:
    refused(blip2sweep("report", "--all", cwd=tmp_path), "the ledger has no rows yet")
    assert list(tmp_path.iterdir()) == []


def test_results_that_may_not_be_written_to_are_reported_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's folder (root may write anywhere, so the refusal is played)."""
    build(tmp_path, [whole(["vit"], 4)], n=40)

    def denied(*rest: object) -> None:
        raise UserError("cannot be written") from PermissionError(13, "Permission denied")

    monkeypatch.setattr("blip2sweep.reporting.source.collect", denied)
    assert len(load_source(tmp_path).cells) == 2


def test_a_report_that_cannot_be_drawn_does_not_stop_tracking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, [whole(["vit"], 4)], n=40)

    def broken(*rest: object) -> None:
        raise IndexError("no such point")

    monkeypatch.setattr("blip2sweep.reporting.html.build_report", broken)
    told = tracking._sent_page(None, None, load_source(tmp_path), "report")
    assert told == {"report": "no page: IndexError: no such point"}
    assert "no report was sent: IndexError: no such point" in capsys.readouterr().err


# ---- recommending and running it


def test_a_limit_that_is_not_kept_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(tmp_path, [whole(p, b) for p in PARTS for b in (8, 4, 3)])
    monkeypatch.setattr("blip2sweep.analysis.holdout.Half.lost", lambda *rest: 0.4)
    # Of this size there is no cell: those of one part are larger, and so is the baseline, which keeps any limit.
    lines = run_recommend(source, Budget("1.1MB", "1%"), tmp_path / "r.yaml", verify=False)
    assert any(x.startswith("the limit of 1.0% is NOT kept: 40.0% is the least loss") for x in lines)


def test_a_cell_of_another_sweep_is_recommended_as_measured(tmp_path: Path) -> None:
    """The same baseline, another sweep: it was run, so it competes, and the output says what it is."""
    build(tmp_path, [whole(p, b) for p in PARTS for b in (8, 4, 3)], name="parts")
    build(tmp_path, [whole(EVERY[-1], b) for b in (4, 3)], name="joint")
    source = load_source(tmp_path, "parts")
    assert len(source.cells) == 10
    lines = run_recommend(source, Budget("640kB", None), tmp_path / "r.yaml", verify=False)
    told = next(x for x in lines if x.startswith("measured, cell "))
    key = source.measured[0].query("parts == 'vit+qformer+llm' and width == 4")["key"].iloc[0]
    assert re.match(
        rf"measured, cell {key}: CIDEr \d.\d+, drop \d.\d+ \[.*\] \(baseline .*that did not choose it", told
    )
    assert "parts, 10 cells, and 2 cells of other sweeps with the same baseline" in (tmp_path / "r.yaml").read_text()


def test_a_recommendation_that_was_not_run_says_how_sure_it_is(tmp_path: Path) -> None:
    source = opened(tmp_path, [whole(p, b) for p in PARTS for b in (8, 4, 3)])
    lines = run_recommend(source, Budget("1MB", None), tmp_path / "r.yaml", verify=False)
    told = next(x for x in lines if x.startswith("predicted, not measured: "))
    value, low, high = map(float, re.findall(r"CIDEr (\S+), 90% prediction interval \[(\S+), (\S+)\]", told)[0])
    assert 0 < low < value < high
    assert "the half of the images that did not choose it" in told


def test_a_calibrated_recommendation_is_verified_as_its_cells_were_run(tmp_path: Path) -> None:
    """End to end on the tiny model: a sweep, a recommendation from it, its run, its row."""
    words = ["-m", "task.limit=6", "generation=greedy", "part=vit,llm", "quant=gptq", "quant.bits=3,4,8",
             "calibration.n_samples=4,5", "calibration.seed=1", "sweep_name=mine"]  # fmt: skip
    ran = blip2sweep(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    ran = blip2sweep("recommend", "mine", "--max-bytes", "2.5MB", "--verify", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "verified: cider" in ran.out
    folder = next((tmp_path / "outputs/sweeps").glob("verify-*"))
    row = pd.read_parquet(folder / "table.parquet").query("part != 'none'").iloc[0]
    assert (row["calibration_seed"], row["samples"], row["method"]) == (1, 6, "gptq")
    told = re.search(r"calibration.n_samples=(\d)", ran.out)
    assert told is not None
    assert row["calibration_samples"] == int(told[1])
    mine = pd.read_parquet(tmp_path / "outputs/sweeps/mine/table.parquet")
    assert set(mine["data"]) == {row["data"]}
    assert set(mine["generation"]) == {row["generation"]}


def test_nothing_to_verify_where_nothing_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(tmp_path, [whole(p, b) for p in PARTS for b in (3, 2)], values=lambda e: 0.95, jitter=0.01)
    lines = run_recommend(source, Budget(None, "0.1%"), tmp_path / "r.yaml", verify=True)
    assert "nothing is compressed" in lines
    assert lines[-1] == "nothing to run: it is the baseline"


def test_what_a_sweep_varied_is_not_guessed(tmp_path: Path) -> None:
    """Of several models and limits the row's own; of several generations nobody knows."""
    from blip2sweep.reporting.rerun import context

    build(tmp_path, [whole(p, b) for p in PARTS for b in (8, 4)])
    source = load_source(tmp_path)
    row = source.cells.iloc[1].to_dict()
    source.command = (
        "--config-dir site -m model=tiny,other task.limit=100,200 quant.bits=2,3 tracking=wandb calibration.seed=0,1"
    )
    assert context(source, [], row) == [
        "--config-dir", "site", "model=tiny", "task.limit=200", "tracking=wandb", f"output_dir={tmp_path}"
    ]  # fmt: skip
    assert np.isnan(row["seed"])
    source.command = "-m recover=none,lora recover.n_samples=64 recover.rank=4,8"
    trained = [{"step": "recover", "target": "llm:all:all", "method": "lora"}]
    assert context(source, [trained], row) == ["recover.n_samples=64", f"output_dir={tmp_path}"]
    assert context(source, [], row) == [f"output_dir={tmp_path}"]
    source.command = "-m generation=greedy,paper"
    with pytest.raises(UserError, match="the sweep varied generation=greedy,paper"):
        context(source, [], row)
    lines = run_recommend(source, Budget(None, "50%"), tmp_path / "r.yaml", verify=False)
    assert any(x.startswith("run it with recipe_file=") for x in lines)


def test_the_next_cells_of_a_calibrated_method_are_run_with_its_samples_and_seeds(tmp_path: Path) -> None:
    words = (
        "part=llm",
        "quant=gptq",
        "quant.bits=8,3",
        "calibration.seed=0,3",
        "calibration.n_samples=5",
        "task.limit=4",
    )
    build_planned(tmp_path, plan(*words).cells.values(), lambda job: 0.3 * (job["recipe"][0]["bits"] == 3), n=200)
    steps = next_steps(load_source(tmp_path))
    assert [(s.parts, s.widths) for s in steps] == [(("llm",), (6, 5, 4))]
    assert steps[0].command is not None
    planned = plan(*shlex.split(steps[0].command)[4:], "task.limit=4").cells.values()
    found = {(c.calibration.seed, c.calibration.n_samples) for c in planned if c.calibration}
    assert found == {(0, 5), (3, 5)}
    assert len(planned) == 1 + 3 * 2
