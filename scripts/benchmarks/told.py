"""What a run says of itself: the files of its workers, and the results in its ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.results.committed import predictions_name
from blip2sweep.results.predictions import read_predictions
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.lines import ResultLine


def of_workers(paths: Sequence[Path], began: float) -> dict[str, Any]:
    """What workers wrote (worker.py), summed over them. began: when they were started.

    spans: {name: [seconds, processor seconds]}. rounds: {images: [how often, seconds, processor seconds]}. start: the same, until the first recipe was applied. seen: the token ids of
    prompts and references. package: the file of the one that ran.
    """
    told = [json.loads(path.read_text()) for path in paths]
    names = dict.fromkeys(name for one in told for name in one["spans"])
    spans = {n: [sum(one["spans"].get(n, (0.0, 0.0))[i] for one in told) for i in (0, 1)] for n in names}
    sizes = sorted({int(n) for one in told for n in one["rounds"]})
    rounds = {n: [sum(one["rounds"].get(str(n), (0, 0.0, 0.0))[i] for one in told) for i in range(3)] for n in sizes}
    first = [one["first"] for one in told if one["first"]]
    start = [sum(at - began for at, _ in first), sum(cpu for _, cpu in first)]
    seen = {name: told[0][name] for name in ("prompts", "references")}
    return {"spans": spans, "rounds": rounds, "start": start, "seen": seen, "package": told[0]["package"]}


def written(results: Sequence[ResultLine], output_dir: Path, most: int) -> list[list[int]]:
    """Tokens of each text with its end, which a text of the full length lacks, of the cells that were computed."""
    computed = [r for r in results if not r["cost"].get("hits_language")]
    return [[min(n + 1, most) for n in predictions(r, output_dir).tokens or ()] for r in computed]


def predictions(result: ResultLine, output_dir: Path) -> Predictions:
    return read_predictions(output_dir, predictions_name(result))


def share_of_images(results: Sequence[Mapping[str, Any]]) -> float:
    """Of the images of all cells, those that were computed; 1 where no cell stopped."""
    return sum(_computed(r) for r in results) / len(results)


def _computed(result: Mapping[str, Any]) -> float:
    """The share of a cell, also of images beyond those that its result stands on, of which earlier versions computed none."""
    if (stopped := result.get("stopped")) is None:
        return 1.0
    return float(result.get("cost", {}).get("images_computed", stopped["images"]) / stopped["of"])


def share_that_counts(results: Sequence[Mapping[str, Any]]) -> float:
    """Of the images of all cells, those that results stand on."""
    stopped = [r.get("stopped") or {"images": 1, "of": 1} for r in results]
    return sum(s["images"] / s["of"] for s in stopped) / len(stopped)


def threads(results: Sequence[Mapping[str, Any]]) -> int:
    """The CPU threads that most cells were evaluated on: a worker may leave a core to scoring."""
    return Counter(int(r["threads"]) for r in results).most_common(1)[0][0]
