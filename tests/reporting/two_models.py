"""One planted sweep of several models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blip2sweep.models.shipped import model_anatomy
from blip2sweep.results.collect import collect
from blip2sweep.results.sweeps import Sweep, find_sweep
from tests.synthetic import Entry, build, source, whole

LLAVA = ("vision", "connector", "language")
BLIP2 = ("vit", "qformer", "llm")
BITS = (8, 4, 3)


def cells(parts: Sequence[str], bits: Sequence[int] = BITS) -> list[list[Entry]]:
    """Each part alone and all together, at each width."""
    return [whole(own, b) for own in (*([p] for p in parts), list(parts)) for b in bits]


def lost(model: str) -> Callable[[Sequence[Entry]], float]:
    """The planted loss: of the second model twice that of the first."""
    factor = 0.5 if model == "tiny" else 1.0
    return lambda listed: min(0.95, factor * sum(2.0 ** (2 - e["bits"]) for e in listed))


def sweep(
    folder: Path,
    models: Mapping[str, list[list[Entry]]],
    like: Mapping[str, str] | None = None,
    samples: Mapping[str, int] | None = None,
    identity: Mapping[str, dict[str, object]] | None = None,
    without_baseline: Sequence[str] = (),
    name: str = "planted",
) -> None:
    """One sweep of these cells. like: {model: the shipped model whose parts it has}."""
    keys: list[str] = []
    for i, (model, recipes) in enumerate(models.items()):
        n = (samples or {}).get(model, 60)
        shipped = (like or {}).get(model, model)
        made = source(shipped, n=n)
        more = (identity or {}).get(model, {})
        made = replace(
            made, name=f"{name}-{i}", model=model, anatomy=model_anatomy(shipped), identity={**made.identity, **more}
        )
        build(folder, recipes, name=f"{name}-own-{i}", made_from=made, n=n, values=lost(model), collected=False,
              with_baseline=model not in without_baseline, seed=i, jitter=0.05)  # fmt: skip
        keys += find_sweep(folder, f"{name}-own-{i}").keys
    whole_sweep = Sweep(name, f"-m model={','.join(models)} quant.bits=8,4,3", time.time() + 1, keys, [])
    whole_sweep.write(folder)
    collect(folder, whole_sweep)
