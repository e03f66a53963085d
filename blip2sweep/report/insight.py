"""The verbs `report`, `recommend` and `suggest`: from an output folder to a page, a recipe file, the next cells."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.atoms import atoms, noise
from blip2sweep.analysis.cells import entries, part_of
from blip2sweep.analysis.predict import fit
from blip2sweep.analysis.recommend import Choice, Problem, problems, recipe_file, recommend
from blip2sweep.analysis.suggest import suggest
from blip2sweep.anatomy import Anatomy
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.report.figures import LABELS, label
from blip2sweep.report.html import build_report
from blip2sweep.report.source import Source, load_source
from blip2sweep.report.static import write_static
from blip2sweep.store import write_atomic

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
KEPT = ("model", "task", "generation", "batch_size", "data_workers", "hydra/launcher", "hydra.launcher", "tracking")
MOST_CANDIDATES = 1500


def report(source: Source, path: Path | None, png: bool, pdf: bool) -> list[str]:
    """Write the page, its CSVs and the pictures that were asked for. Says where they are."""
    path = path or source.folder / "report.html"
    made = build_report(source, path)
    folder = path.with_name(path.stem + "-data")
    pictures = [p for kind, wanted in (("png", png), ("pdf", pdf)) if wanted
                for p in write_static(made, folder, kind, label(source))]  # fmt: skip
    size = path.stat().st_size / 1e6
    return [f"wrote {path} ({size:.1f} MB)", f"wrote {folder} (a CSV a figure)", *(f"wrote {p}" for p in pictures)]


def send(source: Source, mode: str, project: str) -> str:
    """Send a sweep's rows to W&B; what was sent before is left out."""
    from blip2sweep.report.tracking import check_tracking, track
    from blip2sweep.sweep.sweeps import find_sweep

    settings = {"name": "wandb", "mode": mode, "project": project}
    check_tracking(settings)
    sweep = find_sweep(source.output_dir, source.title)
    rows = track(source.output_dir, sweep, source.table, settings)
    again = (
        f"; from a computer with network: wandb sync {source.output_dir}/wandb/offline-run-*"
        if mode == "offline"
        else ""
    )
    return f"{rows} rows of {sweep.name} are in W&B project {project} ({mode}){again}"


def parse_bytes(text: str) -> int:
    """`2GB`, `750 MB`, `123456` -> bytes, powers of ten."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)i?b?\s*", text.lower())
    if not found or found[1].count(".") > 1 or found[1] == ".":
        raise UserError(f"--max-bytes {text}: not a size; right: 2GB, 750MB or a number of bytes")
    return int(float(found[1]) * UNITS[found[2]])


def parse_drop(text: str) -> float:
    """`2%` or `0.02` -> share of the baseline."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    if not found:
        raise UserError(f"--max-drop {text}: not a share; right: 2% or 0.02")
    return float(found[1]) / (100 if found[2] else 1)


def run_recommend(
    source: Source, max_bytes: str | None, max_drop: str | None, path: Path | None, verify: bool
) -> list[str]:
    """Choose a recipe, write its file and say what to expect; with `verify`, run it."""
    if not max_bytes and not max_drop:
        raise UserError("recommend: no budget given; right: --max-bytes 2GB, --max-drop 2%, or both")
    budget = parse_bytes(max_bytes) if max_bytes else None
    drop = parse_drop(max_drop) if max_drop else None
    choice = recommend(source.cells, source.metric, source.draws, _anatomy(source), budget, drop)
    path = path or source.folder / "recommended.yaml"
    told = {"budget": " ".join(w for w in (max_bytes and f"--max-bytes {max_bytes}", max_drop and f"--max-drop {max_drop}") if w),
            "from": f"{source.title}, {len(source.cells)} cells", "expected": _expected(choice, source.metric)}  # fmt: skip
    write_atomic(path, recipe_file(choice, told).encode())
    command = [*_overrides(source), f"recipe_file={path}"]
    lines = [*_said(choice, source), f"wrote {path}", f"run it: python -m blip2sweep {' '.join(command)}"]
    return [*lines, *(_verified(source, command) if verify else [])]


def _anatomy(source: Source) -> Anatomy:
    if source.anatomy is None:
        raise UserError(
            f"model {source.cells['model'].iloc[0]}: its anatomy is not known here; right: the output_dir of its own sweep"
        )
    return source.anatomy


def _expected(choice: Choice, metric: str) -> str:
    half = "the half of the images that did not choose it" if choice.held_out else "all images, which also chose it"
    return f"{metric} {choice.predicted:.4f} (baseline {choice.baseline:.4f}) by prediction on {half}"


