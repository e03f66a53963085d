"""Output folders made of planted numbers: a ledger with predictions and scores, without a model and without Java."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2sweep.importing.rows import Recipes, Source, result, write_rows
from blip2sweep.metrics.stopping import is_verdict
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.planning.cell import Cell
from blip2sweep.results.collect import collect
from blip2sweep.results.predictions import stem, write_predictions, write_statistics
from blip2sweep.results.sweeps import Sweep
from blip2sweep.rows import Id
from blip2sweep.tasks.order import order_of, prefix
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.pack import CellJob

Array = NDArray[np.float64]
Entry = dict[str, Any]
FINGERPRINT = "5e" * 32  # of the samples of every ledger here
HOSTILE = (
    "<script>window.hacked = true</script>",
    "</script><img src=x onerror='window.hacked = true'>",
    "a \u202egod\u202c on a mat",
    "x" * 10_000,
    "🐈‍⬛ on a 🛹",
    "",
    "{{scripts}} & &lt;b&gt;",
)


def source(model: str = "tiny", task: str = "shapes_caption", n: int = 200) -> Source:
    anatomy = model_anatomy(model)
    params = sum(x.weights + x.out_features * x.bias for p in anatomy.parts.values() for x in p.linears)
    identity = {"dtype": "float32", "task": task, "samples": n, "data": f"{task}-data", "generation": "{}"}
    return Source("synthetic", model, anatomy, params, identity)


def entry(target: str, bits: int, method: str = "rtn", **more: Any) -> Entry:
    """One entry of a recipe."""
    extra: Entry = {"quantize_bias": True} if method == "minmax" else {"symmetric": False}
    return {
        "target": target,
        "method": method,
        "bits": bits,
        "strategy": "tensor" if method == "minmax" else "channel",
        **extra,
        **more,
    }


def whole(parts: Iterable[str], bits: int, method: str = "rtn") -> list[Entry]:
    return [entry(f"{p}:all:all", bits, method) for p in parts]


def damage(entries: Sequence[Entry], weights: dict[str, float]) -> float:
    """Planted share of the baseline that is lost: saturating in the noise, by part."""
    s = sum(weights[str(e["target"]).split(":")[0]] * 225 / (2.0 ** e["bits"] - 1) ** 2 * _share(e) for e in entries)
    return float(s**1.5 / (1 + s**1.5))


def _share(e: Entry) -> float:
    blocks = str(e["target"]).split(":")[1]
    better = {"rtn": 1.0, "minmax": 1.6, "gptq": 0.5}.get(str(e["method"]), 1.0)
    return better * (1.0 if blocks == "all" else 0.2 + 0.1 * int(blocks) if blocks.isdigit() else 0.7)


WEIGHTS = {"vit": 0.35, "qformer": 0.05, "llm": 0.2}


def build(
    output_dir: Path,
    recipes: Sequence[Sequence[Entry]],
    name: str = "planted",
    made_from: Source | None = None,
    n: int = 200,
    texts: Callable[[int, float], list[str]] | None = None,
    seed: int = 0,
    with_baseline: bool = True,
    values: Callable[[Sequence[Entry]], float] | None = None,
    jitter: float = 0.15,
    scale: float = 1.0,
    nan: Callable[[Sequence[Entry]], bool] = lambda listed: False,
    collected: bool = True,
    ids: Sequence[Id] | None = None,
    stops: Callable[[Sequence[Entry]], tuple[int, str] | None] = lambda listed: None,
) -> Source:
    """Write a ledger of these recipes and its tables. texts(cell, kept): n outputs; values: planted share lost.

    ids: of the images; jitter: noise of single images; scale: of all scores; nan: recipes whose metric is 0/0; collected: write the tables too.
    stops: after how many images of the random order a cell stopped, and why.
    """
    origin = made_from or source(n=n)
    rng, resolve = np.random.default_rng(seed), Recipes(origin.anatomy)
    base = scale * np.clip(rng.normal(1.2, 0.8, n), 0, None)
    ids = list(ids or range(1000, 1000 + n))
    rows = []
    for i, listed in enumerate([*([[]] if with_baseline else []), *recipes]):
        lost = (values or (lambda e: damage(e, WEIGHTS)))(listed) if listed else 0.0
        noise = rng.normal(0, 1, n) * jitter * scale * (0.2 + lost) if listed else 0.0
        scores = np.clip(base * (1 - lost) + noise, 0, None)
        said = (
            texts(i, 1 - lost)
            if texts
            else [f"{'a cat' if s > 0.5 else 'cats'} {i if lost else ''} on {k}" for k, s in enumerate(scores)]
        )
        weight, told = 0.0 if nan(listed) else 1.0, stops(listed) if listed else None
        kept = prefix(order_of(FINGERPRINT, ids), ids, told[0]) if told else range(n)
        own, texts_of = [ids[k] for k in kept], [said[k] for k in kept]
        outputs = _outputs(
            output_dir, origin.key(resolve(listed)), own, texts_of, scores[list(kept)], weight, 1 + 2 * lost
        )
        rows.append({**result(origin, resolve(listed), {}, predictions=outputs), **_stopped(told, n)})
    keys = [r["key"] for r in rows]
    sweep = Sweep(name, "-m planted=true", time.time(), keys, keys[:1])
    write_rows(output_dir, sweep, rows)
    if collected:
        collect(output_dir, sweep)
    return origin


def _stopped(told: tuple[int, str] | None, n: int) -> dict[str, Any]:
    """What a result line says of a cell that stopped."""
    if told is None:
        return {}
    images, reason = told
    stop = "verdict" if is_verdict(reason) else "known"
    return {"stopped": {"images": images, "of": n, "reason": reason, "stop": stop, "margin": 0.05}}


def build_planned(
    output_dir: Path,
    cells: Iterable[Cell],
    lost: Callable[[CellJob], float],
    name: str = "planned",
    n: int = 120,
) -> None:
    """A ledger of cells as a plan makes them, digests of calibration samples and all. lost(job): planted share lost."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    base: Array = np.clip(rng.normal(1.2, 0.8, n), 0, None)
    ids: list[Id] = list(range(1000, 1000 + n))
    for cell in cells:
        job = cell.job()
        share = lost(job) if job["recipe"] else 0.0
        scores = np.clip(base * (1 - share) + rng.normal(0, 0.02, n) * bool(job["recipe"]), 0, None)
        said = [f"{job['key']} says {i}" for i in ids]
        outputs = _outputs(output_dir, job["key"], ids, said, scores, 1.0, 1 + 2 * share)
        columns = {**job["columns"], "baseline": job["baseline"]}
        rows.append({"event": "result", "time": time.time(), "host": "here", "key": job["key"], "columns": columns,
                     "predictions": outputs})  # fmt: skip
    sweep = Sweep(name, "-m planned=true", time.time(), [r["key"] for r in rows], [])
    write_rows(output_dir, sweep, rows)
    collect(output_dir, sweep)


