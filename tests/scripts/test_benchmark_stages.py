"""Where a whole run's time goes: the arithmetic's floor by hand, what is timed from outside, and what the flags refuse."""

from __future__ import annotations

import importlib
import importlib.util
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
from scripts.benchmarks import arithmetic, grids, models, rates, stages, told, worker
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


def test_the_table_is_in_processor_seconds_on_one_thread(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "floors", lambda *_: {"vision": (0.5, "products"), "apply": (0.0, "memory")})
    found = stages.table(tiny.given, Plan(), MINE)
    assert (found["rows"]["vision"]["times"], found["rows"]["apply"]["times"]) == (5.0, None)
    assert "  vision              2.00  10.0 %     2.50    0.500     5.0  products" in list(stages.lines(found))
    assert stages.table(tiny.given, Plan(), {**MINE, "threads": 2})["rows"]["vision"]["times"] == 4.0


def test_a_run_that_stopped_early_has_no_floor(tiny: Model) -> None:
    assert stages.floors(tiny.given, Plan(), {**MINE, "asked_images": 0.6}) == {}
    results = [{"stopped": {"images": 96, "of": 480}}, {}]
    assert told.share_of_images(results) == pytest.approx(0.6)


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


def test_what_is_timed_is_there_under_its_name() -> None:
    """Both kinds of language models of this script read prompts and write texts by methods that the worker knows."""
    from blip2sweep.apply.patch import Patch
    from blip2sweep.backends.torch.batching import Clock

    assert callable(Patch.apply)
    assert callable(Clock.stage)
    for names in (["opt"], ["image_text.language", "image_text.prefix", "image_text.prefilled"]):
        there = [name for name in names if importlib.util.find_spec(f"blip2sweep.models.{name}")]
        modules = [importlib.import_module(f"blip2sweep.models.{name}") for name in there]
        own = [c for m in modules for c in vars(m).values() if isinstance(c, type) and c.__module__ == m.__name__]
        assert {"prefill", "generate", *worker.TOKENIZED} <= {name for c in own for name in vars(c)}


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
