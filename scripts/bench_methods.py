"""Seconds of the methods on layers of BLIP-2's sizes, and of the whole tiny model.

OMP_NUM_THREADS=1 python scripts/bench_methods.py            # add `cuda` for a GPU
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable

import torch

from blip2sweep.methods import METHODS
from blip2sweep.methods.scheme import Weights
from blip2sweep.methods.statistics import Statistics

SHAPES = ((1408, 6144), (6144, 1408))  # (out, in): fc2 and fc1 of the ViT
TOKENS = 8192
METHODS_TIMED = ("rtn", "mse", "hqq", "nf4", "gptq", "awq_prescale", "smoothquant")


def seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def weights_of(name: str) -> Weights:
    method = METHODS[name]
    strategy = method.strategies[0]
    knobs = {k: v for k, v in method.knobs.items() if k != "group_size"}
    group = 64 if strategy == "group" else None
    bits = 4 if method.has_bits(4) else method.bits[0]
    return Weights(name, bits, type=method.type, strategy=strategy, group_size=group, **knobs)


def main(device: str) -> None:
    for out, inn in SHAPES:
        w, x = torch.randn(out, inn, device=device), torch.randn(TOKENS, inn, device=device)
        statistics = Statistics(inn, device)
        took = seconds(lambda s=statistics, x=x: s.add(x), device)  # type: ignore[misc]
        print(f"{out} x {inn}: hessian of {TOKENS} tokens {took:.2f} s", end="")
        for name in METHODS_TIMED:
            if METHODS[name].missing:
                continue
            module, own = importlib.import_module(f"blip2sweep.methods.{name}"), weights_of(name)
            if METHODS[name].calibrates:
                took = seconds(lambda m=module, o=own, w=w, s=statistics: m.calibrated(w, o, s), device)  # type: ignore[misc]
            else:
                took = seconds(lambda m=module, o=own, w=w: m.apply(w, None, o), device)  # type: ignore[misc]
            print(f", {name} {took:.2f} s", end="", flush=True)
        print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
