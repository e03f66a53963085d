"""The number of CPU threads changes no weight and no text: calibration has its own, and what it is, is in the key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2sweep.apply.calibration import Blocks, Calibrator
from blip2sweep.apply.calibration.folds import OutputError
from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache.tensors import Memo
from blip2sweep.commands.run_checks import check_noise_floor
from blip2sweep.compression.quantize import METHODS, mse
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.statistics import Statistics
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.config.overrides import normalise
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded, load
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.table_notes import notes
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal
from blip2sweep.results.predictions import second_runs
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, choose
from blip2sweep.workers.run_cell import run_cell
from blip2sweep.workers.signals import Stop
from tests.checkpoints import TINY, conf, recipe, tiny_config
from tests.composing import composer, plan
from tests.in_process import jobs, run

pytestmark = pytest.mark.thorough

MACHINES = (1, 2, 4)  # threads that a machine is set to
CALIBRATED = ("gptq", "awq", "awq_prescale", "smoothquant")
STATIC = ("quant=rtn", "quant.bits=4", "quant.input.bits=4", "quant.input.strategy=tensor", "quant.input.dynamic=false")


@pytest.fixture(autouse=True)
def _threads_are_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


def samples(n: int = 8, **fields: Any) -> Calibration:
    task = {**conf("task/shapes_caption"), "split": "train2014"}
    plain = Calibration(task, choose(load_task(task), n, 0), "test", n, 0, "part", 1.0, False, None)
    return replace(plain, **fields)


def calibrator(loaded: Loaded) -> Calibrator:
    memo = Memo(torch.device("cpu"), 0, 10**9)
    return Calibrator(loaded, "test", memo, Blocks(memo))


def bits_of(made: dict[str, Prepared]) -> dict[str, list[bytes]]:
    tensors = {p: [x.weight, x.prescale, x.low, x.high] for p, x in made.items()}
    return {p: [b"" if t is None else t.numpy().tobytes() for t in found] for p, found in tensors.items()}


# ---- weights


@pytest.mark.parametrize(
    ("method", "upstream"), [*((m, "part") for m in CALIBRATED), ("gptq", "full"), ("gptq", "model")]
)
def test_calibrated_weights_are_the_same_on_any_machine(opt: Loaded, method: str, upstream: str) -> None:
    quant, chosen, found = recipe(opt.anatomy, "all", "0-1", method=method, bits=3), samples(upstream=upstream), []
    for threads in MACHINES:
        torch.set_num_threads(threads)
        found.append(bits_of(calibrator(opt)(quant, chosen)))
        assert torch.get_num_threads() == threads
    assert found[0] == found[1] == found[2]


def test_all_of_a_calibration_runs_on_its_own_threads(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of the parts before, the blocks themselves, sums, search; also where the model's own loop asks for more."""
    seen: set[tuple[str, int]] = set()

    def note(where: str) -> None:
        seen.add((where, torch.get_num_threads()))

    add, output_error = Statistics.add, OutputError.__call__
    monkeypatch.setattr(Statistics, "add", lambda self, *a: (note("sums"), add(self, *a))[1])
    monkeypatch.setattr(OutputError, "__call__", lambda self: (note("search"), output_error(self))[1])
    blocks = (f"{s.path}.1" for part in opt.anatomy.parts.values() for s in part.stacks)
    hooks = [
        opt.model.get_submodule(path).register_forward_pre_hook(lambda m, args, path=path: note(path.partition(".")[0]))
        for path in blocks
    ]
    torch.set_num_threads(2)
    for threads in (1, 3):
        calibrator(opt)(recipe(opt.anatomy, "llm", "0-1", method="awq", bits=3), samples(4, threads=threads))
        assert {n for _, n in seen} == {threads}
        assert {w for w, _ in seen} == {"sums", "search", "vision_model", "qformer", "language_model"}
        seen.clear()
    for hook in hooks:
        hook.remove()
    assert torch.get_num_threads() == 2


