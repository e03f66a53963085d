"""The columns of samples.parquet: those of a cell's predictions, the metrics that have a value for a single sample, and
what its task asked: question, references and the name of the picture, which are null where the task is not known.

Parts share one schema, whether a task numbers its samples or names them by texts. Ids that are texts are in `id_text`
and `image_id_text`, with null in `id` and `image_id`; ids that are numbers the other way round. SCHEMA has the columns
of text predictions. Columns of other requests, and metrics that are not of the core, follow where some cell of the folder
has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from blip2sweep.metrics.statistics import CORE, METRICS
from blip2sweep.results.sample_questions import FIELDS, Questions
from blip2sweep.results.scored import Scored
from blip2sweep.rows import Id

NUMBERS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("id", pa.int64()), ("image_id", pa.int64()), ("text", pa.string())),
        *(("tokens", pa.int64()), ("nll_sum", pa.float64()), ("nll_tokens", pa.int64())),
        *((name, pa.float64()) for name in sorted(CORE) if METRICS[name].per_sample),
        *((f"{name}_text", pa.string()) for name in ("id", "image_id")),
        *FIELDS,
    ]
)
FURTHER = {
    "texts": pa.list_(pa.int64()),
    "scores": NUMBERS,
    "choice": pa.int64(),
    "option_nll": NUMBERS,
    "option_tokens": pa.list_(pa.int64()),
    "answer": pa.string(),
    "context": pa.list_(pa.string()),
}


def rows_of(cell: Scored, questions: Questions | None = None) -> pa.Table:
    """One row for each sample. questions: of its task, where it is known."""
    columns, n = cell.predictions.of_samples, len(cell.predictions.id)
    scores = {m.name: m.each(cell.statistics[m.statistic]) for m in cell.metrics if m.per_sample}
    ids = {**_ids("id", cell.predictions.id), **_ids("image_id", cell.predictions.image_id)}
    found: dict[str, Any] = {"key": [cell.key] * n, **columns, **scores, **ids}
    asked = questions.of(cell.predictions.id) if questions else None
    found |= {name: asked[name] for name in FIELDS.names} if asked is not None else {}
    schema = schema_of(dict.fromkeys(found, pa.float64()))
    return pa.table({name: found.get(name, [None] * n) for name in schema.names}, schema=schema)


def _ids(name: str, ids: Sequence[Id]) -> dict[str, list[Any]]:
    """The two columns of one kind of id."""
    texts = [i if isinstance(i, str) else None for i in ids]
    return {name: [None if isinstance(i, str) else i for i in ids], f"{name}_text": texts}


def schema_of(types: Mapping[str, pa.DataType]) -> pa.Schema:
    """SCHEMA, followed by the columns in `types` that it lacks.

    types: of columns that predictions do not have. They are metrics, float64, or columns of a later version.
    """
    further = sorted(set(types) - set(SCHEMA.names))
    return pa.schema([*SCHEMA, *(pa.field(n, FURTHER.get(n, types[n])) for n in further)])


def types_of(schemas: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    """{column: type} over all schemas. A column that is float64 only in some has the type of the others: an earlier
    version wrote nulls of that type in the place of a column that it did not know."""
    fields = sorted((f for schema in schemas for f in schema), key=lambda f: f.type != pa.float64())
    return {f.name: f.type for f in fields}


def together(tables: Sequence[pa.Table], columns: Mapping[str, pa.DataType] = MappingProxyType({})) -> pa.Table:
    """The tables as one, with the columns of all of them and of `columns`. A column that a table lacks is null
    there."""
    schema = schema_of(types_of([pa.schema(list(columns.items())), *(table.schema for table in tables)]))
    return pa.concat_tables([_with_all(table, schema) for table in tables])


def _with_all(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in (f for f in schema if f.name not in table.column_names):
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema).replace_schema_metadata()
