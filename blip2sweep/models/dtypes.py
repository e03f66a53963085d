"""The dtype of every part and stage, always explicit, and the one in which its numbers are stored."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.wire.model_section import ModelSection

NAMES = ("float32", "bfloat16", "float16")
HALF = ("bfloat16", "float16")
HALF_BITS = 16
STORED = "stored_dtype"  # an attribute of modules whose numbers were rounded to a narrower dtype when they were loaded
BITS = {"float32": 32, "bfloat16": HALF_BITS, "float16": HALF_BITS}  # of a number


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


def stored_dtypes(model: ModelSection, by_stage: Mapping[str, str]) -> dict[str, str]:
    """{stage: name of the dtype in which what is not quantized is written}: `model.stored`, or the stage's own dtype.

    by_stage: of `stage_dtypes`. Weights of a stage in float32 are rounded to a narrower one when they are loaded, so
    that what is evaluated can be written. Raises UserError for an unknown dtype, and for one that does not hold the
    numbers of a stage in half precision as they are.
    """
    word = model.get("stored")
    if word is None:
        return dict(by_stage)
    name = str(word)
    if name not in NAMES:
        raise UserError(f"model.stored={name}: unknown dtype; {nearest(name, NAMES)}")
    other = {stage: dtype for stage, dtype in by_stage.items() if dtype not in (name, "float32")}
    if other:
        listed = ", ".join(f"{stage} is in {dtype}" for stage, dtype in other.items())
        right = " or ".join(f"model.stored={x}" for x in ("null", *sorted(set(other.values()))))
        raise UserError(f"model.stored={name}: {listed}, and is written as it is; right: {right}")
    return dict.fromkeys(by_stage, name)


def narrowed(model: ModelSection, by_stage: Mapping[str, str]) -> str | None:
    """The dtype to which the numbers of some stage are rounded when they are loaded; None where all stay as they are."""
    return next((s for stage, s in stored_dtypes(model, by_stage).items() if s != by_stage[stage]), None)


def agreed(names: Mapping[str, str]) -> str:
    """The column of a table: `float32`, or `part:dtype` for each part where they differ. names: {part: dtype}."""
    distinct = list(dict.fromkeys(names.values()))
    return distinct[0] if len(distinct) == 1 else " ".join(f"{k}:{v}" for k, v in names.items())


def of_part(text: str, part: str) -> str:
    """The dtype that such a column has for a part."""
    return dict(word.split(":", 1) for word in text.split() if ":" in word).get(part, text)
