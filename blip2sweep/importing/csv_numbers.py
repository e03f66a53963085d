"""The metrics of a table as numbers. A column has one meaning of the comma and one unit: shares or percentages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.csv_columns import Columns
from blip2sweep.importing.csv_file import Table
from blip2sweep.importing.mistakes import Mistakes
from blip2sweep.metrics import METRICS

DASHES = ("-", "–", "—", "none")
PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[-+]?\d{1,3}([,   '_]\d{3})+(\.\d+)?")
COMMA = re.compile(r"[-+]?\d+(\.\d{3})*,\d+")
# (a, b): a value of the untouched model up to a is in the metric's own unit; from b on it is in hundredths of the unit.
FRACTION, CIDER = (1.0, 5.0), (5.0, 20.0)
MOST = {"cider": 10.0}  # the largest value in the metric's own unit; 1 for all others
NO_SHARE = ("nll", "mean_length")
Values = dict[int, float]  # line -> number


def read_metrics(
    table: Table,
    columns: Columns,
    base: int | None,
    scales: Iterable[str],
    decimal: str | None,
    mistakes: Mistakes,
) -> tuple[dict[str, Values], list[str]]:
    """Metric -> its values by line, in the table's units; and notes that say how they were read.

    base: the line of the untouched model; scales, decimal: the options of the command. Raises UserError for a wrong scale.
    """
    found: dict[str, Values] = {}
    notes, plain, divisors = list[str](), list[str](), _read_scales(scales)
    for metric in columns.metrics:
        column = columns.of[metric]
        cells = table.values(column)
        values = _numbers(metric, column, cells, mistakes, decimal)
        signs = {v.endswith("%") for _, v in cells if v not in DASHES}
        if len(signs) > 1:
            mistakes.add(f"column {column}: some values have a percent sign and some have none; right: all, or none")
        percent = metric in columns.percent or signs == {True}
        given = 1 if columns.own else divisors.get(metric)
        divisor = _divisor(metric, column, values, values.get(base or 0), percent, given, mistakes)
        if divisor == 100:
            example = f", {values[base]:g} of the untouched model as {values[base] / 100:g}" if base in values else ""
            notes.append(
                f"column {column}: percentages, divided by 100{example} (--scale {metric}=1 where they are none)"
            )
        plain += [column] * (divisor == 1)
        found[metric] = {n: v / divisor for n, v in values.items()} if divisor > 1 else values
    if plain and not columns.own:
        notes.append(f"as they stand, no percentages: {', '.join(plain)} (--scale METRIC=100 where they are)")
    return found, notes


def _numbers(
    metric: str, column: str, cells: Sequence[tuple[int, str]], mistakes: Mistakes, decimal: str | None
) -> Values:
    """The numbers of a column by line. Other texts are added to the mistakes; a dash counts as blank."""
    texts = [(n, v.rstrip("%").strip()) for n, v in cells if v not in DASHES]
    comma = decimal == "comma" or (decimal is None and _decimal_comma(column, texts, mistakes))
    found: Values = {}
    for line, text in texts:
        value = _number(text, comma)
        if value is None:
            mistakes.add(f"{column} {text}: no number; right: a number such as 0.9", line)
        elif not math.isfinite(value):
            mistakes.add(f"{column} {text}: no finite number; right: blank where there is none", line)
        elif value < 0:
            mistakes.add(f"{column} {text}: less than 0; right: {metric} itself, not a difference", line)
        else:
            found[line] = value
    return found


def _decimal_comma(column: str, cells: Sequence[tuple[int, str]], mistakes: Mistakes) -> bool:
    """Whether `0,9` is nine tenths. A column of values such as `1,234` only is ambiguous, which is a mistake."""
    commas = [(n, v) for n, v in cells if "," in v]
    if not commas or any("." in v and v.rindex(".") > v.rindex(",") for _, v in commas):
        return False
    if any(not THOUSANDS.fullmatch(v) or "." in v for _, v in commas):
        return True
    line, text = commas[0]
    mistakes.add(f"{column} {text}: a thousand or a decimal comma; right: --decimal comma, or --decimal point", line)
    return True


def _number(text: str, comma: bool) -> float | None:
    if comma and COMMA.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    if not comma and THOUSANDS.fullmatch(text):
        return float(re.sub(r"[^\d.+-]", "", text))
    if PLAIN.fullmatch(text):
        return float(text)
    return math.inf if re.fullmatch(r"[-+]?inf(inity)?", text, re.IGNORECASE) else None


# ---- units


def _read_scales(words: Iterable[str]) -> dict[str, int]:
    """`--scale cider=100` -> {"cider": 100}: the divisors of the file's values."""
    found = {}
    for word in words:
        metric, _, value = word.partition("=")
        if metric not in METRICS:
            raise UserError(f"--scale {word}: no metric {metric}; {nearest(metric, METRICS)}")
        if value not in ("1", "100"):
            raise UserError(f"--scale {word}: right: {metric}=100 where the file has percentages, {metric}=1 where not")
        found[metric] = int(value)
    return found


def _divisor(
    metric: str, column: str, values: Values, base: float | None, percent: bool, given: int | None, mistakes: Mistakes
) -> int:
    """The divisor of a column's values: 1 or 100.

    base: the value of the untouched model; percent: whether the column has percent signs; given: the divisor of
    `--scale`. A unit that the untouched model's value does not decide, and a value beyond the metric's range, are added
    to the mistakes.
    """
    if metric in NO_SHARE or not values:
        return 1
    most = MOST.get(metric, 1.0)
    divisor = given or (100 if percent else _guessed(metric, column, max(values.values()), base, mistakes))
    over = next(((n, v) for n, v in values.items() if divisor and v / divisor > most + 1e-9), None)
    if over:
        unit = "percentages" if divisor == 100 else f"{metric} from 0 to {most:g}"
        mistakes.add(
            f"{column} {over[1]:g}: out of range, the column being {unit}; right: one unit, or --scale {metric}=1 or =100",
            over[0],
        )
    return divisor or 1


def _guessed(metric: str, column: str, most: float, base: float | None, mistakes: Mistakes) -> int:
    """The divisor that the untouched model's value implies. 0 where it implies none."""
    own, hundredths = CIDER if metric == "cider" else FRACTION
    if metric != "cider" and most <= own:
        return 1
    value = most if base is None else base
    if value <= own:
        return 1
    if value >= hundredths:
        return 100
    mistakes.add(
        f"column {column}: {value:g} of the untouched model may be {metric} itself or a percentage; right: --scale {metric}=1, "
        f"or --scale {metric}=100"
    )
    return 0
