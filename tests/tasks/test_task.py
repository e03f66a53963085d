"""Tasks from outside: requests of every type, from samples through predictions and statistics to the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import load_draws
from blip2sweep.analysis.main_metric import main_metric, metrics_of
from blip2sweep.backends.dummy import Dummy
from blip2sweep.config.standalone import compose_cell
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, Metric
from blip2sweep.metrics.statistics import add_metrics
from blip2sweep.models import architecture
from blip2sweep.planning.plan import PlannedJob, make_plan
from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.table_notes import notes
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions, stem, write_predictions
from blip2sweep.results.samples import SHOWN
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.tasks import load_task, planned_task
from blip2sweep.tasks.predictions import FIELDS, Predictions, columns_of
from blip2sweep.tasks.task import FORMATS, KINDS, task_of
from tests.checkpoints import conf
from tests.composing import composer
from tests.in_process import run
from tests.ledgers import jobs, launched, ran
from tests.params import quick
from tests.toy import task as toy
from tests.toy.task import COLORS, write

TOYS = {"toy_choose": "tests.toy.task", "toy_match": "tests.toy.matching"}
CONF = Path(__file__).parent.parent / "toy" / "conf"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toys as an installed package would bring them."""
    composer()  # before another one takes Hydra's place in this process
    monkeypatch.setitem(FORMATS, "toy", "tests.toy.task")
    monkeypatch.setattr(architecture, "WRITES", (*architecture.WRITES, "match"))  # as if tiny did what the dummy does
    for kind, module in TOYS.items():
        monkeypatch.setitem(KINDS, kind, module)
        add_metrics(task_of(kind).metrics())
    yield
    for kind in TOYS:
        for metric in task_of(kind).metrics():
            METRICS.pop(metric.name, None)


def cells(folder: Path, task: str, *words: str) -> list[dict[str, Any]]:
    """The jobs of one cell and its baseline, the baseline first."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    chosen = ["task=" + task, f"task.data_dir={write(data)}", "part=llm", "quant.bits=4", *words]
    plan = make_plan([PlannedJob((), compose_cell(chosen, CONF))], Ledger(folder).refresh())
    return sorted((c.job() for c in plan.cells.values()), key=lambda j: j["key"] != j["baseline"])


def scored(output_dir: Path, these: list[dict[str, Any]]) -> pd.DataFrame:
    """Run without a model, scored and collected: the table."""
    launched(output_dir, these)
    ran(output_dir, these)
    attempts = Ledger(output_dir).refresh().attempts
    for job in these:
        result = attempts[job["key"]].result
        assert result
        assert score_result(output_dir, stem(job["key"], result["predictions"]), Scorer(planned_task(job["task"])))
    return collect(output_dir)


@pytest.mark.parametrize(
    ("task", "metric", "columns"),
    [("toy", "toy_accuracy", ("choice", "option_nll")), ("toy_match", "toy_recall", ("scores",))],
)
def test_a_task_from_outside_reaches_the_table(
    tmp_path: Path, task: str, metric: str, columns: tuple[str, ...]
) -> None:
    these = cells(tmp_path, task)
    table = scored(tmp_path, these)
    said = [Dummy({})(j).predictions for j in these]
    right = [float(np.mean(s.choice == np.arange(6) % 3)) if s.choice else None for s in said]
    assert list(table["main_metric"]) == [metric] * 2
    assert {metric, f"drop_{metric}", f"drop_{metric}_low", f"changed_{metric}", "same_as_baseline"} <= set(table)
    assert not {"mean_length", "empty_rate", "cider"} & set(table)  # of texts
    if said[0].choice:
        assert sorted(table[metric]) == sorted(x for x in right if x is not None)
        assert list(table["toy_choices"]) == ["/".join(COLORS)] * 2
    drop = METRICS[metric].drop(*(float(table.loc[table["key"] == j["key"], metric].iloc[0]) for j in these))
    assert table.loc[table["part"] != "none", f"drop_{metric}"].item() == pytest.approx(drop)
    assert metric in short_table(table)
    assert notes(table)[0].startswith("drop: baseline − cell")
    samples = pd.read_parquet(tmp_path / SHOWN)
    own = samples[samples["key"] == these[0]["key"]]
    for column in columns:
        assert [list(x) if isinstance(x, np.ndarray) else x for x in own[column]] == getattr(said[0], column)
    assert own["text"].isna().all()
    assert own[metric].mean() == table.loc[table["key"] == these[0]["key"], metric].item()


def test_a_report_is_about_the_metric_of_the_task(tmp_path: Path) -> None:
    these = cells(tmp_path, "toy")
    table = comparable(scored(tmp_path, these))
    assert main_metric(table) == "toy_accuracy"
    assert metric_text("toy_accuracy").amount(0.5, 0.1, 0.9) == "0.500 [0.100, 0.900] toy accuracy"

    draws = load_draws(tmp_path, table, "toy_accuracy")
    told = captions(Source(tmp_path, "first", tmp_path / "sweeps/first", table, table, "toy_accuracy", draws, ""))
    assert told is not None
    assert {t for texts in told["texts"] for t in texts} <= set(COLORS)
    assert {x for scores in told["scores"] for x in scores} <= {0.0, 1.0}


@pytest.mark.thorough
def test_samples_of_texts_and_of_choices_stand_in_one_table(tmp_path: Path) -> None:
    """In a folder of texts alone samples.parquet has the columns that it always had; a choice adds some to every part."""
    scored(tmp_path, jobs("task=shapes_vqa", "task.limit=8", "part=none"))
    before = pq.read_schema(next((tmp_path / SHOWN).iterdir())).names
    assert "choice" not in before
    scored(tmp_path, cells(tmp_path, "toy"))
    parts = [pq.read_schema(p).names for p in (tmp_path / SHOWN).iterdir()]
    assert all(names == parts[0] for names in parts)
    assert parts[0][: len(before)] == before
    assert set(parts[0]) - set(before) == {"choice", "option_nll", "option_tokens", "toy_accuracy"}
    table = pd.read_parquet(tmp_path / SHOWN)
    assert (table["text"].isna() == table["choice"].notna()).all()


def test_a_row_whose_task_is_not_installed_is_shown(tmp_path: Path) -> None:
    table = scored(tmp_path, cells(tmp_path, "toy"))
    del METRICS["toy_accuracy"]
    assert metrics_of(table) == ["toy_accuracy"]
    assert main_metric(table) is None
    assert {"toy_accuracy", "drop"} <= set(short_table(table))
    assert notes(table)
    assert len(collect(tmp_path)) == 2
    with pytest.raises(UserError, match="no cell has a metric that is a number"):
        comparable(table)


def test_a_choice_is_the_likeliest_option(tmp_path: Path) -> None:
    """The torch back end: each option's likelihood is that of a reference of these words."""
    told = {}
    for job in cells(tmp_path, "toy", "task.limit=3"):
        said = run([job])[job["key"]][0]
        assert tuple(said.columns) == columns_of(("likelihood", "choose"))
        assert said.option_nll
        assert said.nll_sum
        own = [
            row[COLORS.index(s.references[0])]
            for row, s in zip(said.option_nll, load_task(job["task"]).samples, strict=True)
        ]
        assert own == pytest.approx(said.nll_sum, rel=1e-5)
        assert said.choice == [min(range(3), key=row.__getitem__) for row in said.option_nll]
        told[job["key"]] = said.hash
    assert len(set(told.values())) == 2


