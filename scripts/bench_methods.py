"""Seconds of the methods: on layers of BLIP-2's sizes, on every part of the tiny model, and on a GPU on OPT-2.7B.

    OMP_NUM_THREADS=1 python scripts/bench_methods.py              # layers, tiny
    python scripts/bench_methods.py --device cuda                  # and llm: the language model of blip2-opt-2.7b
    python scripts/bench_methods.py --only tiny --methods rtn,gptq
    OMP_WAIT_POLICY=PASSIVE python scripts/bench_methods.py --only threads --methods gptq,awq        # tiny, and mid
    python scripts/bench_methods.py --only layers --methods gptq --shapes 2560x2560,10240x2560,2560x10240    # of OPT-2.7B

layers: 1408 × 6144 and 6144 × 1408 (out × in), 8192 tokens, 4 bits; a first run on a small layer is not counted.
tiny: calibration with 128 captions and the quantized layers put in, 3 bits per channel where the method has them.
threads: the same on one and on two threads of a CPU, and mid (scripts/benchmarks/models.py) with 32 captions.
llm: random weights in bf16, 128 random images with made-up captions; the ViT's and Q-Former's part in it is included.
On a GPU each figure comes with its peak of allocated memory, whatever was there before included.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import torch

from blip2sweep.apply.calibration import Blocks, Calibrator
from blip2sweep.apply.patch import Patch
from blip2sweep.cache.tensors import Memo, Value
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.codes import dequantize
from blip2sweep.compression.quantize.scheme import Weights
from blip2sweep.compression.quantize.statistics import Statistics
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, choose
from scripts.benchmarks import models

SHAPES = ((1408, 6144), (6144, 1408))  # (out, in): fc2 and fc1 of the ViT
TOKENS = 8192
SAMPLES = 128
ON_LAYERS = ("rtn", "mse", "hqq", "nf4", "gptq", "awq_prescale", "smoothquant")
ON_MODELS = ("minmax", "rtn", "mse", "hqq", "nf4", "gptq", "awq", "awq_prescale", "smoothquant")


def timed(run: Callable[[], object], device: str) -> str:
    """`1.23 s`, and on a GPU `peak 4.56 GB`."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = f"{time.perf_counter() - start:.2f} s"
    return f"{seconds}, peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if device == "cuda" else seconds


def bits_of(name: str, wanted: int) -> int:
    return wanted if METHODS[name].has_bits(wanted) else METHODS[name].bits[0]


# ---- single layers


def layers(names: Sequence[str], device: str, shapes: Sequence[tuple[int, int]]) -> None:
    for name in names:  # imports, and what a library sets up on its first call
        _of_layer(name, torch.randn(64, 128, device=device), _statistics(torch.randn(256, 128, device=device)))()
    for out, inn in shapes:
        w, x = torch.randn(out, inn, device=device), torch.randn(TOKENS, inn, device=device)
        found: list[Statistics] = []
        took = timed(lambda x=x, found=found: found.append(_statistics(x)), device)  # type: ignore[misc]
        print(f"{out} x {inn}: second moment of {TOKENS} tokens {took}", flush=True)
        for name in names:
            print(f"{out} x {inn}: {name} {timed(_of_layer(name, w, found[0]), device)}", flush=True)


def _statistics(x: torch.Tensor) -> Statistics:
    found = Statistics(x.shape[1], x.device)
    found.add(x)
    return found


def _of_layer(name: str, w: torch.Tensor, statistics: Statistics) -> Callable[[], object]:
    module, own = importlib.import_module(f"blip2sweep.compression.quantize.{name}"), _weights(name)
    if METHODS[name].calibrates:
        return lambda: module.calibrated(w, own, statistics)
    if hasattr(module, "codes"):
        return lambda: dequantize(module.codes(w, own))
    return lambda: module.apply(w, None, own)


def _weights(name: str) -> Weights:
    method = METHODS[name]
    strategy = method.strategies[0]
    knobs = {k: v for k, v in method.options.items() if k not in ("group_size", "static_groups")}
    group = 64 if strategy == "group" else None
    return Weights(name, bits_of(name, 4), type=method.type, strategy=strategy, group_size=group, **knobs)


# ---- whole parts


def tiny(names: Sequence[str], device: str) -> None:
    config = models.model_config("tiny")
    loaded = load(config, ROOT / "blip2sweep" / "assets" / "tiny", device=device)
    task = {**models.task("scenes", "pkg://blip2sweep.assets/shapes", None), "split": "train2014"}
    parts(loaded, task, names, tuple(loaded.anatomy.parts), 3)


