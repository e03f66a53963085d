"""The files of the published study: read, and checked to be one whole copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import pandas as pd

from blip2sweep.errors import UserError

NAME = "gautomdas/blip2-coco"
FILES = ("configs.json", "scores.csv", "references.json")
COLUMNS = ("config", "METEOR", "CIDEr", "quantized_size")  # of scores.csv; Row has them in this order
CELLS = 1500  # number of cells in the published table


class NamedLayers(TypedDict):
    """One entry of a config in configs.json."""

    model_part: str
    layer_group: str
    layer_type: str
    num_bits: int


class Reference(TypedDict):
    """One image in references.json."""

    image_id: int
    captions: list[str]


class Row(NamedTuple):
    """One row of scores.csv. size: bits."""

    config: int
    meteor: float
    cider: float
    size: int


class Files(NamedTuple):
    """named: number of a config -> its entries; rows: of scores.csv, one a config."""

    named: dict[str, list[NamedLayers]]
    rows: list[Row]
    references: list[Reference]


def read_files(folder: Path) -> Files:
    """Read the files that every copy has. Raises UserError, one line, when the copy is not whole."""
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: {name} is missing, so this is no whole copy of {NAME}; right: {', '.join(FILES)}"
            )
    named = cast("dict[str, list[NamedLayers]]", _json(folder / "configs.json"))
    scores = _scores(folder / "scores.csv")
    _check_scores(folder, named, scores)
    references = cast("list[Reference]", _json(folder / "references.json"))
    columns = (scores[name].tolist() for name in COLUMNS)
    return Files(named, [Row(*values) for values in zip(*columns, strict=True)], references)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not whole JSON ({error}); right: copy it again") from error


def _scores(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise UserError(
            f"{path}: not a whole CSV file ({' '.join(str(error).split())}); right: copy it again"
        ) from error


def _check_scores(folder: Path, named: Mapping[str, object], scores: pd.DataFrame) -> None:
    if missing := set(COLUMNS) - set(scores):
        raise UserError(f"{folder}/scores.csv: no column {', '.join(sorted(missing))}; right: the published scores")
    if len(scores) != CELLS or scores["config"].nunique() != CELLS:
        raise UserError(
            f"{folder}/scores.csv: {len(scores)} rows of {scores['config'].nunique()} configs; right: the whole file, one row "
            f"for each of the {CELLS} cells"
        )
    unknown = [c for c in scores["config"] if str(c) not in named]
    if unknown:
        raise UserError(f"{folder}/scores.csv: config {unknown[0]} is not in configs.json; right: files of one copy")
    numbers = scores[[*COLUMNS[1:]]].apply(pd.to_numeric, errors="coerce")
    bad = scores.loc[numbers.isna().any(axis=1), "config"]
    if len(bad):
        raise UserError(
            f"{folder}/scores.csv: config {bad.iloc[0]} has no score or size that is a number; right: the whole file"
        )


def read_predictions(folder: Path, image_ids: list[int]) -> dict[int, list[str]]:
    """Captions by config, in the order of the references. {} without the file. Raises UserError for a damaged one."""
    path = folder / "predictions.parquet"
    if not path.is_file():
        return {}
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["config", "image_id", "caption"]).to_pydict()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are kinds of ValueError and KeyError
        raise UserError(
            f"{path}: not a whole parquet file of captions ({' '.join(str(error).split())[:120]}); right: copy it again"
        ) from error
    found: dict[int, list[str]] = {}
    images: dict[int, list[int]] = {}
    for config, image, caption in zip(table["config"], table["image_id"], table["caption"], strict=True):
        found.setdefault(config, []).append(caption)
        images.setdefault(config, []).append(image)
    for config, ids in images.items():
        if ids != image_ids:
            raise UserError(
                f"{path}: config {config} has {len(ids)} captions, not one for each image of references.json in order; "
                f"right: the whole file"
            )
    return found
