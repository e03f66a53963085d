"""The dtype of every part and stage, always explicit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy

NAMES = ("float32", "bfloat16", "float16")
HALF = ("bfloat16", "float16")


def part_dtypes(model: Mapping[str, Any], anatomy: Anatomy) -> dict[str, str]:
    """{part: dtype name} from `dtype` and `dtype_per_part` of a model config. UserError for an unknown dtype or part."""
    own = model.get("dtype_per_part") or {}
    for part in own:
        if part not in anatomy.parts:
            raise UserError(f"model.dtype_per_part.{part}: no such part; {nearest(str(part), anatomy.parts)}")
    chosen = {part: str(own.get(part) or model["dtype"]) for part in anatomy.parts}
    for part, name in chosen.items():
        if name not in NAMES:
            key = f"dtype_per_part.{part}" if own.get(part) else "dtype"
            raise UserError(f"model.{key}={name}: unknown dtype; {nearest(name, NAMES)}")
    return chosen


def stage_dtypes(model: Mapping[str, Any], anatomy: Anatomy) -> dict[str, str]:
    """{stage: dtype name}: that of its parts, the model's where no part is named there.

    Raises UserError where parts of one stage, which are loaded alike, have different ones.
    """
    found = {stage.name: str(model["dtype"]) for stage in anatomy.stages}
    own = part_dtypes(model, anatomy)
    for part in anatomy.parts.values():
        alike = {name: own[name] for name, p in anatomy.parts.items() if p.stage == part.stage}
        if len(set(alike.values())) > 1:
            words = ", ".join(f"{name}={dtype}" for name, dtype in alike.items())
            raise UserError(f"model.dtype_per_part: {words} are parts of one stage; right: one dtype for them")
        found[part.stage] = own[part.name]
    return found
