"""GPTQ here against llmcompressor's, layer by layer, on the tiny model's weights and inputs.

llmcompressor pins another transformers, so it has an environment of its own:

    python scripts/compare_llmcompressor.py export layers.safetensors
    python -m venv other && other/bin/pip install "llmcompressor==0.14.0" "torch==2.13.0" "transformers==5.17.0"
    PYTHONPATH=. other/bin/python scripts/compare_llmcompressor.py compare layers.safetensors

Prints, for each scheme, the layers with at least 99.5 % identical weights, the least and mean share, and the error of
each on the inputs. Dead inputs (ReLU's) are given a diagonal beforehand: llmcompressor zeroes their columns, we round them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SAMPLES = 64
SCHEMES = [
    (bits, symmetric, group, order)
    for bits in (3, 4)
    for symmetric in (True, False)
    for group in (None, 32)
    for order in (False, True)
]


def export(path: Path) -> None:
    """Weights and second moments of every layer of the tiny model, as loaded from conf/model/tiny.yaml."""
    from blip2sweep.calibration.feed import Feed
    from blip2sweep.calibration.measure import measure
    from blip2sweep.calibration.walk import Walk
    from blip2sweep.config.standalone import compose_cell
    from blip2sweep.models import load
    from blip2sweep.tasks import load_task
    from blip2sweep.tasks.calibration import calibration, settings
    from blip2sweep.weights import locate

    config = compose_cell([f"calibration.n_samples={SAMPLES}"])
    loaded = load(config["model"], locate(config["model"]).folder)
    task = settings(config["calibration"], config["task"])
    chosen = calibration(config["calibration"], load_task(task), task, config["generation"], loaded.family)
    tensors: dict[str, Tensor] = {}
    for part in loaded.anatomy.parts.values():
        batches = Feed(loaded, chosen).batches(part.name)
        walk = Walk(loaded.model, part, [b.run for b in batches])
        for block in range(part.n_blocks):
            layers = [x for x in part.linears if x.block == block]
            for name, seen in measure(walk, block, layers, batches, loaded.family, True).items():
                tensors[f"{name}:weight"] = loaded.model.get_submodule(name).get_parameter("weight").detach().clone()
                assert seen.sums.hessian is not None
                tensors[f"{name}:hessian"] = seen.sums.hessian.clone() * 2 / seen.sums.tokens
    save_file(tensors, path)
    print(f"wrote {path}: {len(tensors) // 2} layers")


def layers(path: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    tensors = load_file(path)
    for name in sorted({n.rpartition(":")[0] for n in tensors}):
        hessian = tensors[f"{name}:hessian"]
        hessian.diagonal()[hessian.diagonal() == 0] = hessian.diagonal().mean()
        yield name, tensors[f"{name}:weight"].float(), hessian


def theirs(weight: Tensor, hessian: Tensor, bits: int, symmetric: bool, group: int | None, order: bool) -> Tensor:
    """llmcompressor's values, with compressed-tensors' scales of the original weights."""
    from compressed_tensors.quantization import QuantizationArgs  # type: ignore[import-not-found]
    from compressed_tensors.quantization.utils import calculate_qparams  # type: ignore[import-not-found]
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight  # type: ignore[import-not-found]

    args = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="group" if group else "channel", group_size=group,
        actorder="weight" if order else None,
    )  # fmt: skip
    rows = weight.reshape(len(weight), -1, group or weight.shape[1])
    scale, zero_point = calculate_qparams(rows.amin(-1), rows.amax(-1), args)
    values, *_ = quantize_weight(
        weight[None].clone(),
        hessian[None].clone(),
        scale[None],
        zero_point[None],
        None,
        args,
        blocksize=128,
        percdamp=0.01,
    )
    return values[0]


def ours(weight: Tensor, hessian: Tensor, bits: int, symmetric: bool, group: int | None, order: bool) -> Tensor:
    from blip2sweep.methods import gptq
    from blip2sweep.methods.scheme import Weights
    from blip2sweep.methods.statistics import Statistics

    strategy = "group" if group and group < weight.shape[1] else "channel"
    weights = Weights(
        "gptq", bits, strategy=strategy, group_size=group if strategy == "group" else None, symmetric=symmetric,
        act_order=order, static_groups=True, damp=0.01, block_size=128,
    )  # fmt: skip
    statistics = Statistics(weight.shape[1])
    statistics.hessian = hessian
    return gptq.calibrated(weight, weights, statistics).weight


def compare(path: Path) -> None:
    from blip2sweep.methods.statistics import relative_error

    print(
        "bits symmetric group order | layers at 99.5 %, identical least mean | error ours theirs, mean; largest difference"
    )
    for scheme in SCHEMES:
        rows: list[tuple[float, float, float]] = []
        for _, weight, hessian in layers(path):
            a, b = ours(weight, hessian, *scheme), theirs(weight, hessian, *scheme)
            same = torch.isclose(a, b, rtol=1e-3, atol=1e-5 * float(weight.abs().max())).float().mean()
            rows.append((float(same), relative_error(a, weight, hessian), relative_error(b, weight, hessian)))
        print(*scheme, "|", _row(rows))


def _row(rows: list[Any]) -> str:
    same, mine, other = (torch.tensor(column) for column in zip(*rows, strict=True))
    difference = ((mine - other).abs() / other).max()
    return f"{int((same >= 0.995).sum())}/{len(rows)} {same.min():.4f} {same.mean():.4f} | {mine.mean():.4f} {other.mean():.4f}; {difference:.4f}"


if __name__ == "__main__":
    {"export": export, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