def test_threads_are_put_back_when_calibration_fails(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Statistics, x: Tensor, weights: Tensor | None = None) -> None:
        raise FloatingPointError("inputs are not finite")

    monkeypatch.setattr(Statistics, "add", broken)
    torch.set_num_threads(2)
    with pytest.raises(FloatingPointError):
        calibrator(opt)(recipe(opt.anatomy, "vit", "0", method="gptq", bits=3), samples(4))
    assert torch.get_num_threads() == 2


def test_what_one_number_of_threads_made_is_not_taken_for_anothers(opt: Loaded) -> None:
    """Neither features, nor second moments, nor finished blocks."""
    quant, one = recipe(opt.anatomy, "llm", "0-1", method="gptq", bits=3), calibrator(opt)
    first = {x.key for x in one(quant, samples()).values()}
    made = one.blocks.made
    second = {x.key for x in one(quant, samples(threads=2)).values()}
    assert (one.blocks.made, one.blocks.found) == (2 * made, 0)
    assert not first & second


@pytest.mark.parametrize("method", ["minmax", "rtn", "mse", "hqq", "nf4", "fp4", "int8", "float8"])
@pytest.mark.parametrize("strategy", ["channel", "tensor", "group"])
def test_so_are_those_of_methods_that_see_weights_alone(opt: Loaded, method: str, strategy: str) -> None:
    spec = METHODS[method]
    if spec.missing or strategy not in spec.strategies:
        pytest.skip("an extra, or a strategy it does not have")
    bits, found = 4 if spec.has_bits(4) else 8, []
    quant = recipe(opt.anatomy, "qformer", "0", method=method, bits=bits, strategy=strategy)
    for threads in MACHINES:
        torch.set_num_threads(threads)
        with Patch(opt).apply(quant) as applied:
            found.append([opt.model.get_submodule(p).weight.numpy().tobytes() for p in applied.layers])
    assert found[0] == found[1] == found[2]


def test_a_long_row_is_summed_alike_on_any_number_of_threads() -> None:
    """torch's own sum over a tensor as large is another for each."""
    torch.manual_seed(0)
    for rows, n in ((1, 3_000_001), (1, 2**20), (3, 40_001), (5, 700)):
        x, found = torch.rand(rows, n) ** 3, []
        for threads in (1, 2, 3, 4, 7):
            torch.set_num_threads(threads)
            found.append(mse.summed(x))
        assert all(torch.equal(f, found[0]) for f in found)
        assert torch.allclose(found[0], x.double().sum(-1, keepdim=True).float())


def test_hqq_ends_early_by_a_mean_that_one_thread_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = pytest.importorskip("hqq.core.quantize").Quantizer
    seen, quantize = [], quantizer.quantize

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.get_num_threads())
        return quantize(*args, **kwargs)

    monkeypatch.setattr(quantizer, "quantize", noted)
    torch.set_num_threads(2)
    cell = next(iter(jobs("quant=hqq", "quant.bits=3", "part=qformer", "blocks=0", limit=1)[1:]))
    TorchBackend({"device": "cpu", "threads": 2}).quantized(cell)
    assert set(seen) == {1}


# ---- texts


def test_cells_say_the_same_on_any_machine() -> None:
    """Calibrated weights, a static range of the inputs, then methods that see weights alone, and ranges of tokens."""
    words = [(*w, "calibration.n_samples=8") for w in (("quant=gptq", "quant.bits=3"), STATIC)]
    words += [("quant=rtn,mse", "quant.bits=3"), ("quant=w8a8",)]
    every = [j for w in words for j in jobs(*w, "part=all", "blocks=0", limit=4)]
    these = list({j["key"]: j for j in every}.values())
    found = [run(these, threads=threads) for threads in MACHINES]
    for key, (predictions, info) in found[0].items():
        inputs = any("input" in e for j in these if j["key"] == key for e in j["recipe"])
        assert [f[key][1]["threads"] for f in found] == ([1, 1, 1] if inputs else list(MACHINES))
        assert all(f[key][0].text == predictions.text for f in found)
        assert info["layers_changed"] or key == these[0]["baseline"]


# ---- the key, and what is refused


