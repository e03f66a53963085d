"""What stopping early would have cost the published study, and how often it would have been wrong: docs/stopping.md.

    python scripts/replay_stopping.py FOLDER                # FOLDER as for `blip2sweep import blip2-coco`
    python scripts/replay_stopping.py FOLDER --rounds 20    # quicker, rougher

Every cell with captions is run again on paper, image by image, against the baseline. `fresh` draws as many images anew from those
there are, and the truth is the ratio over all of them: what a set of this size says about the world. `order` shuffles the
images, and the truth is the whole run. Cells of one round see the same images, so rare errors come in
bunches: another --seed says how far the numbers move. The rule is the product's own (blip2sweep/metrics/stopping.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2sweep.importing.blip2_coco import SWEEP, import_blip2_coco
from blip2sweep.metrics.stopping import SCORES, Ratio, Rule, Sums, decide, interval, looks
from blip2sweep.reporting.source import load_source

Array = NDArray[np.float64]
RULES = {
    "known to ±5 %": Rule("known", 0.05),
    "known to ±3 %": Rule("known", 0.03),
    "verdict, 5 %": Rule("verdict", 0.05),
    "verdict, 2 %": Rule("verdict", 0.02),
}
CLASSES = ("collapsed", "degraded", "near", "all")
NAIVE = 0.95  # of the interval that knows of one look only


@dataclass(frozen=True)
class Scores:
    """Scores by image: `cells` (cells, images), `base` (images,)."""

    cells: Array
    base: Array

    @property
    def kept(self) -> Array:
        """What each cell keeps, over all images."""
        kept: Array = self.cells.sum(axis=1) / self.base.sum()
        return kept

    def members(self) -> dict[str, NDArray[np.bool_]]:
        """Which cells keep less than 10 %, up to 95 %, and more."""
        kept = self.kept
        collapsed, near = kept < 0.1, kept > 0.95
        return dict(zip(CLASSES, (collapsed, ~collapsed & ~near, near, np.ones(len(kept), bool)), strict=True))


class Stops(NamedTuple):
    """Where the cells of one round stopped, (cells,) each: images, whether before the last, whether the verdict was
    wrong, what was kept less the truth, and whether both intervals there hold the truth."""

    images: NDArray[Any]
    stopped: NDArray[Any]
    wrong: NDArray[Any]
    bias: NDArray[Any]
    holds: NDArray[Any]
    naive: NDArray[Any]


def load(folder: Path) -> Scores:
    """CIDEr of every cell of the study that has captions; cells of equal captions once."""
    with tempfile.TemporaryDirectory() as name:
        import_blip2_coco(folder, Path(name))
        draws = load_source(Path(name), SWEEP).draws
    assert draws is not None
    return Scores(np.array([a[:, 0] for a in draws.arrays.values()]), draws.arrays[draws.baseline][:, 0])


def sums_at(scores: Scores, chosen: NDArray[np.intp], at: list[int]) -> Sums:
    """The sums over the first images of `chosen` at each look, (cells, looks)."""
    x, b = scores.cells[:, chosen], scores.base[chosen]
    n = np.array(at, dtype=np.float64)
    first = np.cumsum(b)[np.array(at) - 1] / n
    rows = x, np.broadcast_to(b, x.shape), x * x, np.broadcast_to(b * b, x.shape), x * b, x != b
    found = [np.cumsum(row, axis=1)[:, np.array(at) - 1].astype(np.float64) for row in rows]
    scoring = np.column_stack([(x[:, :m] > SCORES * mean).sum(axis=1) for m, mean in zip(at, first, strict=True)])
    own, base, squares, base_squares, products, changed = found
    images = np.broadcast_to(n, own.shape)
    return Sums(images, own, base, squares, base_squares, products, changed, scoring.astype(np.float64))


def replay(sums: Sums, at: list[int], truth: Array) -> dict[str, Stops]:
    """Where each rule stops the cells."""
    value, (low, high), (low_1, high_1) = sums.x / sums.b, interval(sums), interval(sums, NAIVE)
    found = {}
    for name, rule in RULES.items():
        places, wrong = np.full(len(truth), len(at) - 1), np.zeros(len(truth))
        for i in range(len(truth)):
            for j in range(len(at) - 1):
                reason = decide(rule, Ratio(value[i, j], low[i, j], high[i, j]))
                if reason is not None:
                    places[i], wrong[i] = j, is_wrong(rule, reason, value[i, j], truth[i])
                    break
        own = np.arange(len(truth)), places
        holds, naive = (
            (lo[own] <= truth + 1e-9) & (truth - 1e-9 <= hi[own]) for lo, hi in ((low, high), (low_1, high_1))
        )
        stopped = places < len(at) - 1
        found[name] = Stops(np.array(at)[places], stopped, wrong, value[own] - truth, holds, naive)
    return found


def is_wrong(rule: Rule, reason: str, value: float, truth: float) -> bool:
    """Whether what a cell stopped for is not so."""
    if reason.startswith("below"):
        return truth >= 0.5
    if reason.startswith("known"):
        return abs(value - truth) > rule.margin
    return (truth < 1 - rule.margin) == reason.startswith("within")


def rounds(scores: Scores, count: int, fresh: bool, seed: int) -> dict[str, Stops]:
    """The stops of all rounds, (rounds, cells) each."""
    rng, n, truth = np.random.default_rng(seed), len(scores.base), scores.kept
    at = looks(n)
    drawn = (rng.integers(0, n, n) if fresh else rng.permutation(n) for _ in range(count))
    found = [replay(sums_at(scores, images, at), at, truth) for images in drawn]
    return {name: Stops(*(np.array(v) for v in zip(*(f[name] for f in found), strict=True))) for name in RULES}


def table(scores: Scores, fresh: dict[str, Stops], order: dict[str, Stops]) -> list[str]:
    """The lines of the page's table."""
    heads = (*CLASSES, "wrong, fresh", "wrong, order", "worst cell", "99.5 % holds", "naive 95 % holds", "bias")
    lines = [f"| stop | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    members, n = scores.members(), len(scores.base)
    for name, own in fresh.items():
        seen, at_stop = [own.images[:, members[c]].mean() / n for c in CLASSES], own.stopped > 0
        told = [f"{100 * share:.0f} %" for share in seen]
        told += [f"{100 * w.mean():.2f} %" for w in (own.wrong, order[name].wrong)]
        told += [f"{100 * own.wrong.mean(axis=0).max():.1f} %"]
        told += [f"{v[at_stop].mean():.3f}" for v in (own.holds, own.naive)] + [f"{own.bias[at_stop].mean():+.4f}"]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return lines


def estimators(scores: Scores, count: int, seed: int) -> list[str]:
    """How far three readings of the first images are from the whole run, as shares of the baseline: root mean squares."""
    rng, members, base = np.random.default_rng(seed), scores.members(), scores.base.mean()
    names = "mean of the images seen", "baseline − paired drop", "ratio × baseline"
    lines = [f"| images | reading | {' | '.join(CLASSES[:3])} |", "|---|---|---|---|---|"]
    for n in (64, 128):
        off = np.zeros((3, len(scores.cells)))
        for _ in range(count):
            chosen = rng.permutation(len(scores.base))[:n]
            x, b = scores.cells[:, chosen].mean(axis=1), scores.base[chosen].mean()
            off += (np.array([x, base - (b - x), base * x / b]) / base - scores.kept) ** 2 / count
        for name, own in zip(names, np.sqrt(off), strict=True):
            lines.append(f"| {n} | {name} | {' | '.join(f'{own[members[c]].mean():.3f}' for c in CLASSES[:3])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a copy of the study's data")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the images that rounds draw")
    chosen = parser.parse_args()
    scores = load(chosen.folder)
    counts = ", ".join(f"{name}: {own.sum()}" for name, own in scores.members().items())
    print(f"{len(scores.base)} images; cells {counts}; {chosen.rounds} rounds\n")
    found = [rounds(scores, chosen.rounds, fresh, chosen.seed) for fresh in (True, False)]
    print("\n".join([*table(scores, *found), "", *estimators(scores, chosen.rounds, chosen.seed)]))


if __name__ == "__main__":
    main()
