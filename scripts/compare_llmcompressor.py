"""GPTQ here against llmcompressor's, layer by layer, on the tiny model's weights and inputs.

llmcompressor pins another transformers, so it has an environment of its own:

    python scripts/compare_llmcompressor.py export layers.safetensors
    python -m venv other && other/bin/pip install "llmcompressor==0.14.0" "torch==2.13.0" "transformers==5.17.0"
    PYTHONPATH=. other/bin/python scripts/compare_llmcompressor.py compare layers.safetensors
    PYTHONPATH=. other/bin/python scripts/compare_llmcompressor.py ties layers.safetensors

`compare` prints, for each scheme, the layers with at least 99.5 % identical weights and those equal to the last bit, the
least and mean share, the mean error of each on the inputs, and the largest relative difference of a layer's. `ties`: the
same with our codes in rtn's order of operations, and before it the weights which that order rounds otherwise, of how many,
and the farthest of them from a tie, in scales. Dead inputs (ReLU's) are given a diagonal beforehand: llmcompressor zeroes
their columns, we round them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from blip2sweep.compression.quantize import gptq, rtn

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
    from blip2sweep.apply.calibration.batches import CalibrationBatches
    from blip2sweep.apply.calibration.blocks_run import BlockRunner
    from blip2sweep.apply.calibration.measure import measure
    from blip2sweep.config.standalone import compose_cell
    from blip2sweep.models.load import load
    from blip2sweep.models.location import locate
    from blip2sweep.tasks import load_task
    from blip2sweep.tasks.calibration import calibration, settings

    config = compose_cell([f"calibration.n_samples={SAMPLES}"])
    loaded = load(config["model"], locate(config["model"]).folder)
    task = settings(config["calibration"], config["task"])
    chosen = calibration(config["calibration"], load_task(task), task, config["generation"], loaded.family)
    tensors: dict[str, Tensor] = {}
    for part in loaded.anatomy.parts.values():
        batches = CalibrationBatches(loaded, chosen).batches(part.stage)
        runner = BlockRunner(loaded.model, part, [b.run for b in batches])
        for block in range(part.n_blocks):
            layers = [x for x in part.linears if x.block == block]
            for name, seen in measure(runner, block, layers, batches, loaded.language, True).items():
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
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import calculate_qparams
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
    from blip2sweep.compression.quantize.scheme import Weights
    from blip2sweep.compression.quantize.statistics import Statistics

    strategy = "group" if group and group < weight.shape[1] else "channel"
    weights = Weights(
        "gptq", bits, strategy=strategy, group_size=group if strategy == "group" else None, symmetric=symmetric,
        act_order=order, static_groups=True, damp=0.01, block_size=128,
    )  # fmt: skip
    statistics = Statistics(weight.shape[1])
    statistics.hessian = hessian
    return gptq.calibrated(weight, weights, statistics).weight


SCHEME = "bits symmetric group order | "
TOLD = "layers at 99.5 %, to the last bit; least mean | error ours theirs, mean; largest difference"


def compare(path: Path) -> None:
    print(SCHEME + TOLD)
    for scheme in SCHEMES:
        print(*scheme, "|", row(path, scheme))


def ties(path: Path) -> None:
    print(SCHEME + "rounded otherwise, of; farthest from a tie | " + TOLD)
    for scheme in SCHEMES:
        seen: list[Tensor] = []
        with patch.object(gptq._Grid, "encoded", in_rtns_order(gptq._Grid.encoded, seen)):
            told = row(path, scheme)
        distances = torch.cat(seen)
        otherwise = distances[distances.isfinite()]
        print(*scheme, "|", f"{len(otherwise)} {len(distances)}; {otherwise.max():.1e}", "|", told)


def in_rtns_order(encoded: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    """`_Grid.encoded` with rtn's codes. seen: each weight's distance from a tie, infinite where both orders agree."""

    def by_reciprocal(grid: gptq._Grid, column: Tensor, group: int) -> Tensor:
        scale, zero_point = grid.scale[:, group], grid.zero_point[:, group]
        unsigned = zero_point - (0 if grid.symmetric else grid.codes[0])
        found = rtn.encode(column, scale, unsigned, grid.bits, grid.symmetric) - unsigned + zero_point
        place = column.double() / scale.double()
        distance = (place - place.floor() - 0.5).abs()
        seen.append(distance.masked_fill(found == encoded(grid, column, group), float("inf")))
        return found

    return by_reciprocal


def row(path: Path, scheme: tuple[int, bool, int | None, bool]) -> str:
    from blip2sweep.compression.quantize.statistics import relative_error

    found: list[Any] = []
    for _, weight, hessian in layers(path):
        a, b = ours(weight, hessian, *scheme), theirs(weight, hessian, *scheme)
        same = torch.isclose(a, b, rtol=1e-3, atol=1e-5 * float(weight.abs().max())).double().mean()
        errors = (relative_error(x, weight, hessian) for x in (a, b))
        found.append((float(same), torch.equal(a, b), *errors))
    return _told(found)


def _told(found: list[Any]) -> str:
    same, equal, mine, other = (torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))
    near, exact = (f"{int(x.sum())}/{len(found)}" for x in (same >= 0.995, equal))
    apart = ((mine - other).abs() / other).max()
    return f"{near} {exact}; {same.min():.4f} {same.mean():.5f} | {mine.mean():.4f} {other.mean():.4f}; {apart:.4f}"


if __name__ == "__main__":
    {"export": export, "compare": compare, "ties": ties}[sys.argv[1]](Path(sys.argv[2]))
