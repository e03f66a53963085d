"""How often the truth lies outside an interval at few images: VQA by simulation, CIDEr and METEOR on the published study.

    python scripts/bench_intervals.py --rounds 2000                       # VQA alone
    python scripts/bench_intervals.py --rounds 2000 --study FOLDER        # all; FOLDER as for `blip2sweep import blip2-coco`

Each round draws images, with all that belongs to one, and asks the product for the interval of the drop and of what is kept. The bad
side is the one that makes a cell look better than it is: truth above the drop's upper end, or below the lower end of what is kept.
2.5 % is nominal. Beside it the width over that of a percentile bootstrap's interval (1000 resamples), and that one's bad side where
every round is compared:

    python scripts/bench_intervals.py --rounds 500 --every 1
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from blip2sweep.metrics import (
    METRICS,
    CaptionScorer,
    Images,
    Metric,
    drop_samples,
    interval,
    kept,
    paired_drop,
    weights,
)

Array = NDArray[np.float64]
Pair = tuple[Array, Array, NDArray[np.intp]]  # baseline and cell (n, k), the image of each sample
SIZES = (50, 100, 200, 500)
KEPT = (0.02, 0.5, 0.84, 0.95, 0.98, 0.995)  # shares of CIDEr of the study's cells
KEPT_METEOR = (0.96, 0.99)
CANDIDATES = 12  # cells that METEOR is asked about


@dataclass(frozen=True)
class Case:
    """draw: a baseline and a cell of m images; truth: the drop and the share kept of all images there are."""

    name: str
    metric: Metric
    draw: Callable[[np.random.Generator, int], Pair]
    drop: float
    kept: float


@dataclass(frozen=True)
class Errors:
    """Shares of rounds in which the truth was outside, bad side first; the mean width of a drop's interval, that over a percentile
    bootstrap's, and how often the truth was on that one's bad side."""

    drop: tuple[float, float]
    kept: tuple[float, float]
    width: float
    over_percentile: float
    percentile: float


# ---- VQA, simulated


def vqa(rng: np.random.Generator, images: int, broken: float, flips: bool) -> Pair:
    """1 to 5 questions an image, answered alike by image. A share of images breaks, half of their questions each; with flips one
    image in ten also answers half of its questions the other way."""
    image = np.repeat(np.arange(images), rng.integers(1, 6, images))
    level = rng.normal(size=images)[image] + rng.normal(size=len(image))
    base = (level > -1.2).astype(float)
    hit, swap = (
        (rng.random(images) < share)[image] & (rng.random(len(image)) < 0.5) for share in (broken * 2, 0.1 * flips)
    )
    cell = np.where(hit, 0.0, np.where(swap, 1 - base, base))
    rows = [np.column_stack([x, np.ones(len(x)), np.zeros((len(x), 6))]) for x in (base, cell)]
    return rows[0], rows[1], image


def vqa_cases() -> Iterator[Case]:
    metric = METRICS["vqa_accuracy"]
    for flips in (True, False):
        for broken in (0.01, 0.05):
            right = NormalDist().cdf(1.2 / 2**0.5)
            values = right, (1 - broken) * (0.95 * right + 0.05 * (1 - right) if flips else right)
            name = f"VQA, {'flips and ' if flips else 'only '}{broken:.0%} breakage"
            draw = lambda rng, m, b=broken, f=flips: vqa(rng, m, b, f)  # noqa: E731
            yield Case(name, metric, draw, values[0] - values[1], values[1] / values[0])


# ---- captions, from a population of images


def drawn_from(name: str, metric: Metric, base: Array, cell: Array, together: int = 1) -> Case:
    """Images of a population (n, k), each of `together` captions, drawn with replacement."""
    values = metric.value(base), metric.value(cell)
    groups = np.arange(len(base)).reshape(-1, together)

    def draw(rng: np.random.Generator, m: int) -> Pair:
        picked = groups[rng.integers(0, len(groups), m)].ravel()
        return base[picked], cell[picked], np.repeat(np.arange(m), together)

    told = f"{name} kept {values[1] / values[0]:.3f}" + (f", {together} captions an image" if together > 1 else "")
    return Case(told, metric, draw, values[0] - values[1], values[1] / values[0])


def study_cases(folder: Path) -> Iterator[Case]:
    """Cells of the published study by how much they keep; its images are the population."""
    from blip2sweep.importing.study import read_study

    study = read_study(folder)
    names = {c.number: c for c in study.configs if c.number in study.predictions}
    nothing = next(n for n, c in names.items() if c.nothing)
    cider, meteor = METRICS["cider"], METRICS["meteor"]
    scorer = CaptionScorer(study.references, ["cider"])
    scorer.prepare([t for texts in study.predictions.values() for t in texts])
    scores = {n: scorer.statistics(study.predictions[n])["cider"] for n in names}
    share = {n: cider.value(a) / cider.value(scores[nothing]) for n, a in scores.items()}
    for wanted in KEPT:
        found = min(share, key=lambda n: abs(share[n] - wanted))
        yield drawn_from("CIDEr", cider, scores[nothing], scores[found])
        if wanted in (0.95, 0.995):
            yield drawn_from("CIDEr", cider, scores[nothing], scores[found], together=2)
    near = sorted((n for n in names if 0.85 < share[n] < 0.999), key=lambda n: share[n])
    asked = near[:: max(1, len(near) // CANDIDATES)]
    own = CaptionScorer(study.references, ["meteor"])
    rows = {n: own.statistics(study.predictions[n])["meteor"] for n in [nothing, *asked]}
    ratio = {n: meteor.value(a) / meteor.value(rows[nothing]) for n, a in rows.items() if n != nothing}
    for wanted in KEPT_METEOR:
        found = min(ratio, key=lambda n: abs(ratio[n] - wanted))
        yield drawn_from("METEOR", meteor, rows[nothing], rows[found])
    yield drawn_from("METEOR", meteor, rows[nothing], rows[found], together=2)


# ---- counting


def errors(case: Case, images: int, rounds: int, every: int = 0, seed: int = 0) -> Errors:
    """One case at one number of images. every: compared with a percentile bootstrap in each so many-th round, which takes most of
    the time; 0: never."""
    rng = np.random.default_rng([seed, images])
    outside, widths, ratios = np.zeros(4), [], [(0.0, 1e-12, 0.0)]
    for turn in range(rounds):
        base, cell, image = case.draw(rng, images)
        clusters = Images(image, images)
        drop, share = paired_drop(case.metric, base, cell, clusters), kept(case.metric, base, cell, clusters)
        ends = [(case.drop, drop.high), (drop.low, case.drop), (share.low, case.kept), (case.kept, share.high)]
        outside += [one > other + 1e-12 for one, other in ends]
        widths.append(drop.high - drop.low)
        if every and turn % every == 0:
            low, high = interval(drop_samples(case.metric, base, cell, weights(image.tolist(), B=1000)))
            ratios.append((widths[-1], high - low, float(case.drop > high + 1e-12)))
    shares, sums = outside / rounds, np.sum(ratios, axis=0)
    over, beyond = float(sums[0] / sums[1]), float(sums[2] / max(1, len(ratios) - 1))
    return Errors((shares[0], shares[1]), (shares[2], shares[3]), float(np.mean(widths)), over, beyond)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument(
        "--every", type=int, default=50, help="compare with a percentile bootstrap in every so many-th round"
    )
    parser.add_argument("--study", type=Path)
    given = parser.parse_args()
    print(f"bad side / other side in % of {given.rounds} rounds, of the drop; of what is kept; width over percentile's")
    print("| case | " + " | ".join(f"{m} images" for m in SIZES) + " |")
    print("|---" * (1 + len(SIZES)) + "|")
    worst = 0.0
    for case in [*vqa_cases(), *(study_cases(given.study) if given.study else ())]:
        told = []
        for m in SIZES:
            e = errors(case, m, given.rounds, given.every)
            worst = max(worst, e.drop[0], e.kept[0])
            pairs = "; ".join(f"{100 * bad:.1f}/{100 * other:.1f}" for bad, other in (e.drop, e.kept))
            beyond = f"; percentile {100 * e.percentile:.1f}" if given.every == 1 else ""
            told.append(f"{pairs}; {e.over_percentile:.2f}{beyond}")
        print(f"| {case.name} | " + " | ".join(told) + " |", flush=True)
    print(f"worst on the bad side: {100 * worst:.2f} %")


if __name__ == "__main__":
    main()
