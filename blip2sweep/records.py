"""Predictions and their statistics on disk: `predictions/<key>-<hash>.json`, `scores/<key>-<hash>.npz`."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2sweep.canonical import digest
from blip2sweep.metrics import METRICS
from blip2sweep.rows import Id
from blip2sweep.store import read_json, write_atomic, write_json

FIELDS = ("id", "image_id", "text", "tokens", "nll_sum", "nll_tokens")


@dataclass(frozen=True)
class Predictions:
    """What a cell said, column by column, in the order of the task's samples."""

    id: list[Id]
    image_id: list[Id]
    text: list[str]
    tokens: list[int]
    nll_sum: list[float | None]  # None: not finite, or not measured
    nll_tokens: list[int]

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> Predictions:
        """From one dict per sample."""
        return cls(**{f: [r[f] for r in records] for f in FIELDS})

    @property
    def hash(self) -> str:
        """sha256 of all columns: texts that stay while likelihoods change are other predictions."""
        return digest([self.__dict__[name] for name in FIELDS])


def stem(key: str, predictions_hash: str) -> str:
    return f"{key}-{predictions_hash[:12]}"


def key_of(name: str) -> str:
    """The key in a `stem`."""
    return name.partition("-")[0]


def write_predictions(output_dir: Path, name: str, predictions: Predictions) -> None:
    """Whole or not at all; to be followed by the `result` line that commits it."""
    write_json(output_dir / "predictions" / f"{name}.json", predictions.__dict__)


def read_predictions(output_dir: Path, name: str) -> Predictions:
    return Predictions(**read_json(output_dir / "predictions" / f"{name}.json"))


# ---- statistics


def scored_names(output_dir: Path) -> set[str]:
    """The predictions, by name, that have a score file; a baseline's second run is nobody's score."""
    try:
        files = os.listdir(output_dir / "scores")  # noqa: PTH208  # a hundred thousand Paths take a second
    except FileNotFoundError:
        return set()
    return {name.removesuffix(".npz") for name in files if not name.endswith("-noise.npz")}


def scorer_version(statistic: str) -> str:
    """The version of everything that reads one statistic array."""
    return "; ".join(dict.fromkeys(m.version for m in METRICS.values() if m.statistic == statistic))


def write_statistics(output_dir: Path, name: str, statistics: dict[str, NDArray[np.float64]]) -> None:
    """Statistic arrays (n, k), each with the version of its scorer."""
    buffer = io.BytesIO()
    arrays = {f"{s}|{scorer_version(s)}": a.astype(np.float64) for s, a in statistics.items()}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(output_dir / "scores" / f"{name}.npz", buffer.getvalue())


def read_statistics(output_dir: Path, name: str) -> dict[str, NDArray[np.float64]]:
    """The arrays of the current scorers' versions; those of other versions, and broken files, count as not there."""
    return read_scores(output_dir, name)[0]


def read_scores(output_dir: Path, name: str) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """`read_statistics`, and whether there is anything and all of it is current."""
    path = output_dir / "scores" / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            named = {n.partition("|"): data[n] for n in data.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}, False
    current = {s: a for (s, _, version), a in named.items() if version == scorer_version(s)}
    return current, bool(named) and len(current) == len(named)