def _outputs(
    output_dir: Path, key: str, ids: list[Id], said: list[str], scores: Array, weight: float, nll: float
) -> str:
    """Write outputs and their statistics. Returns the hash."""
    n = len(ids)
    nothing: list[float | None] = [None] * n
    predictions = Predictions(ids, ids, said, [4] * n, nothing, [0] * n)
    name = stem(key, predictions.hash)
    write_predictions(output_dir, name, predictions)
    ones = np.ones(n)
    health = np.column_stack([[not t.strip() for t in said], [len(t.split()) for t in said], ones]).astype(float)
    likely = weight * np.column_stack([nll * 4 + 0.1 * scores, 4 * ones])
    write_statistics(
        output_dir, name, {"cider": np.column_stack([scores * weight, ones * weight]), "nll": likely, "health": health}
    )
    return predictions.hash


def grid() -> list[list[Entry]]:
    """Cells for all six figures: parts and their unions, a width each, a map, single blocks and all but one, two methods."""
    parts = ("vit", "qformer", "llm")
    unions = [[p for i, p in enumerate(parts) if mask >> i & 1] for mask in range(1, 8)]
    cells = [whole(u, b, m) for u in unions for b in (8, 6, 4, 3, 2) for m in ("rtn", "gptq")]
    cells += [[*whole(["vit"], v), *whole(["llm"], t)] for v in (8, 4, 2) for t in (8, 4, 2) if v != t]
    cells += [[entry(f"{p}:{i}:all", 3)] for p in parts for i in range(6)]
    for p in parts:
        for i in range(6):
            blocks = "+".join(
                w
                for w in (
                    f"0-{i - 1}" if i > 1 else "0" if i == 1 else "",
                    f"{i + 1}-5" if i < 4 else "5" if i == 4 else "",
                )
                if w
            )
            cells.append([entry(f"{q}:{blocks if q == p else 'all'}:all", 3) for q in parts])
    return cells