def _said(choice: Choice, source: Source) -> list[str]:
    lines = [f"{e['target']}: {e['method']} {e['bits']} bits" for e in choice.entries] or ["nothing is compressed"]
    size = f"{choice.model_bytes:,} bytes, {choice.bits_per_weight:.2f} bits per weight"
    lines += [size, f"expected {_expected(choice, LABELS.get(source.metric, source.metric))}"]
    if choice.measured_key and source.draws is not None and choice.measured_key in source.draws:
        other = source.draws.on(source.draws.half(False))
        low, high = np.quantile(other.drop(choice.measured_key), [0.025, 0.975])
        drop = other.sign * (other.value(other.baseline) - other.value(choice.measured_key))
        lines.append(f"measured on held-out images: drop {drop:.4f} [{low:.4f}, {high:.4f}]")
    return lines


def _overrides(source: Source) -> list[str]:
    """Words of the sweep's command that say what is evaluated and where, not what is varied."""
    words = [w for w in source.command.split() if "=" in w and w.lstrip("+").startswith(KEPT) and "," not in w]
    return [*words, f"output_dir={source.output_dir}"]


def _verified(source: Source, command: Sequence[str]) -> list[str]:
    """Run the recipe as any cell is run, and read its row."""
    if source.command.startswith("import"):
        raise UserError(
            "--verify: these rows were imported, so there is no set-up to run; right: model=… task=… with the recipe_file"
        )
    name = f"verify-{pd.Timestamp.now():%Y%m%d-%H%M%S}"
    words = [sys.executable, "-m", "blip2sweep", *command, f"sweep_name={name}"]
    if subprocess.run(words, check=False).returncode:
        raise UserError(f"--verify: the recipe's own run failed; right: `blip2sweep status {name}`")
    rows = load_source(source.output_dir, name).cells
    row, m = rows[rows["part"] != "none"].iloc[0], source.metric
    return [
        f"verified: {m} {row[m]:.4f}, drop {row[f'drop_{m}']:.4f} [{row[f'drop_{m}_low']:.4f}, {row[f'drop_{m}_high']:.4f}]"
    ]


# ---- suggest


def run_suggest(source: Source, n: int, folder: Path | None) -> list[str]:
    """Write recipe files of the n cells that would teach the most, and the command that runs them."""
    if n < 1:
        raise UserError(f"-n {n}: right: a positive number of cells")
    problem = max(problems(source.cells, _anatomy(source)), key=lambda p: len(p.cells))
    fresh = candidates(problem)
    if not fresh:
        raise UserError("every combination of the widths and targets that were run has been run; right: add a width")
    chosen = choose(problem, fresh, source.metric, n)
    folder = folder or source.folder / "suggested"
    paths = [folder / f"{i:02d}.yaml" for i in range(1, len(chosen) + 1)]
    import yaml

    for path, listed in zip(paths, chosen, strict=True):
        write_atomic(path, yaml.safe_dump({"targets": listed}, sort_keys=False).encode())
    texts = [f"{p}: " + "; ".join(f"{e['target']}={e['bits']}" for e in c) for p, c in zip(paths, chosen, strict=True)]
    command = " ".join([*_overrides(source), "recipe_file=" + ",".join(map(str, paths))])
    return [*texts, f"run them: python -m blip2sweep -m {command}"]


def candidates(problem: Problem, seed: int = 0) -> list[list[dict[str, Any]]]:
    """Recipes that join what was done to each part in some cell, and were not run; a random 1500 where there are more."""
    pieces: dict[str, dict[str, list[dict[str, Any]]]] = {p: {"[]": []} for p in problem.anatomy.parts}
    known = set()
    for text in problem.cells["recipe_json"]:
        listed = entries(text)
        known.add(canonical_json(listed))
        for part, seen in pieces.items():
            own = [e for e in listed if part_of(e) == part]
            seen[canonical_json(own)] = own
    choices = [list(seen.values()) for seen in pieces.values()]
    rng, total = np.random.default_rng(seed), int(np.prod([len(c) for c in choices]))
    if total <= 4 * MOST_CANDIDATES:
        joined = [list(chain(*parts)) for parts in product(*choices)]
    else:
        joined = [list(chain(*(c[rng.integers(len(c))] for c in choices))) for _ in range(2 * MOST_CANDIDATES)]
    fresh = {canonical_json(j): j for j in joined if j and canonical_json(j) not in known}
    unseen: list[list[dict[str, Any]]] = list(fresh.values())
    picked = rng.permutation(len(unseen))[:MOST_CANDIDATES] if len(unseen) > MOST_CANDIDATES else range(len(unseen))
    return [unseen[i] for i in sorted(picked)]


def choose(problem: Problem, fresh: list[list[dict[str, Any]]], metric: str, n: int) -> list[list[dict[str, Any]]]:
    """Fit on the cells at hand, then pick among the fresh ones."""
    texts = [*problem.cells["recipe_json"], *map(canonical_json, fresh)]
    pieces = atoms(pd.DataFrame({"recipe_json": texts}), problem.anatomy)
    power, known = noise(pieces.widths), len(problem.cells)
    values = problem.cells[metric].to_numpy(float)
    base = float(values[(problem.cells["part"] == "none").to_numpy()][0])
    predictor = fit(power[:known], values, base, pieces.groups)
    return [fresh[i - known] for i in suggest(predictor, power, range(known), n)]
