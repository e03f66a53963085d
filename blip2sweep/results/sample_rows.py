"""What samples.parquet says of a sample: the columns of a cell's predictions, and the metrics that mean something for one sample.

Parts share one schema whatever their tasks call their samples: of ids that are texts `id` and `image_id` are null, and `id_text`,
`image_id_text` have them; of numbers it is the other way round. SCHEMA has the columns of texts. Those of other requests, and the
metrics of tasks from outside, come after them, in a folder where some cell has them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from blip2sweep.metrics.statistics import BUILT_IN, METRICS
from blip2sweep.results.drops import Scored
from blip2sweep.rows import Id

NUMBERS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("id", pa.int64()), ("image_id", pa.int64()), ("text", pa.string())),
        *(("tokens", pa.int64()), ("nll_sum", pa.float64()), ("nll_tokens", pa.int64())),
        *((name, pa.float64()) for name in sorted(BUILT_IN) if METRICS[name].per_sample),
        *((f"{name}_text", pa.string()) for name in ("id", "image_id")),
    ]
)
FURTHER = {"scores": NUMBERS, "choice": pa.int64(), "option_nll": NUMBERS, "option_tokens": pa.list_(pa.int64())}


def rows_of(cell: Scored) -> pa.Table:
    """One row a sample."""
    columns, n = cell.predictions.columns, len(cell.predictions.id)
    scores = {m.name: m.each(cell.statistics[m.statistic]) for m in cell.metrics if m.per_sample}
    ids = {**_ids("id", cell.predictions.id), **_ids("image_id", cell.predictions.image_id)}
    found: dict[str, Any] = {"key": [cell.key] * n, **columns, **scores, **ids}
    schema = schema_of(found)
    return pa.table({name: found.get(name, [None] * n) for name in schema.names}, schema=schema)


def _ids(name: str, ids: Sequence[Id]) -> dict[str, list[Any]]:
    texts = [i if isinstance(i, str) else None for i in ids]
    return {name: [None if isinstance(i, str) else i for i in ids], f"{name}_text": texts}


def schema_of(names: Collection[str]) -> pa.Schema:
    """SCHEMA, and behind it those of these columns that it has not; what is no column of predictions is a metric."""
    further = sorted(set(names) - set(SCHEMA.names))
    return pa.schema([*SCHEMA, *(pa.field(n, FURTHER.get(n, pa.float64())) for n in further)])


def is_known(table: pa.Table) -> bool:
    """Whether every column is one that samples have."""
    known = {*SCHEMA.names, *FURTHER}
    return all(f.name in known or f.type == pa.float64() for f in table.schema)


def together(tables: Sequence[pa.Table], columns: Collection[str] = ()) -> pa.Table:
    """Tables as one, with the columns of all and these, null where a table has none."""
    schema = schema_of({*columns, *(name for table in tables for name in table.column_names)})
    return pa.concat_tables([_with_all(table, schema) for table in tables])


def _with_all(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in (f for f in schema if f.name not in table.column_names):
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema).replace_schema_metadata()
