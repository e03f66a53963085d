"""The expected cost of training: measured where the ledger has a similar training, a rough guess otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean

from blip2sweep.compression.recover import DISTILL, LORA, QLORA
from blip2sweep.compression.step import RECOVER
from blip2sweep.recipe.trained import training_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.lines import ResultLine
from blip2sweep.wire.pack import CellJob, Columns, JsonObject

# Of one sample and parameter in one step, where nothing is measured: forward, and twice as much backward. A teacher's
# forward comes beside it.
SECONDS_FORWARD, PASSES, OF_TEACHER = 2e-12, 3, 1
DISK = "disk"  # the `cache` that keeps trained tensors for other workers


def training_seconds(jobs: Sequence[CellJob], ledger: Ledger, cache: str | None = None) -> dict[str, float]:
    """{key: seconds} of the jobs that train something. What several jobs share is counted for the first of them.

    cache: the setting of their workers, by default `disk`. What a cell of the ledger has trained is recalled from there,
    and counted for none; with any other it is trained again.
    """
    trained, per_step = _measured(ledger.results())
    known = trained if (cache or DISK) == DISK else set[str]()
    found: dict[str, float] = {}
    for job in jobs:
        name = training_name(job["recipe"], job["columns"])
        if name and name not in known:
            known.add(name)
            found[job["key"]] = _expected(_spec(job["recipe"]), job["columns"], per_step)
    return found


def _measured(results: Sequence[ResultLine]) -> tuple[set[str], dict[str, float]]:
    """(names of what was trained, {name of similar trainings: seconds of a step})."""
    names, seconds = set[str](), dict[str, list[float]]()
    for result in results:
        took = (result.get("cost") or {}).get("seconds_recover")
        if not isinstance(took, int | float):
            continue
        columns, entries = result["columns"], json.loads(result["columns"]["recipe_json"])
        names.add(training_name(entries, columns))
        spec = _spec(entries)
        seconds.setdefault(_similar(spec, columns), []).append(took / _whole(spec, "steps"))
    return names, {name: fmean(each) for name, each in seconds.items()}


def _expected(spec: JsonObject, columns: Columns, per_step: Mapping[str, float]) -> float:
    one = per_step.get(_similar(spec, columns))
    return _whole(spec, "steps") * (_guess(spec, columns) if one is None else one)


def _guess(spec: JsonObject, columns: Columns) -> float:
    """Seconds of a step, from the samples that it reads and the parameters of the model."""
    parameters = columns.get("params") or columns.get("model_bytes", 0) / 2
    passes = PASSES + (OF_TEACHER if spec.get("loss") == DISTILL else 0)
    return passes * _whole(spec, "batch_size") / _whole(spec, "processes") * parameters * SECONDS_FORWARD


def _spec(entries: Sequence[Mapping[str, object]]) -> JsonObject:
    return dict(next(e for e in entries if e.get("step") == RECOVER))


def _similar(spec: JsonObject, columns: Columns) -> str:
    method = LORA if spec.get("method") == QLORA else spec.get("method")
    own = " ".join(str(spec.get(k)) for k in ("loss", "batch_size", "processes"))
    return f"{columns['model']} {columns['dtype']} {columns['task']} {method} {own}"


def _whole(spec: JsonObject, name: str) -> int:
    value = spec.get(name)
    return value if isinstance(value, int) and value > 0 else 1
