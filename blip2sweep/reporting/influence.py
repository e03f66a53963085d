"""The influence of blocks that was measured in an output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.planning.influence import FOLDER
from blip2sweep.reporting.source import Source


class Influence(TypedDict):
    """A file `influence/<digest>.json`, as far as it is read here. parts: {part: 1 − cosine of each block}."""

    model: str
    weights: str
    dtype: Mapping[str, str]  # of each stage
    parts: Mapping[str, Sequence[float]]


def influence_of(source: Source) -> dict[str, list[float]]:
    """{part: the influence of each block} of the source's model and weights; empty where none was measured.

    Of several measurements those in the source's dtype count before others, and then the last by name.
    """
    row = source.cells.iloc[0]
    weights, dtype = row.get("weights"), {str(row.get("dtype"))}  # the column has the first digits of the fingerprint
    named = [i for i in _files(source) if i.get("model") == row["model"]]
    found = [i for i in named if weights is None or str(i.get("weights")).startswith(str(weights))]
    best = max(found, key=lambda i: set(i.get("dtype", {}).values()) == dtype, default=None)
    shape = source.anatomy
    if best is None or shape is None:
        return {}
    return {p: [float(v) for v in own] for p, own in best["parts"].items()
            if p in shape.parts and len(own) == shape.parts[p].n_blocks}  # fmt: skip


def _files(source: Source) -> list[Influence]:
    """Every readable file, the last by name first."""
    found = []
    for path in sorted((source.output_dir / FOLDER).glob("*.json"), reverse=True):
        try:
            text = read_json(path)
        except UserError:
            continue
        if isinstance(text, dict) and all(isinstance(text.get(k), dict) for k in ("parts", "dtype")):
            found.append(cast("Influence", text))
    return found
