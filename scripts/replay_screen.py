"""What `blip2sweep screen` would have seen of the published study, and how good its frontier is: docs/screening.md.

    python scripts/replay_screen.py FOLDER             # FOLDER as for `blip2sweep import blip2-coco`; 20 orders
    python scripts/replay_screen.py FOLDER 5           # fewer orders
    python scripts/replay_screen.py FOLDER 20 --first 20    # the orders 20 to 39

Every cell with captions is a candidate. Each order shuffles the images, so that cells stop elsewhere, and draws other first
cells. The rules are the product's own (analysis/screening.py, metrics/stopping.py). An order holds where the screened frontier
is, at each size of the frontier of all cells, at most 1 % of the baseline's CIDEr below it. CIDEr is that of all images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2sweep.analysis.layer_groups import layer_groups, noise
from blip2sweep.analysis.screening import Screening
from blip2sweep.analysis.screening_grid import Family, Grid, Seen, seen_of
from blip2sweep.importing.blip2_coco import SWEEP, import_blip2_coco
from blip2sweep.importing.study import MODEL
from blip2sweep.metrics import METRICS
from blip2sweep.metrics.stopping import Rule, decide, looks, ratio
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.reporting.source import load_source

Array = NDArray[np.float64]
CIDER, WITHIN = METRICS["cider"], 0.01


class Study(NamedTuple):
    """The cells with captions but the baseline. arrays: (cells, images, k) statistics. base: (images, k). truth: what each
    keeps on all images."""

    grid: Grid
    arrays: Array
    base: Array
    truth: Array


def load(folder: Path) -> Study:
    """The study's cells, as a screening of them would plan them."""
    with tempfile.TemporaryDirectory() as name:
        import_blip2_coco(folder, Path(name))
        source = load_source(Path(name), SWEEP)
    draws, cells = source.draws, source.cells
    assert draws is not None
    own = cells[cells["key"].isin(list(draws.arrays)) & (cells["key"] != draws.baseline)]
    base = cells[cells["key"] == draws.baseline].iloc[0]
    groups = layer_groups(own, model_anatomy(MODEL))
    family = Family(np.arange(len(own)), noise(groups.widths), groups.families)
    grid = Grid(own["model_bytes"].to_numpy(float), np.ones(len(own)), float(base["model_bytes"]), [family])
    arrays, whole = np.array([draws.arrays[k] for k in own["key"]]), draws.arrays[draws.baseline]
    return Study(grid, arrays, whole, np.array([CIDER.value(a) for a in arrays]) / CIDER.value(whole))


class Images:
    """Runs cells on paper, on images in one order. seen: {cell: images}. launches: how often it was asked."""

    def __init__(self, study: Study, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(study.base))
        self.arrays, self.base, self.looks = study.arrays[:, order], study.base[order], looks(len(order))
        self.seen: dict[int, int] = {}

    def run(self, cells: Mapping[int, Rule | None]) -> dict[int, Seen]:
        """What is known of cells once each stopped by its rule."""
        return {i: self._until(i, rule) for i, rule in cells.items()}

    def _until(self, cell: int, rule: Rule | None) -> Seen:
        there = self.seen.get(cell, 0)
        ends = (n for n in self.looks if n >= there and self._stops(cell, n, rule))
        n = self.seen[cell] = next(ends)
        of = None if n == len(self.base) else len(self.base)
        return seen_of(CIDER, self.arrays[cell, :n], self.base[:n], None, of)

    def _stops(self, cell: int, n: int, rule: Rule | None) -> bool:
        if n == len(self.base):
            return True
        return rule is not None and decide(rule, ratio(CIDER, self.arrays[cell, :n], self.base[:n])) is not None


def frontier(study: Study) -> list[int]:
    """The frontier of all cells and the baseline."""
    found, best = list[int](), -np.inf
    for i in sorted(range(len(study.truth)), key=lambda i: (study.grid.sizes[i], -study.truth[i])):
        if study.truth[i] > max(best, 1.0 if study.grid.sizes[i] >= study.grid.base else -np.inf):
            found.append(i)
            best = study.truth[i]
    return found


def below(study: Study, screened: Sequence[int]) -> float:
    """How far the screened frontier is below the full one, at the worst of its sizes, as a share of the baseline."""
    best = study.grid.best(study.truth, np.isin(np.arange(len(study.truth)), screened))
    return max(0.0, *(float(study.truth[i] - best[i]) for i in frontier(study)))


class Outcome(NamedTuple):
    """Of one order. images: as a share of all images of all cells, the baseline's among both. looked, whole: cells.
    launches: with that of the baseline."""

    below: float
    images: float
    looked: int
    whole: int
    launches: int


def replay(study: Study, seed: int) -> Outcome:
    """Screen the study once. seed: of the order of the images and of the first cells."""
    images = Images(study, seed)
    screening = Screening(study.grid, images.run)
    screened = screening(seed)
    n = len(study.base)
    share = (sum(images.seen.values()) + n) / (n * (len(study.truth) + 1))
    whole = sum(s.whole for s in screening.seen.values())
    return Outcome(below(study, screened), share, len(screening.seen), whole, screening.launches + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a copy of the study's data")
    parser.add_argument("orders", type=int, nargs="?", default=20)
    parser.add_argument("--first", type=int, default=0, help="the number of the first order")
    asked = parser.parse_args()
    study = load(asked.folder)
    print(
        f"{len(study.truth)} cells and the baseline, {len(study.base)} images, {len(frontier(study))} cells on the frontier"
    )
    found = []
    for seed in range(asked.first, asked.first + asked.orders):
        found.append(one := replay(study, seed))
        print(f"order {seed}: {100 * one.images:.1f} % of the images, {one.looked} cells looked at, {one.whole} whole, "
              f"{one.launches} launches; at worst {100 * one.below:.2f} % below", flush=True)  # fmt: skip
    holds = sum(one.below <= WITHIN for one in found)
    shares = [one.images for one in found]
    print(f"{holds} of {len(found)} orders hold; {100 * np.mean(shares):.1f} % of the images (at most {100 * max(shares):.1f} %), "
          f"{np.mean([o.looked for o in found]):.0f} cells looked at, {np.mean([o.whole for o in found]):.0f} whole, "
          f"{np.mean([o.launches for o in found]):.0f} launches")  # fmt: skip


if __name__ == "__main__":
    main()
