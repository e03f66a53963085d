"""How far activations are from the full-precision model's, block by block, and the logits with them.

For each block: the signal-to-noise ratio 10 log10(Σ x² / Σ (x' - x)²) in dB, and the cosine Σ x x' / (|x| |x'|), over
all tokens of the samples. x is of the model as loaded, x' of the quantized model, whose earlier parts are quantized as
in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.question_text import RAW
from blip2sweep.tasks.sample import TaskData

SAMPLES = 32
Place = tuple[str, int, int]  # part, block, batch; block -1: the logits
States = dict[Place, Tensor]


def first_samples(
    task: TaskData, config: Mapping[str, object], prompt: str | None, n: int = SAMPLES, question: str = RAW
) -> Calibration:
    """The first samples of the evaluated task, read with their references. prompt, question: as in Generation."""
    if not all(s.references for s in task.samples[:n]):
        raise UserError(f"analysis.propagation: task {task.name} has no references to read; right: false")
    own = task.part(task.samples[:n])
    return Calibration(dict(config), own, "propagation", n, 0, "model", 1.0, False, prompt, question=question)


@torch.inference_mode()
def states(loaded: Loaded, chosen: Calibration) -> States:
    """The outputs of every block, and the logits, in host memory."""
    calibration_batches, found = CalibrationBatches(loaded, chosen), States()
    *_, last = loaded.anatomy.parts.values()
    for part in loaded.anatomy.parts.values():
        blocks = [loaded.model.get_submodule(path) for s in part.stacks for path in s.block_paths]
        for b, batch in enumerate(calibration_batches.batches(part.stage)):
            hooks = [m.register_forward_hook(partial(_keep, found, (part.name, i, b))) for i, m in enumerate(blocks)]
            output = batch.run()
            for hook in hooks:
                hook.remove()
            if part is last and part.stage == loaded.anatomy.last_stage:
                found[part.name, -1, b] = loaded.language.logits(output).float().cpu()
    return found


def _keep(found: States, place: Place, module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
    found[place] = (output[0] if isinstance(output, tuple) else output).cpu()


def compare(plain: States, quantized: States) -> list[dict[str, object]]:
    """[{part, block, snr_db, cosine}]. block: None for the logits. snr_db: None where nothing differs."""
    return [_row(place, list(pairs)) for place, pairs in _grouped(plain, quantized).items()]


def _grouped(plain: States, quantized: States) -> dict[tuple[str, int], list[tuple[Tensor, Tensor]]]:
    found: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}
    for (part, block, batch), x in plain.items():
        found.setdefault((part, block), []).append((x, quantized[part, block, batch]))
    return found


def _row(place: tuple[str, int], pairs: list[tuple[Tensor, Tensor]]) -> dict[str, object]:
    signal, other, noise, cross = (sum(column) for column in zip(*map(_sums, pairs), strict=True))
    return {
        "part": place[0],
        "block": None if place[1] < 0 else place[1],
        "snr_db": 10 * math.log10(signal / noise) if noise and signal else None,
        "cosine": cross / math.sqrt(signal * other) if signal and other else None,
    }


def _sums(pair: tuple[Tensor, Tensor]) -> Iterator[float]:
    x, y = (t.double() for t in pair)
    return (float(s) for s in (x.square().sum(), y.square().sum(), (y - x).square().sum(), (x * y).sum()))