def test_calibration_reads_what_a_task_from_outside_asks(tmp_path: Path) -> None:
    words = ("quant=gptq", "quant.bits=3", "calibration=task", "calibration.n_samples=4", "task.limit=3")
    these = cells(tmp_path, "toy", *words)
    assert these[1]["calibration"]["prompt"] == "Question: {} Answer:"
    assert run(these[1:])[these[1]["key"]][1]["layers_changed"] > 0


def test_what_no_model_here_computes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task toy_match: asks for a match"):
        run(cells(tmp_path, "toy_match")[:1])


def test_columns_follow_from_the_requests() -> None:
    assert columns_of(("generate", "likelihood")) == columns_of(("generate",)) == FIELDS
    assert columns_of(("likelihood", "generate", "choose"))[:6] == FIELDS
    assert columns_of(("match",)) == ("id", "image_id", "scores")
    with pytest.raises(ValueError, match="several lengths: id 1, image_id 2"):
        Predictions([1], [1, 2])


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    for said in (
        Predictions([1], [2], ["a"], [1], [None], [0]),
        Predictions([1], [2], scores=[[0.5, 2.0]]),
        Predictions([1], [2], choice=[0], option_nll=[[1.0, None]], option_tokens=[[1, 2]]),
    ):
        name = stem("0" * 12, said.hash)
        write_predictions(tmp_path, name, said)
        assert read_predictions(tmp_path, name) == said
    assert said.outputs == ["0"]
    assert Predictions([1], [2], scores=[[0.5, 2.0]]).outputs == ["1"]


def test_choices_are_in_the_fingerprint_where_there_are_some(tmp_path: Path) -> None:
    config = {**conf("task/shapes_vqa"), "name": "toy", "kind": "toy_choose", "format": "toy", "split": "test"}
    config |= {"data_dir": str(write(tmp_path))}
    before = load_task(config).fingerprint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "COLORS", ("red", "green", "blue", "black"))
        assert load_task(config).fingerprint != before


@pytest.mark.parametrize(
    "name", quick(["shapes_caption", "shapes_retrieval", "shapes_vqa", "toy", "toy_match"], "toy", "toy_match")
)
def test_a_metric_of_one_sample_is_that_of_a_set_of_it(tmp_path: Path, name: str) -> None:
    """The per-sample form and the corpus form, of every metric that has one, for every task."""
    task, said = _answered(tmp_path, name)
    statistics = Scorer(task).statistics(said)
    metrics = [m for m in METRICS.values() if m.statistic in statistics]
    assert {METRICS[m].statistic for m in task.rules.scores(task)} <= set(statistics)
    single = [m for m in metrics if m.per_sample]
    assert single
    for metric in single:
        each = metric.each(statistics[metric.statistic])
        alone = [metric.value(row[None]) for row in statistics[metric.statistic]]
        assert each.shape == (len(said.id),)
        assert each.tolist() == pytest.approx(alone, nan_ok=True), metric.name
        if metric.ratio:  # of such a metric the whole is the mean of its samples, weighed by what they count
            counted = statistics[metric.statistic][:, metric.ratio[1]]
            assert metric.value(statistics[metric.statistic]) == pytest.approx(np.average(each, weights=counted))


def _answered(folder: Path, name: str) -> tuple[Any, Predictions]:
    toy = name.startswith("toy")
    job = cells(folder, name)[0] if toy else jobs(f"task={name}", "task.limit=8", "part=none")[0]
    return planned_task(job["task"]), Dummy({})(job).predictions


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(UserError, match="metric cider: there is one of that name"):
        add_metrics([Metric("cider", "mine", lambda sums: sums[..., 0], True, "1")])


def test_every_metric_has_a_label_and_a_unit() -> None:
    assert all(m.label and m.unit for m in METRICS.values())
    assert len({m.label for m in METRICS.values()}) == len(METRICS)
    assert math.isclose(METRICS["nll"].drop(1.0, 3.0), 2.0)
