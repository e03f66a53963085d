"""What a row's recipe says: its entries, settings and identity, and the overrides that make it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Required, TypedDict, cast

import pandas as pd

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import QUANTIZE, step
from blip2sweep.errors import UserError
from blip2sweep.recipe.compact import kind_of
from blip2sweep.recipe.part_bits import part_columns
from blip2sweep.recipe.setting import entry_text, one_scheme, part_of, undigested

TRAINING = "training"  # what a recovery needs


class InputEntry(TypedDict, total=False):
    """The quantizer of a layer's inputs."""

    bits: Required[int]
    strategy: str
    symmetric: bool
    dynamic: bool


class Entry(TypedDict, total=False):
    """One entry of a recipe's short form.

    A method's own options are further fields; `step` is absent of a quantizer. The entry of another step has a target
    and the fields of its spec, and neither width nor, as a rule, method.
    """

    step: str
    target: Required[str]  # part:blocks:layers
    bits: Required[int]
    method: Required[str]
    strategy: str
    group_size: int | None
    symmetric: bool | None
    input: InputEntry | None


def entries(recipe_json: str) -> list[Entry]:
    """The entries of a row's `recipe_json`, without the digests of calibration samples and of training.

    A digest does not say what two cells have in common: that of the language model differs from those of the other
    parts, and with upstream=model that of a part depends on the parts before it. The row's calibration columns say it,
    and those of the training samples.
    """
    return [cast("Entry", undigested(e)) for e in json.loads(recipe_json)]


def part_names(cells: pd.DataFrame) -> list[str]:
    """The model's parts in the order of computation, as the table's columns name them."""
    return [c.removeprefix("bits_") for c in part_columns(cells, cells["recipe"].tolist())]


def calibrates(entry: Entry) -> bool:
    """Whether its method, or a static range of its inputs, needs calibration samples."""
    if is_further(entry):
        return _further_calibrates(entry)
    inputs = entry.get("input")
    return bool(METHODS.known(entry["method"]).calibrates) or (inputs is not None and not inputs.get("dynamic", True))


def is_further(entry: Mapping[str, object]) -> bool:
    """Whether an entry is of a further step, so that it has no width."""
    return kind_of(entry) != QUANTIZE


def _further_calibrates(entry: Entry) -> bool:
    """Whether a further step measures something. Training has samples of its own."""
    spec = {k: v for k, v in entry.items() if k not in ("step", "target")}
    try:
        return bool(step(kind_of(entry)).from_entry(spec).needs - {TRAINING})
    except UserError:  # of a module that is not here
        return False


# ---- identity


def identity(recipe: Sequence[Entry], calibrated_on: str = "") -> str:
    """A text that is the same for two recipes that do the same.

    The calibration counts where something is calibrated.
    """
    return json.dumps([list(recipe), calibrated_on if any(map(calibrates, recipe)) else ""], sort_keys=True)


@lru_cache(maxsize=65536)
def row_identity(recipe_json: str, calibrated_on: str) -> str:
    """The identity of a row's recipe; memoised, since a table is searched many times."""
    return identity(entries(recipe_json), calibrated_on)


def restricted(recipe: Sequence[Entry], parts: Sequence[str], calibrated_on: str = "") -> str:
    """The identity of a recipe cut down to some of its parts; it finds the cell that has just these."""
    return identity([e for e in recipe if part_of(e) in parts], calibrated_on)


def by_recipe(cells: pd.DataFrame) -> dict[str, int]:
    """{recipe identity: position of its row}."""
    on = cells.get("calibrated_on", pd.Series("", index=cells.index))
    pairs = zip(cells["recipe_json"], on, strict=True)
    return {row_identity(str(text), str(samples)): i for i, (text, samples) in enumerate(pairs)}


def text_of(recipe: Sequence[Mapping[str, object]]) -> str:
    """A recipe for people: `vision:all:all=4`."""
    return "; ".join(f"{e['target']}={_one_text(e)}" for e in recipe) or "the baseline"


def _one_text(entry: Mapping[str, object]) -> object:
    return entry_text(entry) if is_further(entry) else entry["bits"]


# ---- back to the config


def overrides_of(recipe: Sequence[Entry]) -> list[str] | None:
    """`part=vision+language quant=gptq …` without the width. None for a recipe of several schemes or of further steps,
    for several targets in one part, and for groups as long as the row, of which a recipe does not say the size."""
    parts = [part_of(e) for e in recipe]
    if not recipe or any(map(is_further, recipe)) or not one_scheme(recipe) or len(set(parts)) < len(parts):
        return None
    method = METHODS.known(recipe[0]["method"])
    if "" not in method.strategies and recipe[0].get("strategy") not in method.strategies:
        return None
    if any(e["target"].count(":") != 2 or "." in e["target"].partition(":")[0] for e in recipe):
        return None
    return [f"part={'+'.join(parts)}", *_place_overrides(recipe), *_scheme_overrides(recipe[0])]


def _place_overrides(recipe: Sequence[Entry]) -> Iterator[str]:
    """`blocks=… layers=…`, part by part where the parts differ; nothing for whole parts."""
    for i, key in ((1, "blocks"), (2, "layers")):
        chosen = {part_of(e): e["target"].split(":")[i] for e in recipe}
        if set(chosen.values()) == {"all"}:
            continue
        if len(set(chosen.values())) == 1:
            yield f"{key}={next(iter(chosen.values()))}"
        else:
            yield from (f"per_part.{part}.{key}={word}" for part, word in chosen.items())


def _scheme_overrides(entry: Entry) -> list[str]:
    method = METHODS.known(entry["method"])
    overrides = [f"quant={method.name}"]
    overrides += [f"quant.strategy={entry['strategy']}"] if entry.get("strategy") != method.strategies[0] else []
    known = ("target", "bits", "method", "strategy", "input")
    overrides += [f"quant.{k}={_written(v)}" for k, v in entry.items() if k not in known and v != method.options.get(k)]
    return overrides + [f"quant.input.{k}={_written(v)}" for k, v in (entry.get("input") or {}).items()]


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def has_width(recipe: Sequence[Entry], bits: int) -> bool:
    """Whether every method of a recipe has a width."""
    return all(METHODS.known(e["method"]).has_bits(bits) for e in recipe)