def threads(names: Sequence[str], device: str) -> None:
    """What calibration costs on one thread and on two: seconds, and CPU seconds, which neighbours change less."""
    config = models.model_config("mid")
    with tempfile.TemporaryDirectory(prefix="blip2sweep-bench-") as folder:
        models.write_model(config, Path(folder), device)
        mid = load({**config, "path": folder, "hub_id": None}, Path(folder), device=device)
    tiny_one = load(models.model_config("tiny"), ROOT / "blip2sweep" / "assets" / "tiny", device=device)
    task = {**models.task("scenes", "pkg://blip2sweep.assets/shapes", None), "split": "train2014"}
    for loaded, n in ((tiny_one, SAMPLES), (mid, 32)):
        chosen = Calibration(task, choose(load_task(task), n, 0), "bench", n, 0, "part", 1.0, False, None)
        for part, name, count in product(loaded.anatomy.parts, names, (1, 2)):
            recipe, before = _recipe(loaded, part, name, 3), time.process_time()
            own = replace(chosen, threads=count)
            took = timed(lambda m=loaded, r=recipe, c=own: _quantize(m, r, c), device)  # type: ignore[misc]
            cpu = time.process_time() - before
            print(f"{loaded.anatomy.model} {part}: {name} on {count} {took}, {cpu:.2f} s CPU", flush=True)


def language_model(names: Sequence[str], device: str) -> None:
    config = models.model_config("blip2-opt-2.7b")
    with tempfile.TemporaryDirectory(prefix="blip2sweep-bench-") as folder:
        models.write_model(config, Path(folder) / "model", device)
        torch.cuda.empty_cache()
        loaded = load(config, Path(folder) / "model", device=device)
        parts(loaded, models.write_images(Path(folder) / "images", SAMPLES), names, ("llm",), 4)


def parts(loaded: Loaded, task: dict[str, Any], names: Sequence[str], which: Sequence[str], bits: int) -> None:
    """Every method on every part, from scratch: nothing that one has measured is there for the next."""
    chosen = Calibration(task, choose(load_task(task), SAMPLES, 0), "bench", SAMPLES, 0, "part", 1.0, False, None)
    for part in which:
        _quantize(loaded, _recipe(loaded, part, "rtn", bits), chosen)  # not counted
        for name in names:
            recipe = _recipe(loaded, part, name, bits)
            took = timed(lambda r=recipe: _quantize(loaded, r, chosen), loaded.device.type)  # type: ignore[misc]
            print(f"{loaded.anatomy.model} {part}: {name} {bits_of(name, bits)} bits {took}", flush=True)


def _recipe(loaded: Loaded, part: str, name: str, bits: int) -> Recipe:
    quant = {"method": name, "bits": bits_of(name, bits)}
    return resolve_recipe({"part": part, "blocks": "all", "layers": "all", "quant": quant}, loaded.anatomy)


class Forgetful(Memo):
    """Keeps nothing, and copies nothing to find that out."""

    def put(self, name: str, value: Value, key: str | None = None) -> None:
        pass


def _quantize(loaded: Loaded, recipe: Recipe, chosen: Calibration) -> None:
    memo = Forgetful(loaded.device, 0, 0)
    prepared = Calibrator(loaded, {"bench": True}, memo, Blocks(memo))(recipe, chosen)
    with Patch(loaded).apply(recipe, prepared):
        pass


def _shapes(text: str) -> list[tuple[int, int]]:
    try:
        return [(int(out), int(inn)) for out, inn in (shape.split("x") for shape in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: right: OUTxIN,OUTxIN, such as 2560x10240") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=("layers", "tiny", "threads", "llm"))
    parser.add_argument("--methods", help="such as rtn,gptq; default: all whose library is there")
    parser.add_argument("--shapes", type=_shapes, default=SHAPES, help="of single layers: OUTxIN,OUTxIN")
    told = parser.parse_args()
    if told.only == "llm" and told.device == "cpu":
        parser.error("--only llm: takes hours on a CPU; right: --device cuda")
    wanted = told.methods.split(",") if told.methods else ON_MODELS
    there = [n for n in wanted if not METHODS[n].missing]
    work = {
        "layers": lambda: layers([n for n in there if n in ON_LAYERS], told.device, told.shapes),
        "tiny": lambda: tiny(there, told.device),
        **({"threads": lambda: threads(there, told.device)} if told.only == "threads" else {}),
        **({"llm": lambda: language_model(there, told.device)} if told.device == "cuda" else {}),
    }
    for name, run in work.items():
        if told.only in (None, name):
            run()


if __name__ == "__main__":
    main()
