"""The recipe of one line of somebody's table: from a column of recipes, or from columns of parts, widths and settings.

Every assumption becomes a note. These are mistakes: a quantized line without a width, a setting that the method does
not use, and two columns that contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.errors import UserError
from blip2sweep.importing.csv_columns import Columns
from blip2sweep.importing.csv_file import Table
from blip2sweep.importing.csv_settings import INPUT_BITS, READ, LineSettings, of_part
from blip2sweep.importing.csv_widths import Given, LineWidths
from blip2sweep.importing.csv_words import group_of, parts_of, untouched, width_of
from blip2sweep.importing.recipe_text import recipe_of_json, recipe_of_text
from blip2sweep.importing.rows import Recipes, untouched_recipe
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import MIXED, recipe_columns
from blip2sweep.recipe.size import alike

UNSIZED = alike(1, 16)  # of a recipe whose size is not asked for
Cells = Mapping[str, str]  # column -> text


class LineRecipes:
    """Reads the recipes of a file's lines. notes: assumptions that the import made; each is printed once."""

    def __init__(self, table: Table, columns: Columns, anatomy: Anatomy) -> None:
        self.columns, self.anatomy = columns, anatomy
        self.notes: dict[str, None] = {}
        self._recipes = Recipes(anatomy)
        self._widths = LineWidths(table, columns, anatomy, self.notes)
        self._settings = LineSettings(columns, self._widths, self.notes)
        own = self._widths.meanings.values()
        self._meanings = ("recipe", "recipe_json", "part", "blocks", "layers", "bits", *own, "input_bits", *READ)
        self._known: dict[tuple[str | None, ...], Recipe] = {}

    def __call__(self, cells: Cells) -> Recipe:
        """The recipe of a line. Raises UserError, one line, where it gives none."""
        values = tuple(self.columns.value(cells, meaning) for meaning in self._meanings)
        if values not in self._known:
            given = {m: v for m, v in zip(self._meanings, values, strict=True) if v is not None}
            self._known[values] = self._recipe(given, cells)
        return self._known[values]

    def _recipe(self, given: dict[str, str], cells: Cells) -> Recipe:
        text, listed = given.pop("recipe", None), given.pop("recipe_json", None)
        device = "cuda" if cells.get("device", "").lower().startswith(("cuda", "nvidia")) else "cpu"
        by_text = None if text is None else self._of_text(text, device)
        recipe = by_text if listed is None else recipe_of_json(listed, self._recipes)
        if recipe is None:
            return self._of_columns(given)
        columns = recipe_columns(recipe, UNSIZED)
        if by_text is not None and recipe_columns(by_text, UNSIZED)["recipe"] != columns["recipe"]:
            raise UserError(f"recipe says {text} and recipe_json {columns['recipe']}; right: only one of them")
        for meaning, word in given.items():
            if not self._agrees(meaning, word, columns):
                said = self.columns.quoted(meaning, word)
                raise UserError(f"{said} contradicts the recipe {columns['recipe']}; right: one of the two")
        return recipe

    def _of_text(self, text: str, device: str) -> Recipe:
        return untouched_recipe(self.anatomy) if untouched(text) else recipe_of_text(text, self._recipes, device)

    # ---- a recipe and other columns

    def _agrees(self, meaning: str, word: str, columns: Mapping[str, object]) -> bool:
        """Whether another column's text says the same as the recipe. columns: those of the recipe."""
        value = columns.get(meaning)
        if str(value) == word or (value is None and untouched(word)):
            return True
        if meaning == "part":
            parts = parts_of(word, self.anatomy)
            return parts is not None and {p.partition(".")[0] for p in parts} == self._quantized(columns)
        if meaning == "bits":
            width = width_of(word)
            widths = [columns[f"bits_{p}"] for p in self._quantized(columns)]
            return width is not None and all(_same_number(own, str(width.bits)) for own in widths)
        if meaning.startswith("bits_") or meaning == "input_bits":
            width = width_of(word)
            return _same_number(value, word) or (width is not None and _same_number(value, str(width.bits)))
        if meaning in READ and value is not None and value != MIXED:
            read = str(READ[meaning](word))
            return read == str(value) or (meaning == "group_size" and _same_number(value, read))
        # A setting says nothing of a part that is left alone, nor -1 where there are no groups. A mixed recipe says
        # `mixed`.
        return value is None and (columns["part"] == "none" or (meaning == "group_size" and group_of(word) == -1))

    def _quantized(self, columns: Mapping[str, object]) -> set[str]:
        return {p for p in self.anatomy.parts if columns[f"bits_{p}"] is not None}

    # ---- columns without a recipe

    def _of_columns(self, given: Given) -> Recipe:
        widths = self._widths(given)
        if not widths:
            return untouched_recipe(self.anatomy)
        settings = self._settings(given, widths)
        method, inputs = str(settings["method"]), settings.pop(INPUT_BITS, None)
        per_part = {p: of_part(w, method, None if inputs is None else int(inputs)) for p, w in widths.items()}
        where = {k: given.get(k, "all") for k in ("blocks", "layers")}
        config = {"part": "+".join(widths), **where, "quant": settings, "per_part": _nested(per_part)}
        recipe = resolve_recipe(config, self.anatomy, runs=False)
        for name, value in settings.items():
            if f"quant.{name}" not in recipe.used and name != "method":
                said = self.columns.quoted(name, given.get(name, str(value)))
                raise UserError(f"{said}: {method} has no such option here; right: blank")
        return recipe


def _same_number(value: object, word: str) -> bool:
    try:
        return value is not None and abs(float(str(value)) - float(word)) <= 1e-6 * float(str(value))
    except ValueError:
        return False


def _nested(per_part: Mapping[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The settings of `llm.encoder` one level deeper, as the config has them."""
    found: dict[str, dict[str, object]] = {}
    for name, settings in per_part.items():
        part, _, stack = name.partition(".")
        found.setdefault(part, {}).update({stack: settings} if stack else settings)
    return found
