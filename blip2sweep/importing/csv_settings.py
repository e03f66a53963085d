"""The method of one line of a table, and its settings: strategy, group size, symmetry, bits of activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blip2sweep.compression.quantize import METHODS
from blip2sweep.errors import UserError
from blip2sweep.importing.csv_columns import Columns
from blip2sweep.importing.csv_widths import FULL, Given, LineWidths
from blip2sweep.importing.csv_words import Width, group_of, method_of, strategy_of, yes_or_no

Settings = dict[str, str | int | bool]  # name, as in the config's `quant` -> value
READ: dict[str, Callable[[str], str | int | bool | None]] = {
    "method": method_of,
    "strategy": strategy_of,
    "symmetric": yes_or_no,
    "group_size": group_of,
}
RIGHT = {
    "method": f"one of {', '.join(sorted(METHODS))}",
    "strategy": "tensor, channel or group",
    "symmetric": "true or false",
    "group_size": "a number such as 128, or -1 for a scale a channel",
}
INPUT_BITS = "input.bits"
DEFAULT = "rtn"


class LineSettings:
    """Reads the settings of a line. notes: assumptions that the import made; each is printed once."""

    def __init__(self, columns: Columns, widths: LineWidths, notes: dict[str, None]) -> None:
        self.columns, self.widths, self.notes = columns, widths, notes

    def __call__(self, given: Given, widths: Mapping[str, Width]) -> Settings:
        """The method and its settings as the config's `quant` has them. widths: of the parts. Raises UserError."""
        settings = self._group(self._read(given), given)
        settings = self._add_group_of_widths(settings, widths, given)
        settings = self._add_input_bits(settings, widths, given)
        return {"method": self._method(given, widths), **settings}

    def _read(self, given: Given) -> Settings:
        found: Settings = {}
        for name in ("strategy", "group_size", "symmetric"):
            if name in given:
                value = READ[name](given[name])
                if value is None:
                    raise UserError(f"{self.columns.quoted(name, given[name])}: right: {RIGHT[name]}")
                found[name] = value
        return found

    def _group(self, settings: Settings, given: Given) -> Settings:
        """The settings with the strategy that a group size implies, where no column gives the strategy."""
        size, strategy = settings.get("group_size"), settings.get("strategy")
        if size is None:
            return settings
        others = {k: v for k, v in settings.items() if k != "group_size"}
        implied = "channel" if size == -1 else "group"
        if strategy is not None and strategy != implied:
            both = " and ".join(self.columns.quoted(name, given[name]) for name in ("strategy", "group_size"))
            raise UserError(f"{both} contradict each other; right: group with its size, or no size")
        if strategy is None:
            self.notes[f"group_size without strategy: {implied}"] = None
        return {**others, "strategy": implied, **({} if size == -1 else {"group_size": size})}

    def _add_group_of_widths(self, settings: Settings, widths: Mapping[str, Width], given: Given) -> Settings:
        """The settings with the group size in a width such as W4A16g128."""
        sizes = {w.group for w in widths.values() if w.group is not None}
        if len(sizes) > 1 or (sizes and settings.get("group_size", *sizes) not in sizes):
            raise UserError("several sizes of groups; right: one")
        if not sizes or "group_size" in settings:
            return settings
        size = min(sizes)
        return {**settings, **self._group({**settings, "group_size": size}, {**given, "group_size": str(size)})}

    def _add_input_bits(self, settings: Settings, widths: Mapping[str, Width], given: Given) -> Settings:
        """The settings with the bits of activations that the column `input_bits` gives."""
        inputs = self.widths.width("input_bits", given)
        if inputs is None:
            return settings
        others = {w.input for w in widths.values()} - {None, inputs.bits}
        if others:
            said = self.columns.quoted("input_bits", given["input_bits"])
            raise UserError(f"{said} and {others} bits of activations; right: one of them")
        return settings if inputs.bits is None or inputs.bits == 16 else {**settings, INPUT_BITS: inputs.bits}

    def _method(self, given: Given, widths: Mapping[str, Width]) -> str:
        word = given.get("method")
        named = {w.method for w in widths.values() if w.method is not None}
        if word is None:
            if not named:
                self.notes[f"no column says the method: {DEFAULT} is taken (--set method=…)"] = None
            return min(named) if len(named) == 1 else DEFAULT
        method = method_of(word)
        if method is None:
            raise UserError(f"{self.columns.quoted('method', word)}: no method of ours; right: {RIGHT['method']}")
        if named - {method}:
            said = self.columns.quoted("method", word)
            raise UserError(f"{said} and a width that says {min(named)}; right: one of them")
        return method


def of_part(width: Width, method: str, inputs: int | None) -> dict[str, object]:
    """The settings of one part in the config's `per_part`. method, inputs: those of the line."""
    bits = width.input if width.input not in FULL else inputs
    own = {"method": width.method} if width.method and width.method != method else {}
    return {"bits": width.bits, **own, **({"input": {"bits": bits}} if bits else {})}
