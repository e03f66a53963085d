"""`blip2sweep import predictions FILE --like KEY`: texts of another server, scored as a cell of the same samples.

The row has the model, recipe and task of KEY, what `--set` says of where the texts come from, and the mark of an import.
Its drops are against KEY's baseline. Its identity holds the predictions' hash, so it is never KEY's own.
"""

from __future__ import annotations

import re
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.importing.prediction_file import Outputs, read_outputs
from blip2sweep.importing.rows import SEMANTICS, write_rows
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions, stem, write_predictions
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.pack import CellJob, JsonObject

BACKEND, DEVICE = "backend", "device"
NAME = re.compile(r"[a-z][a-z0-9_]*")
# Columns that say what the cell is, how it did, or where the line came from: they are KEY's, or measured.
OWN = ("key", "status", "model", "weights", "task", "data", "samples", "part", "recipe", "recipe_json", "bits", "baseline",
       "imported", "imported_from", "like", "backend_options")  # fmt: skip


class ImportedPredictions(NamedTuple):
    """name: of the sweep. key: of the row. unused: columns of the file. compared: whether KEY's baseline is there."""

    name: str
    key: str
    samples: int
    unused: Sequence[str]
    compared: bool


def import_predictions(
    path: Path, output_dir: Path, job: CellJob, settings: Sequence[str]
) -> ImportedPredictions:  # fmt: skip
    """Import a file. A second import of it is the same row.

    job: of the cell that the outputs are like. settings: `NAME=VALUE`, of which `backend` is needed. Raises UserError,
    one line with all mistakes.
    """
    told = _settings(settings)
    task = _texts_alone(planned_task(job["task"]), job)
    outputs = read_outputs(path, task.samples)
    ledger = Ledger(output_dir, only={job["key"], job["baseline"]}).refresh()
    predictions = _predictions(path, output_dir, outputs, task, ledger, job)
    key = _key(predictions, task, told, job)
    name = stem(key, predictions.hash)
    noted = write_predictions(output_dir, name, predictions)
    score_result(output_dir, name, Scorer(task))
    keys = [job["baseline"], job["key"], key]
    # A row has one name, whatever the file is called: a second import of it replaces the first.
    sweep = Sweep(
        f"predictions-{re.sub(r'[^A-Za-z0-9_.-]+', '-', told[BACKEND])}-{key[:6]}", _command(path, job, settings),
        time.time(), list(dict.fromkeys(keys)), [job["baseline"]],
    )  # fmt: skip
    line = _line(key, job, told, path, outputs)
    write_rows(output_dir, sweep, [{**line, "predictions": predictions.hash, "files": {"predictions": noted}}])
    return ImportedPredictions(sweep.name, key, len(task.samples), outputs.unused, ledger.done(job["baseline"]))


def _command(path: Path, job: CellJob, settings: Sequence[str]) -> str:
    given = [word for text in settings for word in ("--set", text)]
    return shlex.join(["import", "predictions", path.name, "--like", job["key"], *given])


def _settings(given: Sequence[str]) -> dict[str, str]:
    """{name: value}. Raises UserError, all mistakes in one line."""
    found, wrong = dict[str, str](), list[str]()
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value or not NAME.fullmatch(name):
            wrong.append(f"--set {text}: right: NAME=VALUE, such as backend=vllm")
        elif name in OWN or name.startswith(("bits_", "drop_", "baseline_", "latency_")):
            wrong.append(f"--set {name}: it is the column of what KEY has, or of what is measured; right: another name")
        elif found.setdefault(name, value) != value:
            wrong.append(f"--set {name}: {found[name]} and {value}; right: one of them")
    if BACKEND not in found and not wrong:
        wrong.append("no --set backend=NAME, which says what wrote the texts; right: such as --set backend=vllm")
    if wrong:
        raise UserError("; ".join(wrong))
    return found


