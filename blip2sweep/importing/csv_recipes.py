"""What one line of somebody's table did to the model: from `recipe`, or from columns of parts, widths and knobs.

Nothing is guessed in silence: a quantized line without a width, a knob that its method does not use and two columns that
contradict each other are mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blip2sweep.compression.quantize import METHODS
from blip2sweep.errors import UserError
from blip2sweep.importing.csv_columns import Columns
from blip2sweep.importing.csv_file import Table
from blip2sweep.importing.csv_words import (
    Width,
    group_of,
    method_of,
    parts_of,
    strategy_of,
    untouched,
    width_of,
    yes_or_no,
)
from blip2sweep.importing.recipe_text import recipe_of_json, recipe_of_text
from blip2sweep.importing.rows import Recipes
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import MIXED, recipe_columns

Cells = Mapping[str, str]
LEFT_ALONE = Width(None)
READ = {"method": method_of, "strategy": strategy_of, "symmetric": yes_or_no, "group_size": group_of}
RIGHT = {
    "method": f"one of {', '.join(sorted(METHODS))}",
    "strategy": "tensor, channel or group",
    "symmetric": "true or false",
    "group_size": "a number such as 128, or -1 for a scale a channel",
}
DEFAULT = "rtn"


@dataclass
class LineRecipes:
    """Recipes of a file's lines. notes: what was taken for granted, each said once."""

    table: Table
    columns: Columns
    anatomy: Anatomy
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipes = Recipes(self.anatomy)
        self.widths = {p: f"bits_{p}" for p in self.anatomy.parts if f"bits_{p}" in self.columns}
        own = [v for meaning in self.widths.values() for _, v in self._values(meaning)]
        self.blank_is_untouched = not any(w is not None and w.bits in (None, 16) for w in map(width_of, own))
        self._seen: dict[tuple[str | None, ...], Recipe] = {}

    def _values(self, meaning: str) -> list[tuple[int, str]]:
        return self.table.values(self.columns.of[meaning]) if meaning in self.columns.of else []

    def __call__(self, cells: Cells) -> Recipe:
        """The recipe of a line. Raises UserError, one line, where it says none."""
        names = (
            "recipe",
            "recipe_json",
            "part",
            "blocks",
            "layers",
            "bits",
            *self.widths.values(),
            "input_bits",
            *READ,
        )
        said = tuple(self.columns.value(cells, name) for name in names)
        if said not in self._seen:
            self._seen[said] = self._recipe(dict(zip(names, said, strict=True)), cells)
        return self._seen[said]

    def _recipe(self, told: dict[str, str | None], cells: Cells) -> Recipe:
        text, listed = told.pop("recipe"), told.pop("recipe_json")
        given = {k: v for k, v in told.items() if v is not None}
        if text is None and listed is None:
            return self._from_columns(given)
        packed = "cuda" if str(cells.get("device", "")).lower().startswith(("cuda", "nvidia")) else "cpu"
        spelled = (
            None
            if text is None
            else self._untouched()
            if untouched(text)
            else recipe_of_text(text, self.recipes, packed)
        )
        recipe = spelled if listed is None else recipe_of_json(listed, self.recipes)
        assert recipe is not None
        columns = recipe_columns(recipe, 1)
        if spelled is not None and recipe_columns(spelled, 1)["recipe"] != columns["recipe"]:
            raise UserError(f"recipe says {text} and recipe_json {columns['recipe']}; right: only one of them")
        for name, word in given.items():
            if not self._agrees(name, word, columns):
                raise UserError(
                    f"{self._said(name, word)} contradicts the recipe {columns['recipe']}; right: one of the two"
                )
        return recipe

    def _said(self, meaning: str, word: str) -> str:
        return f"{self.columns.of.get(meaning, meaning)} {word}"

    def _untouched(self) -> Recipe:
        return Recipe.untouched(self.anatomy.parts)

    # ---- a recipe beside other columns

    def _agrees(self, name: str, word: str, columns: Mapping[str, Any]) -> bool:
        own = columns.get(name)
        if str(own) == word or (own is None and untouched(word)):
            return True
        if name == "part":
            parts = parts_of(word, self.anatomy)
            return parts is not None and {p.partition(".")[0] for p in parts} == self._touched(columns)
        if name == "bits":
            width = width_of(word)
            return width is not None and all(
                self._same(columns[f"bits_{p}"], str(width.bits)) for p in self._touched(columns)
            )
        if name.startswith("bits_") or name == "input_bits":
            width = width_of(word)
            return self._same(own, word) or (width is not None and self._same(own, str(width.bits)))
        if name in READ and own is not None and own != MIXED:
            read = READ[name](word)
            return str(read) == str(own) or (name == "group_size" and self._same(own, str(read)))
        # Of a part left alone, or per channel, a knob says nothing; a blank of a mixed recipe is `mixed`.
        return own is None and (columns["part"] == "none" or (name == "group_size" and group_of(word) == -1))

    def _touched(self, columns: Mapping[str, Any]) -> set[str]:
        return {p for p in self.anatomy.parts if columns[f"bits_{p}"] is not None}

    @staticmethod
    def _same(own: Any, word: str) -> bool:
        try:
            return own is not None and abs(float(own) - float(word)) <= 1e-6 * float(own)
        except ValueError:
            return False

    # ---- columns alone

    def _from_columns(self, given: dict[str, str]) -> Recipe:
        widths = self._widths(given)
        if not widths:
            return self._untouched()
        knobs = self._knobs(given)
        quant = {"method": self._method(given, widths, knobs), **knobs}
        inputs = quant.pop("input.bits", None)
        per_part = {part: self._part_knobs(w, str(quant["method"]), inputs) for part, w in widths.items()}
        own = {k: given.get(k, "all") for k in ("blocks", "layers")}
        config = {"part": "+".join(widths), **own, "quant": quant, "per_part": _nested(per_part)}
        recipe = resolve_recipe(config, self.anatomy, runs=False)
        for name in quant:
            if f"quant.{name}" not in recipe.used and name != "method":
                raise UserError(
                    f"{self._said(name, given.get(name, str(quant[name])))}: {quant['method']} has no such knob here; right: blank"
                )
        return recipe

    def _widths(self, given: dict[str, str]) -> dict[str, Width]:
        """The width of every part that was touched; {} for the untouched model."""
        common = self._width("bits", given)
        own = {p: w for p, name in self.widths.items() if (w := self._width(name, given)) is not None}
        real = {p: w for p, w in own.items() if w.bits is not None}
        if "part" in given:
            return self._of_parts(given, common, own)
        if (
            "method" in given
            and untouched(given["method"])
            and not real
            and (common is None or common.bits in (None, 16))
        ):
            return {}
        if self.widths:
            return self._of_heads(given, common, own)
        if common is not None and common.bits is None:
            return {}
        if "part" in self.columns and not given:
            return {}
        if "part" in self.columns:
            raise UserError("no part is named; right: a part, or none for the untouched model")
        if common is None or common.bits == 16:
            raise (
                UserError("no width; right: a width, or none for the untouched model")
                if common is None
                else UserError("16 bits of a part that is not named; right: none for the untouched model")
            )
        raise UserError("no column says which part; right: --set part=all, --set part=llm, or a column part")

    def _of_parts(self, given: dict[str, str], common: Width | None, own: Mapping[str, Width]) -> dict[str, Width]:
        """Of the parts that the column `part` names."""
        parts = parts_of(given["part"], self.anatomy)
        if parts is None:
            return dict.fromkeys(self.anatomy.part_names(given["part"]), LEFT_ALONE)  # which says what is wrong
        implied = self._implied(given)
        found = {}
        for part in parts:
            told = [w for w in (own.get(part.partition(".")[0]), common) if w is not None]
            if len({w.bits for w in told}) > 1:
                raise UserError(f"bits {told[1].bits} and {told[0].bits} of {part}; right: one width")
            if not told and implied is None:
                if "method" in given and untouched(given["method"]):
                    told = [LEFT_ALONE]
                else:
                    raise UserError(f"part {given['part']} and no width; right: bits, or none for the untouched model")
            found[part] = told[0] if told else implied or LEFT_ALONE
        named = {p.partition(".")[0] for p in parts}
        beyond = [p for p, w in own.items() if p not in named and w.bits not in (None, 16)]
        if beyond or (not parts and common is not None and common.bits not in (None, 16)):
            said = f"{beyond[0]} with {own[beyond[0]].bits} bits" if beyond else f"{given['bits']} bits"
            raise UserError(f"part {given['part']} and {said}; right: part and widths that agree")
        return {p: w for p, w in found.items() if w.bits is not None}

    def _of_heads(self, given: dict[str, str], common: Width | None, own: Mapping[str, Width]) -> dict[str, Width]:
        """Of a table with a column of widths for each part and none that names the parts."""
        real = {p: w for p, w in own.items() if w.bits is not None}
        blank = [p for p in self.widths if p not in own]
        if blank and (not self.blank_is_untouched or not real):
            heads = ", ".join(self.columns.of.get(self.widths[p], self.widths[p]) for p in blank)
            raise UserError(f"no width in {heads}; right: a width, or none where a part is left alone")
        if blank:
            self.notes["a part without a width in its column is left alone"] = None
        if common is not None and any(w.bits != common.bits for w in real.values()):
            raise UserError(
                f"{self._said('bits', given['bits'])} contradicts the widths of the parts; right: one of them"
            )
        return real

    def _width(self, name: str, given: dict[str, str]) -> Width | None:
        if name not in given:
            return None
        if (width := width_of(given[name])) is None:
            raise UserError(f"{self._said(name, given[name])}: no width; right: an integer such as 4, or none")
        return width

    def _implied(self, given: dict[str, str]) -> Width | None:
        """Of a method that has one width only."""
        method = METHODS.get(method_of(given.get("method", "")) or "")
        return Width(method.bits[0]) if method and len(method.bits) == 1 else None

    def _knobs(self, given: dict[str, str]) -> dict[str, Any]:
        """strategy, group_size and symmetric as the config has them."""
        read: dict[str, Any] = {}
        for name in ("strategy", "group_size", "symmetric"):
            if name in given:
                read[name] = READ[name](given[name])
                if read[name] is None:
                    raise UserError(f"{self._said(name, given[name])}: right: {RIGHT[name]}")
        return self._grouped(read, given)

    def _grouped(self, read: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
        """A size of groups says the strategy where no column does."""
        size, strategy = read.pop("group_size", None), read.get("strategy")
        if size is None:
            return read
        implied = "channel" if size == -1 else "group"
        if strategy is not None and strategy != implied:
            said = f"{self._said('strategy', given['strategy'])} and {self._said('group_size', given['group_size'])}"
            raise UserError(f"{said} contradict each other; right: group with its size, or no size")
        if strategy is None:
            self.notes[f"group_size without strategy: {implied}"] = None
        return {**read, "strategy": implied, **({} if size == -1 else {"group_size": size})}

    def _method(self, given: Mapping[str, str], widths: Mapping[str, Width], knobs: dict[str, Any]) -> str:
        self._add_suffix(widths, knobs, given)
        word = given.get("method")
        named = {w.method for w in widths.values()} - {None}
        if word is None:
            if not named:
                self.notes[f"no column says the method: {DEFAULT} is taken (--set method=…)"] = None
            return str(next(iter(named))) if len(named) == 1 else DEFAULT
        method = method_of(word)
        if method is None:
            raise UserError(f"{self._said('method', word)}: no method of ours; right: {RIGHT['method']}")
        if named - {method}:
            raise UserError(
                f"{self._said('method', word)} and a width that says {min(map(str, named))}; right: one of them"
            )
        return method

    def _add_suffix(self, widths: Mapping[str, Width], knobs: dict[str, Any], given: Mapping[str, str]) -> None:
        """`g128` of a width such as W4A16g128, and its activations."""
        sizes = {w.group for w in widths.values()} - {None}
        if len(sizes) > 1 or (sizes and knobs.get("group_size", *sizes) not in sizes):
            raise UserError("several sizes of groups; right: one")
        if sizes and "group_size" not in knobs:
            size = next(iter(sizes))
            knobs |= self._grouped({**knobs, "group_size": size}, {**given, "group_size": str(size)})
        if "input_bits" in given:
            inputs = self._width("input_bits", dict(given))
            other = {w.input for w in widths.values()} - {None, inputs.bits if inputs else None}
            if other:
                raise UserError(
                    f"{self._said('input_bits', given['input_bits'])} and {other} bits of activations; right: one of them"
                )
            if inputs and inputs.bits not in (None, 16):
                knobs["input.bits"] = inputs.bits

    def _part_knobs(self, width: Width, method: str, inputs: int | None) -> dict[str, Any]:
        own: dict[str, Any] = {"bits": width.bits}
        own |= {"method": width.method} if width.method and width.method != method else {}
        inputs = width.input if width.input not in (None, 16) else inputs
        return {**own, **({"input": {"bits": inputs}} if inputs else {})}


def _nested(per_part: Mapping[str, Any]) -> dict[str, Any]:
    """`llm.encoder` one level deeper, as the config has it."""
    found: dict[str, Any] = {}
    for name, knobs in per_part.items():
        part, _, stack = name.partition(".")
        found.setdefault(part, {}).update({stack: knobs} if stack else knobs)
    return found
