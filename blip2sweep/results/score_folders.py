"""Which predictions have score files: those of the default rule of scoring in `scores/`, of others in `variants/<variant>/`.

A file of another rule also has the statistics that every variant has: no process rewrites what another one has scored,
and names of files tell what a cell has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

SECOND = "-noise"  # in the names of second runs, from which a noise floor is measured
VARIANTS = "variants"


def score_folder(output_dir: Path, variant: str = "") -> Path:
    """The folder of a variant's score files. variant: its suffix, such as `_lavis`; empty for the default."""
    return output_dir / VARIANTS / variant[1:] if variant else output_dir / "scores"


def known_variants(output_dir: Path) -> list[str]:
    """The suffixes of the variants that some cell of the output folder was scored by, besides the default."""
    folder = output_dir / VARIANTS
    return sorted(f"_{path.name}" for path in folder.iterdir()) if folder.is_dir() else []


def variants_of(output_dir: Path, name: str) -> list[str]:
    """The suffixes of the variants that have a score file of these predictions; none where that is the default alone."""
    known = known_variants(output_dir)
    return _unless_plain([v for v in ("", *known) if known and (score_folder(output_dir, v) / f"{name}.npz").exists()])


def _unless_plain(variants: Sequence[str]) -> list[str]:
    return list(variants) if any(variants) else []


def listed_variants(output_dir: Path) -> dict[str, list[str]]:
    """{name: `variants_of` it} of all predictions that have any."""
    known, found = known_variants(output_dir), dict[str, list[str]]()
    for variant in ("", *known) if known else ():
        for name in scored_names(output_dir, variant):
            found.setdefault(name, []).append(variant)
    return {name: own for name, variants in found.items() if (own := _unless_plain(variants))}


def scored_names(output_dir: Path, variant: str = "") -> set[str]:
    """The names of predictions that have a score file of a variant, by default of the default one, without second
    runs."""
    return _names(score_folder(output_dir, variant), ".npz")


def predicted_names(output_dir: Path) -> set[str]:
    """The names of all predictions, without second runs."""
    return _names(output_dir / "predictions", ".json")


def _names(folder: Path, ending: str) -> set[str]:
    try:
        files = os.listdir(folder)  # noqa: PTH208  # making 100,000 Paths takes a second
    except FileNotFoundError:
        return set()
    return {name[: -len(ending)] for name in files if SECOND not in name and name.endswith(ending)}


def variants_read(files: Mapping[str, object]) -> list[str]:
    """`variants_of` predictions with these files, {variant: file}."""
    return _unless_plain([*files])