def _texts_alone(task: TaskData, job: CellJob) -> TaskData:
    """The task, if its cells are scored by their texts."""
    others = [r for r in task.rules.REQUESTS if r not in ("generate", "likelihood")]
    if others or "generate" not in task.rules.REQUESTS or job.get("chat"):
        asks = "a chat model" if job.get("chat") else ", ".join(task.rules.REQUESTS)
        raise UserError(
            f"--like {job['key']}: task {task.name} asks {asks}, and a file has texts; right: a task of texts"
        )
    return task


def _predictions(
    path: Path, output_dir: Path, outputs: Outputs, task: TaskData, ledger: Ledger, job: CellJob
) -> Predictions:
    """Numbers of tokens and likelihoods are there where the file has them."""
    rows = outputs.rows
    sums = [row.nll for row in rows if row.nll is not None]
    counted: Sequence[int | None] = [row.nll_tokens for row in rows]
    if sums and None in counted:
        counted = _tokens_of_targets(output_dir, ledger, job)
    if sums and (not counted or None in counted):
        raise UserError(f"{path}: nll without nll_tokens, which no result here tells; right: both of every sample")
    tokens = [row.tokens for row in rows if row.tokens is not None]
    return Predictions(
        id=[s.id for s in task.samples],
        image_id=[s.image_id for s in task.samples],
        text=[row.text for row in rows],
        tokens=tokens or None,
        nll_sum=[*sums] if sums else None,
        nll_tokens=[n or 0 for n in counted] if sums else None,
    )


def _tokens_of_targets(output_dir: Path, ledger: Ledger, job: CellJob) -> list[int | None]:
    """The numbers of tokens of the targets, from what was computed here of the same samples; empty where nothing was."""
    for key in (job["key"], job["baseline"]):
        attempts = ledger.attempts.get(key)
        if attempts and attempts.result and attempts.result["predictions"]:
            found = read_predictions(output_dir, stem(key, attempts.result["predictions"])).nll_tokens
            return [n or None for n in found or ()]
    return []


def _key(predictions: Predictions, task: TaskData, told: Mapping[str, str], job: CellJob) -> str:
    identity = {
        "imported": "predictions", "semantics": SEMANTICS, "predictions": predictions.hash, "settings": dict(told),
        "samples": task.fingerprint, "images": task.content, "kind": task.kind, "like": job["key"],
    }  # fmt: skip
    return digest(identity)[:12]


def _line(key: str, job: CellJob, told: Mapping[str, str], path: Path, outputs: Outputs) -> JsonObject:
    """The `result` line without its predictions."""
    options = " ".join(f"{k}={v}" for k, v in sorted(told.items()) if k not in (BACKEND, DEVICE))
    untouched = job["columns"]["part"] == "none"  # the word of the baseline alone, which this row is compared with
    columns: JsonObject = {
        **job["columns"],
        **({"part": f"none ({told[BACKEND]})"} if untouched else {}),
        "baseline": job["baseline"],
        BACKEND: told[BACKEND],
        **({"backend_options": options} if options else {}),
        "imported_from": path.name,
        "like": job["key"],
    }
    return {
        "event": "result", "time": time.time(), "host": socket.gethostname(), "key": key, "imported": "predictions",
        "columns": columns, "published": {}, "layers_changed": columns.get("layers_touched"),
        "cost": _latency(outputs, told.get(DEVICE)),
    }  # fmt: skip


def _latency(outputs: Outputs, device: str | None) -> JsonObject:
    """The columns of latency, as the file gives it for single samples. It has no baseline's to compare with."""
    import numpy as np

    times = [row.latency_ms for row in outputs.rows if row.latency_ms is not None]
    found: JsonObject = {"latency_device": device} if device and times else {}
    if times:
        median, slow = (float(np.percentile(times, p)) for p in (50, 90))
        found = {"latency_ms_median": median, "latency_ms_p90": slow, "latency_samples": len(times), **found}
    return found
