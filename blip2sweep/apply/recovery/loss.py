"""What training makes smaller: the loss of the references alone, or with the distance to a teacher's distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.lessons import Read
    from blip2sweep.compression.recover.spec import Recovery

Logits = Callable[["Read"], Tensor]


def of_batch(spec: Recovery, student: Logits, teacher: Logits | None, read: Read, tokens: int) -> Tensor:
    """The loss of some rows: a sum over their tokens, divided by the `tokens` of the whole batch.

    With a teacher: (1 - w) · task + w · T² · KL(teacher ‖ student), both distributions at temperature T (Hinton et al.,
    2015, arXiv:1503.02531, section 2).
    """
    logits = student(read)
    loss = cross_entropy(logits, _labels(read, logits), reduction="sum") / tokens
    if teacher is None:
        return loss
    assert spec.temperature is not None
    assert spec.distill_weight is not None
    with torch.no_grad():
        wanted = teacher(read)
    return (1 - spec.distill_weight) * loss + spec.distill_weight * _distance(wanted, logits, spec.temperature) / tokens


def _distance(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    ours, theirs = (log_softmax(x / temperature, -1) for x in (student, teacher))
    return temperature**2 * kl_div(ours, theirs, reduction="sum", log_target=True)


@torch.no_grad()
def likelihood(student: Logits, read: Read) -> float:
    """The sum of -log p (nats) over all tokens of the references, as `likelihood` of a language model sums it."""
    logits = student(read)
    return float(cross_entropy(logits, _labels(read, logits), reduction="none").double().sum())


def _labels(read: Read, logits: Tensor) -> Tensor:
    return torch.tensor(read.labels, dtype=torch.long, device=logits.device)
