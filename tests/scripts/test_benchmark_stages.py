"""Where a whole run's time goes: the table, what is timed from outside, and what the flags refuse."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blip2sweep.planning.plan import Plan
from blip2sweep.tasks import load_task
from scripts import benchmark
from scripts.benchmarks import models, stages, told, worker
from scripts.benchmarks.ours import Setting
from tests.checkpoints import ROOT

GIVEN = Setting(models.model_config("tiny"), {}, "cpu", 32, False, Path())
MINE: dict[str, Any] = {
    "spans": {"apply": [1.0, 1.5], "vision": [2.0, 2.5], "language": [6.0, 6.5], "begin": [2.0, 2.25],
              "likelihood": [1.0, 1.0], "greedy": [3.0, 4.0]},
    "start": [4.0, 3.0], "seconds": 20.0, "workers": 1, "threads": 1, "after_last_cell": 2.0, "cpu_seconds": 25.0,
    "own_cpu_seconds": 19.0, "asked_images": 1.0,
}  # fmt: skip


def test_the_rows_of_a_run_are_all_of_it() -> None:
    rows = stages.rows(MINE, "language")
    assert list(rows) == [
        "start-up", "apply", "vision", "begin", "likelihood", "greedy", "remembered", "scoring", "other"
    ]  # fmt: skip
    assert rows["remembered"] == (1.0, 0.25)
    assert rows["scoring"] == (2.0, 6.0)
    assert rows["other"] == (4.0, 4.5)
    assert sum(row.seconds for row in rows.values()) == 20.0


def test_the_table_is_in_processor_seconds_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "floors", lambda *_: {"vision": (0.5, "products"), "apply": (0.0, "memory")})
    found = stages.table(GIVEN, Plan(), MINE)
    assert (found["rows"]["vision"]["times"], found["rows"]["apply"]["times"]) == (5.0, None)
    assert "  vision              2.00  10.0 %     2.50    0.500     5.0  products" in list(stages.lines(found))
    assert stages.table(GIVEN, Plan(), {**MINE, "threads": 2})["rows"]["vision"]["times"] == 4.0


def test_a_run_that_stopped_early_has_no_floor() -> None:
    assert stages.floors(GIVEN, Plan(), {**MINE, "asked_images": 0.6}) == {}
    results: list[dict[str, Any]] = [{"stopped": {"images": 96, "of": 480}}, {}]
    assert told.share_of_images(results) == told.share_that_counts(results) == pytest.approx(0.6)
    results[0]["cost"] = {"images_computed": 240}
    assert told.share_of_images(results) == 0.75
    assert told.share_that_counts(results) == pytest.approx(0.6)


# ---- the worker that is timed


def test_a_module_is_changed_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_of_benchmark.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    times = worker.Times()

    def change(module: Any) -> None:
        module.double = times.timed(module.double, "double")

    monkeypatch.setattr(sys, "meta_path", [worker.Watching({"toy_of_benchmark": change}), *sys.meta_path])
    module: Any = importlib.import_module("toy_of_benchmark")
    monkeypatch.delitem(sys.modules, "toy_of_benchmark")
    assert module.double(3) == 6
    assert times.spans["double"][0] > 0


def test_stages_have_processor_seconds_and_token_ids_are_kept() -> None:
    class Clock:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def stage(self, name: str) -> Any:
            self.seen.append(name)
            return pytest.MonkeyPatch.context()

    times, module = worker.Times(), SimpleNamespace(Clock=Clock)
    times.clock(module)  # type: ignore[arg-type]
    clock = Clock()
    with clock.stage("vision"):
        pass
    assert clock.seen == list(times.spans) == ["vision"]
    ids = times.kept(lambda texts: [[len(t)] for t in texts], "references")
    assert ids(["a", "bc"]) == [[1], [2]]
    ids([])  # options that nobody has
    assert times.seen["references"] == [[1], [2]]


def test_a_span_inside_itself_counts_once() -> None:
    times = worker.Times()
    with pytest.raises(RuntimeError), times.span("begin"):
        raise RuntimeError  # it is over all the same
    with times.span("begin"):
        with times.span("begin"):
            pass
        assert times.spans == {}
    assert list(times.spans) == ["begin"]


def replaced(module: Any, change: Any) -> set[str]:
    """Names, without their module, of what a change of a module put another function in place of. All of it is put back."""
    own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    before = {place: dict(vars(place)) for place in (module, *own)}
    change(module)
    found = set()
    for place, plain in before.items():
        for name in [n for n, value in vars(place).items() if plain.get(n) is not value]:
            found.add(name if place is module else f"{place.__name__}.{name}")
            setattr(place, name, plain[name])
    return found


def test_whatever_is_timed_is_there_under_its_name() -> None:
    """A function of another name would be timed no more, without a word."""
    found = {
        name.removeprefix("blip2sweep."): replaced(importlib.import_module(name), change)
        for name, change in worker.watched(worker.Times()).items()
    }
    assert found == {
        "backends.torch.batching": {"Clock.stage"}, "apply.patch": {"Patch.apply"},
        "backends.torch.backend": {"TorchBackend.__call__"}, "results.look_process": {"LookProcess.answer"},
        "backends.shares": {"Joiner.rounds"}, "results.prefixes": {"write_prefix"},
        "models.opt": {"Opt.prompt_ids", "Opt.reference_ids", "Opt.prefill", "Opt.prefix", "Prefix.prefill", "Prefilled.generate"},
        "models.image_text.language": {"Decoder.prompt_ids", "Decoder.reference_ids", "Decoder.prefill", "Decoder.prefix"},
        "models.image_text.prefix": {"Prefix.prefill"}, "models.image_text.prefilled": {"Prefilled.generate"},
    }  # fmt: skip


def test_methods_of_a_modules_own_classes_are_timed() -> None:
    class Own:
        def prompt_ids(self, texts: list[str]) -> list[list[int]]:
            return [[1]] * len(texts)

        def prefill(self) -> str:
            return self.prefix()

        def prefix(self) -> str:
            return "read"

    times, plain = worker.Times(), Own.prefill
    times.language(SimpleNamespace(__name__="elsewhere", Own=Own))
    assert Own.prefill is plain
    times.language(SimpleNamespace(__name__=__name__, Own=Own))
    assert Own().prefill() == "read"
    assert Own().prompt_ids(["a", "b"]) == [[1], [1]]
    assert (list(times.spans), times.seen["prompts"]) == (["begin"], [[1], [1]])


@pytest.mark.thorough
def test_cells_that_stop_are_timed_in_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = "--task vqa --grid card --cells 2 --images 96 --reference-cells 0 --stop known --json"
    assert benchmark.main(words.split()) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["cells"] == 3
    assert 0 < found["counted_images"] <= found["asked_images"] < 1
    assert len(found["rounds"]) > 1  # the baseline sees all images at once, the others look on the way
    rows = found["stages"]["rows"]
    timed = {"start-up", "apply", "vision", "bridge", "begin", "likelihood", "greedy", "between rounds", "scoring"}
    assert timed <= {name for name, row in rows.items() if row["cpu"] > 0}
    assert all("floor" not in row or row["floor"] is None for row in rows.values())


# ---- what is asked


def test_random_pictures_have_three_questions_each(tmp_path: Path) -> None:
    task = models.write_images(tmp_path, 2, "vqa")
    samples = load_task(task).samples
    assert [s.image_id for s in samples] == [0, 0, 0, 1, 1, 1]
    assert len({s.question for s in samples}) == 6


def test_what_a_template_sets_around_a_prompt_is_read_of_the_checkpoint() -> None:
    config = models.model_config("tiny-llava")
    text = models.text_of(config, ROOT / "blip2sweep/assets/tiny-llava")
    assert "<image>" in text
    assert (config["prompts"] or {})["caption"] in text


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("--model tny", "argument --model: invalid choice: 'tny' (choose from"),
        ("--images 0", "--images 0: right: 1 or more"),
        ("--pairs 3", "--pairs: of versions; right: with --against FOLDER"),
        ("--against nowhere", "--against nowhere: no blip2sweep in it; right: the checkout of a version"),
        (
            f"--against {ROOT} --reference-cells 2",
            "--reference-cells: no reference runs with --against; right: without",
        ),
        (f"--against {ROOT} --runs 2", "--runs: no reference runs with --against; right: without it"),
        ("--task vqa --reference-cells 2", "--reference-cells: the reference only captions; right: 0 with --task vqa"),
        ("--runs 3 --reference-cells 2", "--runs 3 --reference-cells 2: right: a cell for each run, or 0"),
        ("--stop known", "--stop known: this version has no evaluation.stop; right: without --stop"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused_in_one_line(
    words: str, right: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "knows_stopping", lambda: False)
    assert benchmark.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {right}")
    assert (out, err.count("\n")) == ("", 1)


def test_defaults_follow_the_model_and_the_task() -> None:
    def asked(words: str) -> Mapping[str, Any]:
        return vars(benchmark.arguments(words.split()))

    assert asked("")["reference_cells"] == 6
    assert asked("--task vqa")["reference_cells"] == asked(f"--against {ROOT}")["reference_cells"] == 0
    assert (asked("--model llava-mid")["grid"], asked("--model llava-mid")["nll"]) == ("role_wise", 0)
    assert (asked("--model tiny-llava")["grid"], asked("--model tiny-llava")["nll"]) == ("role_wise", 1)
