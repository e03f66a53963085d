"""`blip2sweep answers`: a cell's answers as a file for the server of a challenge."""

from __future__ import annotations

import json
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.results.challenge import Submission, submission
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions
from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.wire.lines import ResultLine
from blip2sweep.wire.pack import TaskJob


def write_answers(output_dir: Path, key: str, form: str, processor: str, fill: Path | None, out: Path | None) -> str:
    """Write the answers of the cell whose key begins so. Returns what was written, with what is missing.

    Raises UserError for a key of no or several cells, a cell without outputs, and whatever `submission` refuses.
    """
    result = _result(output_dir, key)
    found = read_predictions(output_dir, predictions_name(result))
    made = submission(_task(output_dir, result["key"]), found, form, processor, fill)
    path = out or output_dir / "answers" / f"{result['key']}-{form}.json"
    if not out:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made.rows).encode())
    return f"wrote {path}: {_told(made)}"


def _told(made: Submission) -> str:
    missing = f", {made.missing} of them empty: no output for these questions" if made.missing else ""
    added = f", and {made.added} empty ones to further questions of --fill" if made.added else ""
    return f"{len(made.rows) - made.added} answers{missing}{added}"


def _result(output_dir: Path, key: str) -> ResultLine:
    results = [r for r in Ledger(output_dir).refresh().results() if r["key"].startswith(key) and r["predictions"]]
    if len(results) != 1:
        many = f"{len(results) or 'no'} cells with outputs have such a key"
        raise UserError(f"{key}: {many}; right: the beginning of one key of `blip2sweep table`")
    return results[0]


def _task(output_dir: Path, key: str) -> TaskJob:
    for sweep in reversed(list_sweeps(output_dir, forgotten=True)):
        job = sweep_jobs(sweep.folder(output_dir)).get(key)
        if job:
            return job["task"]
    raise UserError(
        f"{key}: no pack holds it, which would name its task; right: the command it came from, with --rerun"
    )
