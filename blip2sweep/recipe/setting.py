"""The setting of a recipe: what it does in words, without widths. The analysis compares cells of one setting.

Entries are those of `recipe_json`: `{target, method, bits, …}` of a quantizer, `{step, target, …}` of another step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby

import orjson

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.recipe_file import MEASURED
from blip2sweep.compression.step import DROP, QUANTIZE, step
from blip2sweep.errors import UserError
from blip2sweep.recipe.compact import kind_of

Entry = Mapping[str, object]
NAMED = ("target", "bits", "method", "strategy", "group_size", "symmetric", "input")  # `setting_of` names these itself
# The JSON of one entry: what is said between its width and its target, and the target's part.
ONE = re.compile(r'\[\{(?:"bits":[0-9.]+,)?([^{}\[\]]*)"target":"([^"\\:.]*)[^"\\]*"\}\]')


def alike(recipe_json: str) -> str:
    """A recipe without the width and the blocks of its quantizer; the recipe itself where it is of several entries or
    another step. Many rows have the same one, with their setting and their semantics."""
    found = ONE.fullmatch(recipe_json)
    return recipe_json if found is None or '"step":' in found[1] else f'[{{{found[1]}"target":"{found[2]}"}}]'


def setting(recipe_json: str, dropped: str = "") -> str:
    """The setting of a row: `rtn/channel`, `without language:4-5 + rtn/channel`; `none` for the baseline.

    dropped: the dropped blocks in words, where they are known better than by the targets.
    """
    return _setting(alike(recipe_json), dropped)


@lru_cache(maxsize=65536)
def _setting(recipe_json: str, dropped: str) -> str:
    every = [undigested(e) for e in orjson.loads(recipe_json)]
    quantized = all(kind_of(e) == QUANTIZE for e in every)
    return setting_name(every) if quantized else setting_text(every, dropped)


def undigested(entry: Entry) -> dict[str, object]:
    """An entry without the digests of calibration samples and of training, also in its inner ones."""
    return {k: undigested(v) if isinstance(v, Mapping) else v for k, v in entry.items() if k not in MEASURED}


def part_of(entry: Entry) -> str:
    """The part of an entry's target: `language` of `language.encoder:all:mlp`."""
    return str(entry["target"]).partition(":")[0].partition(".")[0]


def place(entry: Entry) -> str:
    """The target of an entry without `all`: `language:4-5`, `vision`."""
    return ":".join(w for w in str(entry["target"]).split(":") if w != "all")


def entry_text(entry: Entry) -> str:
    """The spec of an entry in one word, such as `rtn4/channel`; its kind where the module of the step is not here."""
    try:
        return step(kind_of(entry)).text(entry)
    except (UserError, KeyError):
        return kind_of(entry)


# ---- quantizers


def setting_of(entry: Entry) -> str:
    """The scheme without its width: `rtn/channel`, `rtn/group32/sym`, `rtn/channel/a8`. Defaults are left out."""
    inputs = entry.get("input")
    names = [str(entry["method"]), f"{entry.get('strategy', '')}{entry.get('group_size') or ''}"]
    names += ["sym"] if entry.get("symmetric") else []
    defaults = METHODS.known(str(entry["method"])).options
    names += [f"{k}={v}" for k, v in entry.items() if k not in NAMED and v != defaults.get(k)]
    names += [_input_setting(inputs)] if isinstance(inputs, Mapping) and inputs else []
    return "/".join(n for n in names if n)


def _input_setting(inputs: Entry) -> str:
    """The quantizer of a layer's inputs: `a8`, `a8 tensor static`."""
    names = [f"a{inputs['bits']}", *(["tensor"] if inputs.get("strategy") == "tensor" else [])]
    names += ["asym"] if inputs.get("symmetric") is False else []
    return " ".join([*names, *(["static"] if inputs.get("dynamic") is False else [])])


def setting_name(recipe: Sequence[Entry]) -> str:
    """The setting of quantizers. A recipe with several settings names the parts or targets of each, as in `vision
    rtn/channel + language gptq/channel`."""
    by_setting: dict[str, list[Entry]] = {}
    for entry in recipe:
        by_setting.setdefault(setting_of(entry), []).append(entry)
    if len(by_setting) <= 1:
        return next(iter(by_setting), "none")
    parts = [part_of(e) for own in by_setting.values() for e in {part_of(x): x for x in own}.values()]
    name = part_of if len(set(parts)) == len(parts) else (lambda e: str(e["target"]))
    return " + ".join(f"{'+'.join(dict.fromkeys(map(name, own)))} {setting}" for setting, own in by_setting.items())


def one_scheme(recipe: Sequence[Entry]) -> bool:
    """Whether all entries have the same setting, so that one scheme and a width say everything."""
    return len({setting_of(e) for e in recipe}) == 1


# ---- all steps


def setting_text(recipe: Sequence[Entry], dropped: str = "") -> str:
    """What all steps do in their order, without widths: `without language:4-5 + rtn/channel + lora r8`.

    dropped: as of `setting`.
    """
    words = [
        setting_name(list(own)) if kind == QUANTIZE else step_text(kind, list(own), dropped)
        for kind, own in groupby(recipe, kind_of)
    ]
    return " + ".join(words)


def step_text(kind: str, recipe: Sequence[Entry], dropped: str) -> str:
    """The entries of one further step: `without language:4-5 connector:3`, `wanda0.5 vision`, `lora r8 language`."""
    if kind == DROP:
        return f"without {dropped or ' '.join(place(e) for e in recipe)}"
    by_text: dict[str, list[str]] = {}
    for entry in recipe:
        by_text.setdefault(entry_text(entry), []).append(place(entry))
    return ", ".join(f"{text} {' '.join(places)}" for text, places in by_text.items())
