"""The order of blocks by influence: how far each turns what passes through it, 1 − cosine on calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.models.part import Part, Stack
from blip2sweep.planning.model import Model


def order_of(model: Model, part: Part, stack: Stack, config: Mapping[str, Any]) -> Sequence[int]:
    """The numbers in the part of a stack's blocks, those of least influence first. config: that of the whole cell."""
    raise UserError(
        f"drop_blocks={config['drop_blocks']}: influence is not measured yet; right: first, middle, last or numbers"
    )
