"""FLOPs as torch counts them while a model is evaluated, stage by stage, one sample at a time, so without padding and with its picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from blip2sweep.backends.torch import evaluate as module
from blip2sweep.backends.torch.batching import Clock
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.backends.torch.flops import GIGA, flop_columns, of_model
from blip2sweep.models import last_block
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import Generation, TaskData
from blip2sweep.wire.model_section import ModelSection

Shape = tuple[int, ...]


def _attention(
    query: Shape, key: Shape, value: Shape, *further: object, out_shape: object = None, **named: object
) -> int:
    counted: int = sdpa_flop_count(query, key, value)
    return counted


# The counter has no formula of its own for the kernel by which attention runs on a CPU.
ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
NEAR = 1e-3  # what the counter counts and the formula does not: rotary positions, and nothing else here


class Counted(Clock):
    """A clock that counts the FLOPs of each stage instead of its seconds.

    What a worker of image-text models computes twice counts once: its connector begins with a pass of the whole tower,
    the blocks stubbed, so tokens are made of placeholders for pixels, and mergers between blocks run in both stages.
    """

    flops: ClassVar[Counter[str]] = Counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
            yield
        self.flops[name] += counter.get_total_flops() - _twice(name, counter.get_flop_counts())


def _twice(stage: str, counts: Mapping[str, Mapping[object, int]]) -> int:
    if stage == "connector":
        return counts["Global"].get(torch.ops.aten.convolution, 0)
    inside = (n for path, n in counts.items() if stage == "vision" and re.search(r"deepstack_merger_list\.\d+$", path))
    return sum(sum(n.values()) for n in inside)


def counted(
    monkeypatch: pytest.MonkeyPatch, loaded: Loaded, task: TaskData, generation: Generation
) -> tuple[Counter[str], Evaluation]:
    """({stage: FLOPs of the whole evaluation}, the evaluation)."""
    monkeypatch.setattr(Counted, "flops", Counter())
    monkeypatch.setattr(module, "Clock", Counted)
    monkeypatch.setattr(last_block, "DTYPES", ())  # a model that reads a prompt has all its tokens in every block
    found = evaluate(loaded, task, generation, batch_size=1, nll_references=0, anew=True)
    return Counted.flops, found


def told(
    loaded: Loaded, section: ModelSection, evaluation: Evaluation, recipe: Recipe | None = None
) -> dict[str, float]:
    """The columns of an evaluation."""
    own = recipe or Recipe.untouched(loaded.anatomy.parts)
    found = flop_columns(evaluation.asked, own, of_model(section, loaded.model.config.to_dict()))
    return {name: float(str(value)) for name, value in found.items()}


def check(flops: Counter[str], columns: dict[str, float], pictures: int, answers: int) -> None:
    """Compare what was counted with the columns, where a picture was read once for all its questions."""
    for stage, n in ((s, n) for s, n in flops.items() if n):
        per = (
            answers
            if stage == list(columns)[-2 if "tokens_written" in columns else -1].removeprefix("gflops_")
            else pictures
        )
        assert columns[f"gflops_{stage}"] == pytest.approx(n / per / GIGA, rel=NEAR), stage
