"""Writes docs/columns.md from the data dictionary (blip2sweep/results/columns.py).

python scripts/columns_page.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from blip2sweep.metrics.statistics import BUILT_IN, METRICS, by_order
from blip2sweep.results.columns import SECTIONS, Column
from blip2sweep.results.sample_rows import FURTHER, SCHEMA

PAGE = Path(__file__).resolve().parent.parent / "docs" / "columns.md"
HEAD = """# The columns of table.parquet and samples.parquet

This page is made from `blip2sweep/results/columns.py` by `python scripts/columns_page.py`.

`table.parquet` has one row a cell. Every column whose name has no word in angle brackets is in every
table, in this order, null where nothing is known; the others are there where some row has them. What
a step, a task or a back end from outside adds stands behind them. `blip2sweep table --format csv` and
`--format json` print the same columns. An integer or boolean column with nulls is read by pandas as
floats or objects; a column marked "or `mixed`" is of texts in a table with such a row.
"""
SAMPLES = """
## samples.parquet

One row a cell and sample, in a folder of parquet files that readers take for one table. Ids are in `id`
and `image_id` where they are numbers, and in `id_text` and `image_id_text` where they are texts.
`question`, `references` and `file_name` (relative to the task's data folder) are what the task asked;
they are null in rows that an earlier version wrote, and where the task's data is not there any more.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections(), *_metrics(), SAMPLES, *_samples(), ""])


def _sections() -> Iterator[str]:
    for section in SECTIONS:
        yield f"## {section.title}\n"
        yield from ("| column | type | unit | what it is | null |", "|---|---|---|---|---|")
        yield from map(_row, section.columns)
        yield ""


def _row(column: Column) -> str:
    texts = (f"`{column.name}`", column.dtype, column.unit, column.meaning, column.null)
    return f"| {' | '.join(t.replace('|', chr(92) + '|') for t in texts)} |"


def _metrics() -> Iterator[str]:
    """Metrics that a table may be about, and those that detail them; a variant of a rule of scoring is its plain one's."""
    plain = [name for name in METRICS if name in BUILT_IN and not METRICS[name].plain]  # no package's own
    main, lower = by_order(plain), [n for n in sorted(plain) if not METRICS[n].higher_is_better]
    details = [
        n for n in ("bleu_4", "meteor", "rouge_l", "empty_rate", "mean_length", "vqa_accuracy_yes_no") if n in METRICS
    ]
    yield "## Metrics\n"
    yield f"`<metric>` is one of {_listed(main)}, which a table may be about, or a detail such as {_listed(details)}."
    yield f"Lower is better of {_listed(lower)}. Another rule of scoring ends the name, as in `vqa_accuracy_lavis`."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _samples() -> Iterator[str]:
    yield from ("| column | type |", "|---|---|")
    yield from (f"| `{field.name}` | {field.type} |" for field in SCHEMA)
    yield from (f"| `{name}` (of other requests) | {kind} |" for name, kind in FURTHER.items())


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
