"""How many images, and in how many rounds, cells that stop early would have been asked for on the published study, by the
caution of the forecast (blip2sweep/metrics/forecast.py): docs/stopping.md.

    python scripts/replay_rounds.py FOLDER                # FOLDER as for `blip2sweep import blip2-coco`
    python scripts/replay_rounds.py FOLDER --rounds 50 --seed 1 --drift 0 0.3

The cells, the draws of images and the rules are those of scripts/replay_stopping.py. A cell stops where that replay stops it,
whatever its rounds; they change what is computed beyond.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2sweep.metrics.forecast import CAUTION, DRIFT, likely, satisfied
from blip2sweep.metrics.stopping import Rule, Sums, interval, looks
from scripts.replay_stopping import RULES, Scores, load, sums_at

STEPWISE = (1e9, 0.0)  # goes look by look


class Computed(NamedTuple):
    """Shares of all images, and rounds of a cell, on average: what results stand on, and what was computed."""

    used: float
    computed: float
    rounds: float


def at_look(sums: Sums, look: int) -> Sums:
    return Sums(*(s[:, look] for s in sums))


def forecasts(rule: Rule, sums: Sums, at: list[int], setting: tuple[float, float]) -> NDArray[np.intp]:
    """(cells, looks): the number of the look up to which the next images are asked for, after each look. setting: caution
    and drift."""
    last = len(at) - 1
    found = np.full((len(sums.n), last), last)
    for look in range(last):
        for coming in range(last - 1, look, -1):
            reached = likely(rule, at_look(sums, look), at[look], at[coming], *setting)
            found[reached | (setting == STEPWISE), look] = coming
    return found


def computed(rule: Rule, sums: Sums, at: list[int], setting: tuple[float, float]) -> Computed:
    """What cells cost. sums: (cells, looks)."""
    last = len(at) - 1
    reached = satisfied(rule, *interval(sums))[:, :last]
    stop = np.where(reached.any(axis=1), reached.argmax(axis=1), last)
    ahead = forecasts(rule, sums, at, setting)
    there, rounds = np.zeros(len(stop), dtype=np.intp), np.ones(len(stop))
    while (going := there < stop).any():
        there[going] = ahead[going, there[going]]
        rounds += going
    images = np.array(at)
    return Computed(images[stop].mean() / at[-1], images[there].mean() / at[-1], rounds.mean())


def replay(scores: Scores, count: int, seed: int, asked: list[tuple[float, float]]) -> dict[tuple[str, Any], Computed]:
    """Means over rounds of images drawn anew, by rule and setting."""
    rng, n = np.random.default_rng(seed), len(scores.base)
    at = looks(n)
    found: dict[tuple[str, Any], list[Computed]] = {}
    for _ in range(count):
        sums = sums_at(scores, rng.integers(0, n, n), at)
        for name, rule in RULES.items():
            for setting in asked:
                found.setdefault((name, setting), []).append(computed(rule, sums, at, setting))
    return {key: Computed(*np.mean(own, axis=0)) for key, own in found.items()}


def table(found: dict[tuple[str, Any], Computed]) -> list[str]:
    lines = [
        "| stop | caution, drift | used | computed | beyond the stop | rounds a cell |",
        "|---|---|---|---|---|---|",
    ]
    for (name, setting), own in found.items():
        word = "look by look" if setting == STEPWISE else f"{setting[0]:g}, {setting[1]:g}"
        shares = f"{100 * own.used:.1f} % | {100 * own.computed:.1f} % | {100 * (own.computed / own.used - 1):.1f} %"
        lines.append(f"| {name} | {word} | {shares} | {own.rounds:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a copy of the study's data")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the images that rounds draw")
    parser.add_argument("--caution", type=float, nargs="+", default=[CAUTION])
    parser.add_argument("--drift", type=float, nargs="+", default=[DRIFT])
    chosen = parser.parse_args()
    settings = [STEPWISE, *product(chosen.caution, chosen.drift)]
    print("\n".join(table(replay(load(chosen.folder), chosen.rounds, chosen.seed, settings))))


if __name__ == "__main__":
    main()
