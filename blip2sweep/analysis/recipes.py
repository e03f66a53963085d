"""A row's recipe taken apart: entries, settings, identities; and the words of the config that would make it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from blip2sweep.compression.quantize import METHODS
from blip2sweep.recipe.part_bits import part_columns

Entry = Mapping[str, Any]
NAMED = ("target", "bits", "method", "strategy", "group_size", "symmetric", "input")  # told by words of their own


def entries(recipe_json: str) -> list[dict[str, Any]]:
    """A row's `recipe_json`: [{target, method, bits, …}], without the digests of calibration samples.

    The language model's digest is never that of the other parts, and with upstream=model that of a part depends on the
    parts before it: a digest says nothing of what two cells have in common. The row's calibration columns do.
    """
    return [_undigested(e) for e in json.loads(recipe_json)]


def _undigested(entry: Entry) -> dict[str, Any]:
    return {k: _undigested(v) if isinstance(v, Mapping) else v for k, v in entry.items() if k != "calibration"}


def part_of(entry: Entry) -> str:
    return str(entry["target"]).partition(":")[0].partition(".")[0]


def part_names(cells: pd.DataFrame) -> list[str]:
    """The model's parts, in the order of computation, as a table's columns have them."""
    return [c.removeprefix("bits_") for c in part_columns(cells, cells["recipe"])]


def calibrates(entry: Entry) -> bool:
    """Whether its method, or a static range of its inputs, is measured on calibration samples."""
    inputs = entry.get("input")
    return bool(METHODS.known(entry["method"]).calibrates) or (inputs is not None and not inputs.get("dynamic", True))


# ---- settings


def setting_of(entry: Entry) -> str:
    """`rtn/channel`, `rtn/group32/sym`, `rtn/channel/a8`: the scheme without its width; defaults are left out."""
    words = [str(entry["method"]), f"{entry.get('strategy', '')}{entry.get('group_size') or ''}"]
    words += ["sym"] if entry.get("symmetric") else []
    defaults = METHODS.known(entry["method"]).knobs
    words += [f"{k}={v}" for k, v in entry.items() if k not in NAMED and v != defaults.get(k)]
    words += [_input_words(entry["input"])] if entry.get("input") else []
    return "/".join(w for w in words if w)


def _input_words(inputs: Entry) -> str:
    """`a8`, `a8 tensor static`: the quantizer of a layer's inputs."""
    words = [f"a{inputs['bits']}", *(["tensor"] if inputs.get("strategy") == "tensor" else [])]
    words += ["asym"] if inputs.get("symmetric") is False else []
    return " ".join([*words, *(["static"] if inputs.get("dynamic") is False else [])])


def setting_name(listed: Sequence[Entry]) -> str:
    """The one setting of a recipe, or its distinct ones joined, each with what has it: `vision rtn/channel + language gptq/channel`."""
    having: dict[str, list[Entry]] = {}
    for e in listed:
        having.setdefault(setting_of(e), []).append(e)
    if len(having) <= 1:
        return next(iter(having), "none")
    parts = [part_of(e) for own in having.values() for e in {part_of(x): x for x in own}.values()]
    who = part_of if len(set(parts)) == len(parts) else (lambda e: str(e["target"]))
    return " + ".join(f"{'+'.join(dict.fromkeys(map(who, own)))} {setting}" for setting, own in having.items())


def one_scheme(listed: Sequence[Entry]) -> bool:
    """Whether all entries have the same setting, so that one scheme and a width say everything."""
    return len({setting_of(e) for e in listed}) == 1


# ---- identity


def identity(listed: Sequence[Entry], calibrated_on: str = "") -> str:
    """The same for two recipes that do the same; calibration counts only where something is calibrated."""
    return json.dumps([list(listed), calibrated_on if any(map(calibrates, listed)) else ""], sort_keys=True)


@lru_cache(maxsize=65536)
def row_identity(recipe_json: str, calibrated_on: str) -> str:
    """The identity of a row's recipe; a table is looked through again and again."""
    return identity(entries(recipe_json), calibrated_on)


def restricted(listed: Sequence[Entry], parts: Sequence[str], calibrated_on: str = "") -> str:
    """The identity of a recipe cut down to some of its parts, for looking up the cell that has just these."""
    return identity([e for e in listed if part_of(e) in parts], calibrated_on)


def by_recipe(cells: pd.DataFrame) -> dict[str, Any]:
    """{recipe identity: row label}."""
    on = cells.get("calibrated_on", pd.Series("", index=cells.index))
    return {row_identity(str(r), str(c)): i for i, r, c in zip(cells.index, cells["recipe_json"], on, strict=True)}


def text_of(listed: Sequence[Entry]) -> str:
    """A recipe for people: `vision:all:all=4`."""
    return "; ".join(f"{e['target']}={e['bits']}" for e in listed) or "the baseline"


# ---- back to the config


def overrides_of(listed: Sequence[Entry]) -> list[str] | None:
    """`part=vision+language quant=gptq …` without the width, for a recipe of one scheme and one target a part; else None."""
    parts = [part_of(e) for e in listed]
    if not listed or not one_scheme(listed) or len(set(parts)) < len(parts):
        return None
    if any(str(e["target"]).count(":") != 2 or "." in str(e["target"]).partition(":")[0] for e in listed):
        return None
    return [f"part={'+'.join(parts)}", *_where(listed), *_scheme_words(listed[0])]


def _where(listed: Sequence[Entry]) -> Iterator[str]:
    """`blocks=… layers=…`, part by part where the parts differ; nothing for whole parts."""
    for i, knob in ((1, "blocks"), (2, "layers")):
        words = {part_of(e): str(e["target"]).split(":")[i] for e in listed}
        if set(words.values()) == {"all"}:
            continue
        same = len(set(words.values())) == 1
        yield from (
            [f"{knob}={next(iter(words.values()))}"] if same else [f"per_part.{p}.{knob}={w}" for p, w in words.items()]
        )


def _scheme_words(entry: Entry) -> list[str]:
    method = METHODS.known(entry["method"])
    words = [f"quant={method.name}"]
    words += [f"quant.strategy={entry['strategy']}"] if entry.get("strategy") != method.strategies[0] else []
    known = ("target", "bits", "method", "strategy", "input")
    words += [f"quant.{k}={_written(v)}" for k, v in entry.items() if k not in known and v != method.knobs.get(k)]
    return words + [f"quant.input.{k}={_written(v)}" for k, v in (entry.get("input") or {}).items()]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def has_width(listed: Sequence[Entry], bits: int) -> bool:
    """Whether every method of a recipe has a width."""
    return all(METHODS.known(e["method"]).has_bits(bits) for e in listed)
