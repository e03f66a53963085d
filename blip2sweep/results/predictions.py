"""Predictions and their statistics on disk: `predictions/<key>-<hash>.json` and `scores/<key>-<hash>.npz`.

Statistics by another rule of scoring are in a file of their own (score_folders.py).
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_atomic, write_noted
from blip2sweep.metrics import METRICS
from blip2sweep.results.score_folders import SECOND, known_variants, score_folder
from blip2sweep.tasks.predictions import Predictions

NOTHING: Mapping[str, str] = MappingProxyType({})
MARK = b"blip2sweep "  # in front of a score file's checksum
RESCORE = "blip2sweep rescore"
RECOMPUTE = "right: the command the cell came from, which computes it again"


def stem(key: str, predictions_hash: str) -> str:
    """The name of a cell's predictions: its key, and 12 hex digits of their hash."""
    return f"{key}-{predictions_hash[:12]}"


def key_of(name: str) -> str:
    """The key in a name that `stem` made."""
    return name.partition("-")[0]


def keys_of(names: Collection[str]) -> set[str]:
    """The keys in such names; of 100,000 in less time than one by one."""
    return {name.partition("-")[0] for name in names}


def write_predictions(output_dir: Path, name: str, predictions: Predictions) -> list[int]:
    """Write the whole file or nothing. Returns its note, which the `result` line that commits it lists under
    `files`."""
    return write_noted(output_dir / "predictions" / f"{name}.json", predictions.columns)


def read_predictions(output_dir: Path, name: str) -> Predictions:
    """Predictions by name. Raises UserError for a missing file, and for one that contradicts its name or its checksum.
    The latter is renamed, so that every process sees the cell as lost and computes it again."""
    path = output_dir / "predictions" / f"{name}.json"
    try:
        return _checked(name, read_json(path), path)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            _set_aside(path)
        raise


def _checked(name: str, data: Any, path: Path) -> Predictions:
    first, second, _ = name.partition(SECOND)
    key, _, hash_in_name = first.rpartition("-")
    try:
        found = Predictions(**data)
        matches = not key or bool(second) or found.hash[:12] == hash_in_name
    except (TypeError, ValueError):  # other fields, or values that cannot be hashed
        matches = False
    if not matches:
        raise UserError(f"{path}: not the predictions of that name (their hash differs); {RECOMPUTE}")
    return found


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):  # the folder may be somebody else's
        path.rename(path.with_name(path.name + ".damaged"))


def predictions_or_none(output_dir: Path, name: str) -> Predictions | None:
    """`read_predictions`; None, after a remark, for a missing or damaged file."""
    try:
        return read_predictions(output_dir, name)
    except UserError as error:
        remark(str(error))
        return None


# ---- second runs, from which a noise floor is measured

RECALIBRATIONS = ("seed", "arithmetic")  # what differs when a calibrated cell is calibrated a second time


def second_run(name: str, what: str = "") -> str:
    """The name of a second run's predictions. what: one of RECALIBRATIONS; empty for a baseline at another batch
    size."""
    return f"{name}{SECOND}" + (f"-{what}" if what else "")


def second_runs(output_dir: Path, name: str) -> dict[str, str]:
    """{what: name} of the second runs whose predictions exist."""
    names = {what: second_run(name, what) for what in ("", *RECALIBRATIONS)}
    return {what: n for what, n in names.items() if (output_dir / "predictions" / f"{n}.json").exists()}


# ---- statistics


def scorer_version(statistic: str) -> str:
    """The versions of all metrics that are computed from one statistic array."""
    return "; ".join(dict.fromkeys(m.version for m in METRICS.values() if m.statistic == statistic))


def write_statistics(
    output_dir: Path,
    name: str,
    statistics: Mapping[str, NDArray[np.float64]],
    variant: str = "",
    installed: Mapping[str, str] = NOTHING,
) -> None:
    """Write statistic arrays, (n, k) float64 by name, each with the version of its scorer.

    installed: {statistic: version} of what is installed beside this package and changes it.
    """
    buffer = io.BytesIO()
    versions = {s: "|".join(filter(None, (s, scorer_version(s), installed.get(s)))) for s in statistics}
    arrays = {versions[s]: a.astype(np.float64) for s, a in statistics.items()}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = MARK + b"0" * 8  # ends the file; the zeros are replaced by its checksum
    data = buffer.getvalue()[:-8]
    write_atomic(score_folder(output_dir, variant) / f"{name}.npz", data + b"%08x" % zlib.crc32(data))


