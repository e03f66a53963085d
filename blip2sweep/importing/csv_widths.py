"""The width of every part in one line of a table: from `part` and `bits`, or from a column of widths a part."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.compression.quantize import METHODS
from blip2sweep.errors import UserError
from blip2sweep.importing.csv_columns import Columns
from blip2sweep.importing.csv_file import Table
from blip2sweep.importing.csv_words import Width, method_of, parts_of, untouched, width_of
from blip2sweep.models.anatomy import Anatomy

LEFT_ALONE = Width(None)
FULL = (None, 16)  # bits of a part that is left alone
Given = Mapping[str, str]  # what a line says: meaning of a column -> its text


class LineWidths:
    """Reads the widths of a line. notes: assumptions that the import made; each is printed once."""

    def __init__(self, table: Table, columns: Columns, anatomy: Anatomy, notes: dict[str, None]) -> None:
        self.columns, self.anatomy, self.notes = columns, anatomy, notes
        self.meanings = {p: f"bits_{p}" for p in anatomy.parts if f"bits_{p}" in columns}
        cells = [v for m in self.meanings.values() if m in columns.of for _, v in table.values(columns.of[m])]
        self.blank_is_untouched = not any(w is not None and w.bits in FULL for w in map(width_of, cells))

    def __call__(self, given: Given) -> dict[str, Width]:
        """The width of every part that was quantized; {} for the untouched model. Raises UserError."""
        common = self.width("bits", given)
        own = {p: w for p, name in self.meanings.items() if (w := self.width(name, given)) is not None}
        if "part" in given:
            return self._of_named_parts(given, common, own)
        if untouched(given.get("method", "")) and not _quantized(own) and (common is None or common.bits in FULL):
            return {}
        if self.meanings:
            return self._of_columns(given, common, own)
        if (common is not None and common.bits is None) or ("part" in self.columns and not given):
            return {}
        raise UserError(self._without_part(common))

    def width(self, meaning: str, given: Given) -> Width | None:
        """The width in one column, None where the line's cell is blank. Raises UserError for another text."""
        if meaning not in given:
            return None
        if (width := width_of(given[meaning])) is None:
            raise UserError(
                f"{self.columns.quoted(meaning, given[meaning])}: no width; right: an integer such as 4, or none"
            )
        return width

    def _without_part(self, common: Width | None) -> str:
        """The mistake of a line that names no part."""
        if "part" in self.columns:
            return "no part is named; right: a part, or none for the untouched model"
        if common is None:
            return "no width; right: a width, or none for the untouched model"
        if common.bits == 16:
            return "16 bits of a part that is not named; right: none for the untouched model"
        return "no column says which part; right: --set part=all, --set part=llm, or a column part"

    def _of_named_parts(self, given: Given, common: Width | None, own: Mapping[str, Width]) -> dict[str, Width]:
        """The widths of the parts that the column `part` names."""
        parts = parts_of(given["part"], self.anatomy)
        if parts is None:  # part_names says what is wrong with the name
            return dict.fromkeys(self.anatomy.part_names(given["part"]), LEFT_ALONE)
        found = {}
        for part in parts:
            stated = [w for w in (own.get(_without_stack(part)), common) if w is not None]
            found[part] = self._of_part(part, stated, given)
        self._check_others(parts, common, own, given)
        return _quantized(found)

    def _of_part(self, part: str, stated: list[Width], given: Given) -> Width:
        if len({w.bits for w in stated}) > 1:
            raise UserError(f"bits {stated[1].bits} and {stated[0].bits} of {part}; right: one width")
        if stated:
            return stated[0]
        method = METHODS.get(method_of(given.get("method", "")) or "")
        if method and len(method.bits) == 1:
            return Width(method.bits[0])
        if untouched(given.get("method", "")):
            return LEFT_ALONE
        raise UserError(f"part {given['part']} and no width; right: bits, or none for the untouched model")

    def _check_others(self, parts: list[str], common: Width | None, own: Mapping[str, Width], given: Given) -> None:
        """A part that the column `part` does not name has no width."""
        named = {_without_stack(p) for p in parts}
        others = [p for p, w in own.items() if p not in named and w.bits not in FULL]
        if others or (not parts and common is not None and common.bits not in FULL):
            what = f"{others[0]} with {own[others[0]].bits} bits" if others else f"{given['bits']} bits"
            raise UserError(f"part {given['part']} and {what}; right: part and widths that agree")

    def _of_columns(self, given: Given, common: Width | None, own: Mapping[str, Width]) -> dict[str, Width]:
        """The widths in a table with one column of widths a part and no column that names parts."""
        found = _quantized(own)
        blank = [p for p in self.meanings if p not in own]
        if blank and (not self.blank_is_untouched or not found):
            headings = ", ".join(self.columns.of.get(self.meanings[p], self.meanings[p]) for p in blank)
            raise UserError(f"no width in {headings}; right: a width, or none where a part is left alone")
        if blank:
            self.notes["a part without a width in its column is left alone"] = None
        if common is not None and any(w.bits != common.bits for w in found.values()):
            bits = self.columns.quoted("bits", given["bits"])
            raise UserError(f"{bits} contradicts the widths of the parts; right: one of them")
        return found


def _quantized(widths: Mapping[str, Width]) -> dict[str, Width]:
    return {p: w for p, w in widths.items() if w.bits is not None}


def _without_stack(part: str) -> str:
    """`llm` of `llm.encoder`."""
    return part.partition(".")[0]
