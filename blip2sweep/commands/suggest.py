"""The command `suggest`: writes recipe files of the cells whose results would teach the most about all others, for each
second that they take."""

from __future__ import annotations

import shlex
from itertools import chain, product
from numbers import Real
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.knapsack import Problem, problems
from blip2sweep.analysis.layer_groups import layer_groups, noise
from blip2sweep.analysis.predict import fit, predictable
from blip2sweep.analysis.recipes import Entry, entries, text_of
from blip2sweep.analysis.stopped import STOPPED, verdicts_line
from blip2sweep.analysis.suggest import images_to_see, retained, suggest
from blip2sweep.canonical import canonical_json
from blip2sweep.console.quoting import quoted, yaml_text
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.planning.costs import mean_seconds, seconds_like
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.setting import part_of
from blip2sweep.recipe.size import alike
from blip2sweep.reporting.rerun import context
from blip2sweep.reporting.source import Source
from blip2sweep.results.ledger import Ledger
from blip2sweep.running.status import duration
from blip2sweep.wire.pack import Columns

Array = NDArray[np.float64]
MOST_CANDIDATES = 1500


def run_suggest(source: Source, n: int, folder: Path | None) -> list[str]:
    """Write recipe files of the n cells that would teach the most, and the command that runs them."""
    if n < 1:
        raise UserError(f"-n {n}: right: a positive number of cells")
    found = problems(predictable(source.cells, source.metric), source.known_anatomy)
    problem = max(found, key=lambda p: len(p.cells))
    fresh = candidates(problem)
    if not fresh:
        raise UserError("every combination of the widths and targets that were run has been run; right: add a width")
    chosen, seconds = choose(problem, fresh, source, n)
    words = context(source, chosen, problem.cells.iloc[-1].to_dict())
    folder = folder or source.folder / "suggested"
    paths = [folder / f"{i:02d}.yaml" for i in range(1, len(chosen) + 1)]
    for path, listed in zip(paths, chosen, strict=True):
        write_atomic(path, yaml_text({"targets": listed}).encode())
    texts = [
        f"{path}: {text_of(listed)}; about {duration(each)}"
        for path, listed, each in zip(paths, chosen, seconds, strict=True)
    ]
    command = shlex.join([*words, "recipe_file=" + ",".join(quoted(str(p)) for p in paths)])
    left = verdicts_line(source.cells, "the fit")
    total = f"about {duration(sum(seconds))} in all, on one worker"
    return [*filter(None, [left]), *texts, total, f"run them: python -m blip2sweep -m {command}"]


def candidates(problem: Problem, seed: int = 0) -> list[list[Entry]]:
    """Recipes that were not run and that combine what cells did to each part; at most 1500 of them, drawn at random."""
    pieces: dict[str, dict[str, list[Entry]]] = {p: {"[]": []} for p in problem.anatomy.parts}
    known = set()
    for text in problem.cells["recipe_json"]:
        listed = entries(text)
        known.add(canonical_json(listed))
        for part, variants in pieces.items():
            own = [e for e in listed if part_of(e) == part]
            variants[canonical_json(own)] = own
    choices = [list(variants.values()) for variants in pieces.values()]
    rng, total = np.random.default_rng(seed), int(np.prod([len(c) for c in choices]))
    if total <= 4 * MOST_CANDIDATES:
        joined = [list(chain(*parts)) for parts in product(*choices)]
    else:
        joined = [list(chain(*(c[rng.integers(len(c))] for c in choices))) for _ in range(2 * MOST_CANDIDATES)]
    fresh = {canonical_json(j): j for j in joined if j and canonical_json(j) not in known}
    unseen: list[list[Entry]] = list(fresh.values())
    picked = rng.permutation(len(unseen))[:MOST_CANDIDATES] if len(unseen) > MOST_CANDIDATES else range(len(unseen))
    return [unseen[i] for i in sorted(picked)]


def choose(
    problem: Problem, fresh: list[list[Entry]], source: Source, n: int
) -> tuple[list[list[Entry]], list[float]]:  # fmt: skip
    """The n recipes of `fresh` that teach most for each second, by a fit on the cells of the problem, and the seconds that
    each is expected to take."""
    texts = [*problem.cells["recipe_json"], *map(canonical_json, fresh)]
    groups = layer_groups(pd.DataFrame({"recipe_json": texts}), problem.anatomy)
    power, known = noise(groups.widths), len(problem.cells)
    values = problem.cells[source.metric].to_numpy(float)
    base = float(values[(problem.cells["part"] == "none").to_numpy()][0])
    predictor = fit(power[:known], values, base, groups.families)
    expected = (
        expected_seconds(problem, fresh, source.output_dir) * images_left(problem, retained(predictor, power))[known:]
    )
    seconds = np.concatenate([np.ones(known), expected])
    chosen = suggest(predictor, power, range(known), n, seconds)
    return [fresh[i - known] for i in chosen], [float(seconds[i]) for i in chosen]


def expected_seconds(problem: Problem, fresh: list[list[Entry]], output_dir: Path) -> Array:
    """Seconds of each recipe on all images: measured where the ledger has cells like it, else a guess from the model."""
    row = {str(k): v for k, v in problem.cells.iloc[0].to_dict().items() if isinstance(v, str | Real) and v == v}
    fixed = {k: v for k, v in row.items() if not k.startswith("bits_")} | {
        "samples": int(problem.cells["samples"].iloc[0])
    }
    widths, means = alike(problem.params, max(problem.number_bits.values())), mean_seconds(Ledger(output_dir).refresh())
    columns = [{**fixed, **recipe_columns(expand(listed, problem.anatomy), widths)} for listed in fresh]
    return np.array([seconds_like(cast("Columns", c), means) for c in columns])


def images_left(problem: Problem, kept: Array) -> Array:
    """The share of all images that each cell is expected to see, (cells,): below 1 where cells of the sweep stopped once
    they were known."""
    cells = problem.cells
    if STOPPED not in cells or not cells[STOPPED].fillna("").str.contains("known to").any():
        return np.ones(len(kept))
    known = cells[STOPPED].fillna("").str.extract(r"known to ±([\d.]+) %")[0].dropna().astype(float)
    images = int(cells["images_of"].max())
    return images_to_see(kept, images, float(known.min()) / 100) / images
