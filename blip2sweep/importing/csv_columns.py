"""What the columns of somebody's table mean: by our table's names, by names that others use, or by an option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.csv_file import Table
from blip2sweep.importing.csv_words import is_width, method_of, part_words, strategy_of
from blip2sweep.importing.mistakes import Mistakes
from blip2sweep.metrics import METRICS
from blip2sweep.models.anatomy import Anatomy

IDENTITY = ("model", "task", "dtype", "stored", "samples", "data", "generation")
RECIPE = (
    "recipe",
    "recipe_json",
    "part",
    "blocks",
    "layers",
    "bits",
    "input_bits",
    "method",
    "strategy",
    "group_size",
    "symmetric",
)
OWN = ("key", "recipe_json", "semantics")  # a table with all three is one of ours
# Names that others use, in letters and digits only.
SYNONYMS = {
    "part": "module component modelpart", "blocks": "block layergroup", "layers": "layer layertype",
    "bits": "bit wbits wbit numbits nbits weightbits bitwidth quantbits precisionbits", "group_size": "groupsize group gs qgroupsize wgroupsize",
    "input_bits": "abits abit actbits activationbits", "method": "quantmethod quantizer algorithm algo", "strategy": "granularity",
    "symmetric": "sym", "samples": "nsamples numsamples images nimages numimages", "cider": "ciderd ciderscore",
    "rouge_l": "rouge", "vqa_accuracy": "vqa vqaacc accuracy acc vqav2 vqav2acc vqav2accuracy overall", "nll": "loss",
    **{f"bleu_{n}": f"b{n}" for n in range(1, 5)},
}  # fmt: skip
BITS_OF = (
    "{}bits",
    "bits{}",
    "{}bit",
    "bit{}",
    "{}wbits",
    "wbits{}",
    "w{}",
    "{}w",
    "{}width",
    "width{}",
    "{}precision",
    "{}",
)
BY_VALUES = (
    "scheme",
    "format",
    "quant",
    "quantization",
    "config",
    "setting",
    "precision",
    "type",
    "mode",
    "quantscheme",
)


@dataclass
class Columns:
    """The columns of a file by their meaning.

    of: meaning -> column; constants: meaning -> one value for all lines; percent: metrics with a percent sign in the
    heading; unused: columns without a meaning; notes: how headings other than our own were read; own: whether the table
    is ours.
    """

    of: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    percent: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    own: bool = False

    def __contains__(self, meaning: str) -> bool:
        return meaning in self.of or meaning in self.constants

    def value(self, cells: Mapping[str, str], meaning: str) -> str | None:
        """A line's value of a meaning. None where its cell is blank or no column has the meaning."""
        return cells.get(self.of[meaning]) if meaning in self.of else self.constants.get(meaning)

    def quoted(self, meaning: str, word: str) -> str:
        """A cell as messages name it: the heading, and the text below it."""
        return f"{self.of.get(meaning, meaning)} {word}"

    def add(self, meaning: str, column: str) -> None:
        self.of[meaning] = column
        self.percent |= {meaning} if _is_percent(column) and meaning in METRICS else set()
        self.notes += [f"column {column}: {meaning}"] if compact(column) != compact(meaning) else []

    @property
    def metrics(self) -> list[str]:
        return [m for m in METRICS if m in self.of]


def meanings(anatomy: Anatomy) -> list[str]:
    """All meanings that a column can have."""
    return [*RECIPE, *(f"bits_{p}" for p in anatomy.parts), *METRICS, *IDENTITY]


def read_columns(
    table: Table, anatomy: Anatomy, mapped: Iterable[str], constants: Iterable[str], mistakes: Mistakes
) -> Columns:
    """The meaning of every column. mapped: `MEANING=COLUMN`, or `MEANING=` for no column; constants: `MEANING=VALUE`.

    Raises UserError for an option with an unknown name. Two columns of one meaning are added to the mistakes.
    """
    known = meanings(anatomy)
    given = dict(_option("--columns", word, known) for word in mapped)
    found = Columns(constants=dict(_option("--set", word, known) for word in constants))
    for option, column in given.items():
        if column and column not in table.columns:
            raise UserError(f"--columns {option}={column}: no such column; {nearest(column, table.columns)}")
    found.own = set(OWN) <= set(table.columns) and not given
    names = _names(anatomy)
    for column in table.columns:
        named = [m for m, c in given.items() if c == column]
        meaning = named[0] if named else _meaning(table, column, names, found.own)
        if meaning is None or (meaning in given and not named):
            found.unused.append(column)
        elif meaning in found:
            first = found.of.get(meaning, f"--set {meaning}")
            mistakes.add(
                f"columns {first} and {column} both say {meaning}; right: --columns {meaning}={column}, or the other"
            )
        else:
            found.add(meaning, column)
    return found


def compact(name: str) -> str:
    """The small letters and digits of a heading, without `×100`: `W-bits (ViT)` -> `wbitsvit`."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[x×*]\s*100\b", "", name.lower()))


def _is_percent(name: str) -> bool:
    return "%" in name or re.search(r"[x×*]\s*100\b", name.lower()) is not None


def _option(flag: str, word: str, known: list[str]) -> tuple[str, str]:
    meaning, given, value = word.partition("=")
    if not given:
        raise UserError(f"{flag} {word}: right: MEANING=…, such as {flag} part=…")
    if meaning not in known:
        raise UserError(f"{flag} {word}: nothing is called {meaning} here; {nearest(meaning, known)}")
    return meaning, value


def _names(anatomy: Anatomy) -> dict[str, str]:
    """Compact heading -> meaning."""
    found = {compact(m): m for m in (*RECIPE, *METRICS, *IDENTITY)}
    found |= {word: meaning for meaning, words in SYNONYMS.items() for word in words.split()}
    for part in anatomy.parts.values():
        found |= {form.format(word): f"bits_{part.name}" for word in part_words(part, anatomy) for form in BITS_OF}
    return found


def _meaning(table: Table, column: str, names: Mapping[str, str], own: bool) -> str | None:
    if own:  # table_csv reads the other columns of our table, such as drop_cider_low
        return column if column in names.values() else None
    name = compact(column)
    if name in BY_VALUES:
        return _by_values([v for _, v in table.values(column)])
    meaning = names.get(name)
    if meaning and meaning.startswith("bits_") and not re.search("bit|w|width|prec", name.replace("qformer", "")):
        return meaning if all(is_width(v) for _, v in table.values(column)) else None  # a heading such as `LLM`
    return meaning


def _by_values(values: list[str]) -> str | None:
    if not values:
        return None
    for meaning, fits in (("bits", is_width), ("strategy", strategy_of), ("method", method_of)):
        if all(fits(v) for v in values):
            return meaning
    return None
