"""What a recipe does besides quantization, in words: dropped blocks, sparse weights, recovery, and steps from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import pandas as pd

from blip2sweep.analysis.recipes import Entry, entries
from blip2sweep.compression.step import DROP, QUANTIZE, RECOVER, SPARSITY
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import kind_of
from blip2sweep.recipe.setting import part_of, place, setting_name, step_text

NONE, UNCOMPRESSED = "none", "uncompressed"  # the kind of the baseline; what a control is before its recovery
KINDS = {DROP: "drop blocks", SPARSITY: "sparse", QUANTIZE: "quantize"}
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "fine-tuning"}  # of recovery


def quantizers(recipe: Iterable[Entry]) -> list[Entry]:
    """The entries of quantization."""
    return of_kind(recipe, QUANTIZE)


def of_kind(recipe: Iterable[Entry], *kinds: str) -> list[Entry]:
    """The entries of some kinds of step."""
    return [e for e in recipe if kind_of(e) in kinds]


def before_recovery(recipe: Sequence[Entry]) -> list[Entry]:
    """The entries of the steps before the recovery; all of them where nothing is recovered."""
    kinds = [kind_of(e) for e in recipe]
    return list(recipe[: kinds.index(RECOVER)] if RECOVER in kinds else recipe)


def with_kept(table: pd.DataFrame) -> pd.DataFrame:
    """The table whose column `recover` says too which step held-out images chose: `lora r8 20 steps, kept 0`."""
    if not {"recover", "recover_steps"} <= {*table}:
        return table
    pairs = zip(table["recover"], table["recover_steps"], strict=True)
    return table.assign(recover=[f"{text}, kept {step:g}" if pd.notna(step) else text for text, step in pairs])


def untrained(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """(whether held-out images chose step 0 for a row, whether it is uncompressed besides): then it is as the baseline."""
    if not {"recover", "recover_steps", "recipe_json"} <= {*table}:
        none = pd.Series(False, index=table.index)
        return none, none
    kept = table["recover"].notna() & table["recover_steps"].eq(0)
    plain = [k and not before_recovery(entries(str(r))) for k, r in zip(kept, table["recipe_json"], strict=True)]
    return kept, pd.Series(plain, index=table.index, dtype=bool)


def kinds_text(recipe: Iterable[Entry]) -> str:
    """The kinds of compression in their order, such as `drop blocks + quantize + LoRA`."""
    words = [next(iter(dict.fromkeys(map(_kind_word, own)))) for _, own in groupby(recipe, kind_of)]
    return " + ".join(words) or NONE


def _kind_word(entry: Entry) -> str:
    kind = kind_of(entry)
    return METHODS.get(str(entry.get("method")), kind) if kind == RECOVER else KINDS.get(kind, kind)


def further_text(recipe: Iterable[Entry], dropped: str = "") -> str:
    """What the further steps do, such as `without language:4-5 + lora r8`; '' where a recipe quantizes alone."""
    return " + ".join(step_text(kind, list(own), dropped) for kind, own in groupby(recipe, kind_of) if kind != QUANTIZE)


def recipe_text(recipe: Iterable[Entry], dropped: str = "") -> str:
    """What all steps do, with widths: `without language:4-5 + 4 bits + lora r8`; `nothing` for the baseline."""
    words = [
        _bits_text(list(own)) if kind == QUANTIZE else step_text(kind, list(own), dropped)
        for kind, own in groupby(recipe, kind_of)
    ]
    return " + ".join(words) or "nothing"


def _bits_text(recipe: Sequence[Entry]) -> str:
    """`rtn/channel 4 bits`, or the width of each target where they differ."""
    widths = list(dict.fromkeys(e["bits"] for e in recipe))
    listed = str(widths[0]) if len(widths) == 1 else ", ".join(f"{place(e)} {e['bits']}" for e in recipe)
    parts = "+".join(dict.fromkeys(part_of(e) for e in recipe))
    return (
        f"{parts} {setting_name(recipe)} {listed} bits" if len(widths) == 1 else f"{setting_name(recipe)} {listed} bits"
    )


def dropped_blocks(recipe: Iterable[Entry], anatomy: Anatomy) -> dict[str, frozenset[int]]:
    """{part: numbers of the blocks that are dropped}."""
    found: dict[str, frozenset[int]] = {}
    for entry in of_kind(recipe, DROP):
        name, blocks = str(entry["target"]).split(":")[:2]
        part = name.partition(".")[0]
        found[part] = found.get(part, frozenset()) | anatomy.parts[part].blocks(blocks)
    return found
