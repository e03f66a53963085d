"""The dtype of every part and stage, always explicit."""

from __future__ import annotations

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.wire.model_section import ModelSection

NAMES = ("float32", "bfloat16", "float16")
HALF = ("bfloat16", "float16")


def part_dtypes(model: ModelSection, anatomy: Anatomy) -> dict[str, str]:
    """{part: dtype name} from `dtype` and `dtype_per_part` of a model config.

    The keys of `dtype_per_part` are parts or roles, and the last one wins. Raises UserError for an unknown dtype or
    part.
    """
    chosen = {part: ("model.dtype", str(model["dtype"])) for part in anatomy.parts}
    for word, name in (model.get("dtype_per_part") or {}).items():
        for part in _parts(str(word), anatomy):
            chosen[part] = (f"model.dtype_per_part.{word}", str(name)) if name else chosen[part]
    for key, name in chosen.values():
        if name not in NAMES:
            raise UserError(f"{key}={name}: unknown dtype; {nearest(name, NAMES)}")
    return {part: name for part, (_, name) in chosen.items()}


def _parts(word: str, anatomy: Anatomy) -> tuple[str, ...]:
    """The parts that a key of `dtype_per_part` means: a part's name or a role. A stack has no dtype of its own."""
    where = f"model.dtype_per_part.{word}"
    if "." in word:
        raise UserError(f"{where}: no such part; {nearest(word, anatomy.parts)}")
    return anatomy.resolve_names(word, where)


def stage_dtypes(model: ModelSection, anatomy: Anatomy) -> dict[str, str]:
    """{stage: dtype name}: that of its parts, or the model's where no part has one.

    Raises UserError where parts of one stage have different ones, because a stage is loaded as a whole.
    """
    found = {stage.name: str(model["dtype"]) for stage in anatomy.stages}
    own = part_dtypes(model, anatomy)
    for part in anatomy.parts.values():
        alike = {name: own[name] for name, p in anatomy.parts.items() if p.stage == part.stage}
        if len(set(alike.values())) > 1:
            listed = ", ".join(f"{name}={dtype}" for name, dtype in alike.items())
            raise UserError(f"model.dtype_per_part: {listed} are parts of one stage; right: one dtype for them")
        found[part.stage] = own[part.name]
    return found
