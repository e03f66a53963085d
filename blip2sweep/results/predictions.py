"""Predictions and their statistics on disk: `predictions/<key>-<hash>.json`, `scores/<key>-<hash>.npz`."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_atomic, write_noted
from blip2sweep.metrics import METRICS
from blip2sweep.tasks.predictions import Predictions

MARK = b"blip2sweep "  # in front of a score file's checksum
RESCORE = "blip2sweep rescore"
AGAIN = "right: the command the cell came from, which computes it again"


def stem(key: str, predictions_hash: str) -> str:
    return f"{key}-{predictions_hash[:12]}"


def key_of(name: str) -> str:
    """The key in a `stem`."""
    return name.partition("-")[0]


def write_predictions(output_dir: Path, name: str, predictions: Predictions) -> list[int]:
    """Whole or not at all; to be followed by the `result` line that commits it, and says among its `files` what this
    returns."""
    return write_noted(output_dir / "predictions" / f"{name}.json", predictions.columns)


def read_predictions(output_dir: Path, name: str) -> Predictions:
    """Raises UserError for what is gone, and for what is not as its name or its checksum says. The latter is moved aside, so
    that the cell is lost for everybody and computed again."""
    path = output_dir / "predictions" / f"{name}.json"
    try:
        return _checked(name, read_json(path), path)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            _set_aside(path)
        raise


def _checked(name: str, data: Any, path: Path) -> Predictions:
    first, second, _ = name.partition(SECOND)
    key, _, named = first.rpartition("-")
    try:
        found = Predictions(**data)
        right = not key or bool(second) or found.hash[:12] == named
    except (TypeError, ValueError):  # other fields, or what no hash is made of
        right = False
    if not right:
        raise UserError(f"{path}: not the predictions of that name (their hash differs); {AGAIN}")
    return found


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else's folder
        path.rename(path.with_name(path.name + ".damaged"))


def predictions_or_none(output_dir: Path, name: str) -> Predictions | None:
    """`read_predictions`; what is gone or damaged is told and None."""
    try:
        return read_predictions(output_dir, name)
    except UserError as error:
        remark(str(error))
        return None


# ---- second runs, which a noise floor is measured by

SECOND = "-noise"
OTHERWISE = ("seed", "arithmetic")  # how a calibrated cell is calibrated a second time


def second_run(name: str, what: str = "") -> str:
    """The name of a second run's predictions. what: of OTHERWISE; empty: a baseline's at another batch size."""
    return f"{name}{SECOND}" + (f"-{what}" if what else "")


def second_runs(output_dir: Path, name: str) -> dict[str, str]:
    """{what: name} of those that are there."""
    named = {what: second_run(name, what) for what in ("", *OTHERWISE)}
    return {what: n for what, n in named.items() if (output_dir / "predictions" / f"{n}.json").exists()}


# ---- statistics


def scored_names(output_dir: Path) -> set[str]:
    """The predictions, by name, that have a score file; a second run is nobody's score."""
    try:
        files = os.listdir(output_dir / "scores")  # noqa: PTH208  # a hundred thousand Paths take a second
    except FileNotFoundError:
        return set()
    return {name.removesuffix(".npz") for name in files if SECOND not in name and name.endswith(".npz")}


def scorer_version(statistic: str) -> str:
    """The version of everything that reads one statistic array."""
    return "; ".join(dict.fromkeys(m.version for m in METRICS.values() if m.statistic == statistic))


def write_statistics(output_dir: Path, name: str, statistics: dict[str, NDArray[np.float64]]) -> None:
    """Statistic arrays (n, k), each with the version of its scorer."""
    buffer = io.BytesIO()
    arrays = {f"{s}|{scorer_version(s)}": a.astype(np.float64) for s, a in statistics.items()}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = MARK + b"0" * 8  # the end of the file: in the place of the noughts comes its checksum
    data = buffer.getvalue()[:-8]
    write_atomic(output_dir / "scores" / f"{name}.npz", data + b"%08x" % zlib.crc32(data))


def _archive(data: bytes) -> io.BytesIO:
    """A score file that is as it was written. Reading an array alone does not reach the end of what a zip file checks."""
    if data[-8 - len(MARK) : -8] != MARK:  # of an earlier version
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"{bad}: its checksum differs")
    elif data[-8:] != b"%08x" % zlib.crc32(data[:-8]):
        raise zipfile.BadZipFile("its checksum differs")
    return io.BytesIO(data)


def read_statistics(output_dir: Path, name: str) -> dict[str, NDArray[np.float64]]:
    """The arrays of the current scorers' versions; those of other versions, and broken files, count as not there. A broken file
    is moved aside: who looks at names alone then knows that the cell is not scored."""
    return read_scores(output_dir, name)[0]


def read_scores(output_dir: Path, name: str) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """`read_statistics`, and whether there is anything and all of it is current."""
    path = output_dir / "scores" / f"{name}.npz"
    try:
        with np.load(_archive(path.read_bytes()), allow_pickle=False) as data:
            named = {n.partition("|"): data[n] for n in data.files}
        current = {s: a for (s, _, version), a in named.items() if version == scorer_version(s) and _is_array(a)}
    except FileNotFoundError:
        return {}, False
    except Exception as error:  # a zip file can be damaged in more ways than its readers have errors for
        remark(
            f"{path}: cannot be read ({' '.join(str(error).split())[:100]}) and counts as not there; right: {RESCORE}"
        )
        if getattr(error, "errno", None) is None:  # it could be read, and is not what was written
            _set_aside(path)
        return {}, False
    return current, bool(named) and len(current) == len(named)


def _is_array(array: NDArray[np.float64]) -> bool:
    return array.dtype == np.float64 and array.ndim == 2
