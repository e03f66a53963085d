"""What is known of a cell that is evaluated in rounds: of a result that stopped early, and of rounds that are done and
not committed yet. Both hold the first images of the sample set's random order."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_json
from blip2sweep.results.attempts import Attempts
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.predictions import read_predictions
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.lines import Cost, Provenance, ResultLine
from blip2sweep.wire.pack import JsonObject

FOLDER = ("cache", "prefixes")  # in the output_dir
ARTIFACTS = ("layers", "propagation")  # folders of what a result has besides
AGAIN = "these images are computed again"


@dataclass(frozen=True)
class Prefix:
    """The answers for the first `images` images, and what a result line says of them."""

    images: int
    predictions: Predictions
    cost: Cost
    layers_changed: int
    provenance: Provenance
    artifacts: JsonObject = field(default_factory=dict)


def write_prefix(output_dir: Path, key: str, prefix: Prefix) -> None:
    """Keep the rounds of a cell, whole or not at all. Raises UserError when the disk refuses. They outlive a worker, and not
    its node: what a power failure takes is computed again."""
    kept = {
        "images": prefix.images,
        "predictions": prefix.predictions.columns,
        "hash": prefix.predictions.hash,
        "cost": prefix.cost,
        "layers_changed": prefix.layers_changed,
        "provenance": prefix.provenance,
        "artifacts": prefix.artifacts,
    }
    write_json(_path(output_dir, key), kept, durable=False)


def remove_prefix(output_dir: Path, key: str) -> None:
    """Remove the rounds of a cell that is committed, where there are some."""
    with contextlib.suppress(OSError):
        _path(output_dir, key).unlink(missing_ok=True)


def known_prefix(output_dir: Path, key: str, attempts: Attempts, not_counting: Collection[str] = ()) -> Prefix | None:
    """The longest that can be read: of results that stopped early, but for those of some attempts, and of rounds that were
    kept. A damaged one is named."""
    left_out = {*not_counting, *attempts.hidden, *attempts.missing}
    results = [r for a, r in attempts.all_results.items() if a not in left_out and "stopped" in r and r["predictions"]]
    found = [_of_result(output_dir, r) for r in results]
    found += [] if not_counting else [_of_rounds(output_dir, key)]
    return max((p for p in found if p is not None), key=lambda p: p.images, default=None)


def _of_rounds(output_dir: Path, key: str) -> Prefix | None:
    path = _path(output_dir, key)
    if not path.exists():
        return None
    try:
        kept: Mapping[str, object] = read_json(path)
        predictions = Predictions(**cast("Mapping[str, list[object]]", kept["predictions"]))  # type: ignore[arg-type]
        if predictions.hash != kept["hash"]:
            raise ValueError("other predictions than those it was written with")
        rest = {name: kept[name] for name in ("cost", "layers_changed", "provenance", "artifacts")}
        return Prefix(int(cast("int", kept["images"])), predictions, **rest)  # type: ignore[arg-type]
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        remark(f"{path}: damaged ({' '.join(str(error).split())[:100]}); {AGAIN}")
        return None


def _of_result(output_dir: Path, result: ResultLine) -> Prefix | None:
    try:
        predictions = read_predictions(output_dir, predictions_name(result))
    except UserError as error:
        remark(f"{error}; {AGAIN}")
        return None
    provenance = cast("Provenance", {k: result[k] for k in Provenance.__annotations__ if k in result})  # type: ignore[literal-required]
    artifacts = {folder: _artifact(output_dir / folder / f"{predictions_name(result)}.json") for folder in ARTIFACTS}
    return Prefix(
        result["stopped"]["images"], predictions, result["cost"], result["layers_changed"], provenance,
        {folder: content for folder, content in artifacts.items() if content},
    )  # fmt: skip


def _artifact(path: Path) -> object:
    try:
        return read_json(path)
    except UserError:  # few cells have one
        return None


def _path(output_dir: Path, key: str) -> Path:
    return output_dir.joinpath(*FOLDER) / f"{key}.json"