def _archive(data: bytes) -> io.BytesIO:
    """The bytes of an intact score file. Raises BadZipFile for a damaged one: a zip reader does not check the end of
    the file."""
    if data[-8 - len(MARK) : -8] != MARK:  # written by an earlier version
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"{bad}: its checksum differs")
    elif data[-8:] != b"%08x" % zlib.crc32(data[:-8]):
        raise zipfile.BadZipFile("its checksum differs")
    return io.BytesIO(data)


def read_statistics(output_dir: Path, name: str) -> dict[str, NDArray[np.float64]]:
    """{statistic: (n, k) float64} of the current scorers' versions. Arrays of other versions, and broken files, count
    as missing."""
    return read_scores(output_dir, name)[0]


def read_statistic(output_dir: Path, name: str, statistic: str) -> tuple[NDArray[np.float64] | None, str]:
    """(one of `read_statistics`, None where it is missing; the version of what was installed beside this package for it,
    empty where it depends on nothing else)."""
    files = read_variants(output_dir, name).values()
    return together(files)[0].get(statistic), installed_for(files).get(statistic, "")


def read_scores(output_dir: Path, name: str) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """(`read_statistics`, whether there are arrays and all of them are current), of all variants together."""
    return together(read_variants(output_dir, name).values())


def read_variants(output_dir: Path, name: str) -> dict[str, ScoreFile]:
    """{variant: its score file} of those that there are, the default first."""
    files = {v: read_variant(output_dir, name, v) for v in ("", *known_variants(output_dir))}
    return {v: file for v, file in files.items() if file is not None}


def together(files: Collection[ScoreFile]) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """(all statistics of these score files, whether there are any and all of them are current). What several variants
    have is that of the first."""
    statistics = {s: a for f in reversed([*files]) for s, a in f.statistics.items()}
    return statistics, bool(files) and all(f.current for f in files)


def installed_for(files: Collection[ScoreFile]) -> dict[str, str]:
    """{statistic: version of what was installed beside this package} of the statistics of `together` that depend on
    it."""
    owners = {s: f for f in reversed([*files]) for s in f.statistics}
    return {s: version for s, f in owners.items() if (version := f.installed.get(s))}


class ScoreFile(NamedTuple):
    """What a score file holds. statistics: those of the current scorers; installed: {statistic: version} of what was
    installed beside this package; current: whether there are arrays and all of them are current."""

    statistics: dict[str, NDArray[np.float64]]
    installed: dict[str, str]
    current: bool


def read_variant(output_dir: Path, name: str, variant: str = "") -> ScoreFile | None:
    """The statistics of one variant; None where there is no file. A broken file is renamed, so that a look at the names
    alone shows that the cell is not scored."""
    path = score_folder(output_dir, variant) / f"{name}.npz"
    try:
        with np.load(_archive(path.read_bytes()), allow_pickle=False) as data:
            arrays = {(*n.split("|"), "", "")[:3]: data[n] for n in data.files}
        current = {s: a for (s, version, _), a in arrays.items() if version == scorer_version(s) and _is_array(a)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # damaged zip files raise errors of many kinds
        remark(
            f"{path}: cannot be read ({' '.join(str(error).split())[:100]}) and counts as not there; right: {RESCORE}"
        )
        if getattr(error, "errno", None) is None:  # the file was read, and is damaged
            _set_aside(path)
        return ScoreFile({}, {}, current=False)
    installed = {s: extra for s, _, extra in arrays if extra}
    return ScoreFile(current, installed, current=bool(arrays) and len(current) == len(arrays))


def _is_array(array: NDArray[np.float64]) -> bool:
    return array.dtype == np.float64 and array.ndim == 2
