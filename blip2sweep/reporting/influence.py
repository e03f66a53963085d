"""The influence of blocks that was measured in an output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.reporting.source import Source


class Influence(TypedDict):
    """A file `influence/<digest>.json`, as far as it is read here. parts: {part: 1 − cosine of each block}."""

    model: str
    weights: str
    dtype: str
    samples: object
    parts: Mapping[str, Sequence[float]]


def influence_of(source: Source) -> dict[str, list[float]]:
    """{part: the influence of each block} of the source's model and weights; empty where none was measured.

    Of several measurements those in the source's dtype count before others, and then the last by name.
    """
    row = source.cells.iloc[0]
    wanted = [(row.get(k), k) for k in ("model", "weights")]
    found = [i for i in _files(source) if all(str(i.get(k)) == str(v) for v, k in wanted)]
    best = max(found, key=lambda i: i.get("dtype") == row.get("dtype"), default=None)
    shape = source.anatomy
    if best is None or shape is None:
        return {}
    return {p: [float(v) for v in own] for p, own in best["parts"].items()
            if p in shape.parts and len(own) == shape.parts[p].n_blocks}  # fmt: skip


def _files(source: Source) -> list[Influence]:
    """Every readable file, the last by name first."""
    found = []
    for path in sorted((source.output_dir / "influence").glob("*.json"), reverse=True):
        try:
            text = read_json(path)
        except UserError:
            continue
        if isinstance(text, dict) and isinstance(text.get("parts"), dict):
            found.append(cast("Influence", text))
    return found