def test_threads_are_part_of_a_calibrated_cells_key() -> None:
    found = plan("quant=gptq,rtn", "quant.bits=3", "part=vit", "calibration.threads=1,2")
    assert len({k for k in found.keys if k}) == 3  # rtn's are one
    told = [found.cells[k].columns().get("calibration_threads") for k in found.keys if k]
    assert sorted(t for t in told if t) == [1, 2]
    plain = plan("quant=gptq", "quant.bits=3", "part=vit")
    assert plain.keys[0] in found.keys
    with pytest.raises(UserError, match=r"calibration.threads=2: used by no cell"):
        plan("quant=rtn", "part=vit", "calibration.threads=2")


@pytest.mark.parametrize("value", ["0", "-1", "4096"])
def test_numbers_of_threads_that_cannot_be_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=rf"calibration.threads={value}: right: "):
        plan("quant=gptq", "part=vit", f"calibration.threads={value}")


def test_fixed_threads_nest() -> None:
    torch.set_num_threads(3)
    with fixed_threads(1):
        with fixed_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


# ---- the noise floor of calibrated cells


def test_the_noise_floor_of_a_calibrated_cell_stands_beside_its_interval(tmp_path: Path) -> None:
    words = ("quant=gptq", "quant.bits=2", "part=qformer", "task=shapes_vqa", "calibration.n_samples=8")
    these, journal = jobs(*words, limit=30), Journal(tmp_path)
    runner = TorchBackend({"device": "cpu", "threads": 1, "noise_floor": True})
    pack = {"output_dir": str(tmp_path), "sweep": "s", "run": "r"}
    names = [run_cell(job, runner, journal, pack, Stop()) for job in these]
    scorer = Scorer(load_task(these[0]["task"]))
    for name in names:
        assert name
        score_result(tmp_path, name, scorer)
    table = collect(tmp_path).set_index("key")
    base, cell = table.loc[these[0]["key"]], table.loc[these[1]["key"]]
    assert not second_runs(tmp_path, str(names[0]))
    assert set(second_runs(tmp_path, str(names[1]))) == {"seed", "arithmetic"}
    assert cell["noise_seed_flip_rate"] > cell["noise_arithmetic_flip_rate"] >= 0
    assert cell["noise_seed_vqa_accuracy"] >= 0
    assert base[["noise_seed_flip_rate", "noise_seed_vqa_accuracy"]].isna().all()
    assert (cell["threads"], cell["calibration_threads"]) == (1, 1)
    assert cell["cpu"]
    assert cell["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    shown = short_table(table.reset_index())
    assert [bool(x) for x in shown["noise"]] == [False, True]
    assert any(line.startswith("noise: ") for line in notes(table.reset_index()))


def test_a_noise_floor_changes_neither_the_cell_nor_those_after_it() -> None:
    words = ("quant=gptq", "quant.bits=2", "part=qformer,llm", "blocks=0-1", "calibration.n_samples=8")
    these = jobs(*words, limit=4)
    plain, asked = run(these, threads=1), run(these, threads=1, noise_floor=True)
    for key, (predictions, info) in asked.items():
        assert predictions.hash == plain[key][0].hash
        assert bool(info.get("calibration_noise")) == (info["layers"] != {})
        assert info["layers"].keys() == plain[key][1]["layers"].keys()
    seconds = [s for _, info in asked.values() for s in info.get("calibration_noise", {}).items()]
    assert [(what, s["seed"], s["threads"], s["batch"]) for what, s in seconds] == [
        ("seed", 1, 1, 32), ("arithmetic", 0, 2, 16)
    ] * 2  # fmt: skip


def test_a_noise_floor_of_nothing_is_refused() -> None:
    config = composer().config((normalise("analysis.noise_floor=true"),))
    with pytest.raises(UserError, match=r"analysis.noise_floor=true: no cell is calibrated"):
        check_noise_floor(config, plan("quant=rtn", "part=vit", "analysis.noise_floor=true"))
    check_noise_floor(config, plan("quant=gptq,rtn", "part=vit", "analysis.noise_floor=true"))
