"""Measures the influence of blocks on calibration samples: the mean over tokens of 1 − cosine of a block's input and output.

`python -m blip2sweep.apply.influence` answers a question on stdin, which `blip2sweep.planning.influence` writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from blip2sweep import outside
from blip2sweep.apply.calibration import same_samples
from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.models.checkpoints import reply
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.part import Part
from blip2sweep.tasks.calibration import Calibration


class Turned:
    """The sum of 1 − cosine over the tokens that passed through a block, and their number."""

    def __init__(self) -> None:
        self.total, self.tokens = 0.0, 0

    def __call__(
        self, module: nn.Module, args: tuple[Tensor, ...], given: Mapping[str, Tensor], output: Tensor | tuple[Tensor, ...]
    ) -> None:  # fmt: skip
        """A forward hook."""
        before = args[0] if args else given["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.cosine_similarity(before.float(), after.to(before.device).float(), dim=-1)
        self.total += float((1 - cosine.double()).sum())
        self.tokens += cosine.numel()

    @property
    def mean(self) -> float:
        return self.total / self.tokens


@torch.inference_mode()
def measure(loaded: Loaded, samples: Calibration, parts: Collection[str]) -> dict[str, list[float]]:
    """{part: the influence of each of its blocks, from 0 to 2} of the model as it is.

    samples: each is read once with its reference, as calibration reads it. Raises FloatingPointError naming a block
    whose output is not finite.
    """
    with fixed_threads(samples.threads):
        batches = CalibrationBatches(loaded, samples)
        return {name: list(_of_part(loaded, batches, loaded.anatomy.parts[name])) for name in parts}


def _of_part(loaded: Loaded, batches: CalibrationBatches, part: Part) -> Iterator[float]:
    blocks = [(path, loaded.model.get_submodule(path), Turned()) for s in part.stacks for path in s.block_paths]
    with ExitStack() as hooks:
        for _, block, turned in blocks:
            hooks.callback(block.register_forward_hook(turned, with_kwargs=True).remove)
        for batch in batches.batches(part.stage):
            batch.run()
    for path, _, turned in blocks:
        if not torch.isfinite(torch.tensor(turned.total)):
            raise FloatingPointError(f"{path}: its output is not finite on the calibration samples")
        yield turned.mean


def main() -> None:
    question = json.load(sys.stdin)
    outside.take(question.get("outside") or {})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load(question["model"], Path(question["folder"]), device=device)
    reply(measure(loaded, same_samples(question["calibration"]), question["parts"]))


if __name__ == "__main__":
    main()
