"""Two versions in turn: whole runs A B B A A B …, each in fresh processes, and what their pairs say.

A version is a checkout. Its package is copied beside these scripts, so that both sides are driven alike, nothing is
written into the checkout, and an edit of it meanwhile changes nothing.
"""

from __future__ import annotations

import compileall
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmarks.ours import ROOT, Setting

BEFORE, NOW = "before", "now"
LEVEL = 0.95
# Nats; of larger ones, their share: what orders of summing make of a likelihood. Float32 rounds a sum by 6e-8 of it, some dozens
# of sums stand behind a logit, and pictures that are read once for their questions were measured at up to 2e-5. A single
# rounding in half precision, 5e-4, is ten times as much: what is computed otherwise is still seen.
NEAR = 5e-5


class Ratio(NamedTuple):
    """Before over now, of pairs. median: of them. low, high: a 95 % interval of what the ratio is on average, Student's on
    logarithms; None from one pair, which says nothing of the noise."""

    median: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        if self.low is None or self.high is None:
            return "one pair: no interval, so no claim"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "within the noise"


def ratio(before: Sequence[float], now: Sequence[float]) -> Ratio:
    """before[i] and now[i] are of one pair."""
    from scipy.special import stdtrit  # a bare machine that compares no versions has none

    logs = [math.log(a / b) for a, b in zip(before, now, strict=True)]
    n, median = len(logs), math.exp(statistics.median(logs))
    if n == 1:
        return Ratio(median, None, None)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * statistics.stdev(logs) / math.sqrt(n)
    return Ratio(median, *(math.exp(statistics.fmean(logs) + sign * half) for sign in (-1, 1)))


def order(pairs: int) -> list[str]:
    """Which side runs when: A B B A A B …, so that a machine that grows slower is no side's harm."""
    return [side for i in range(pairs) for side in ((BEFORE, NOW), (NOW, BEFORE))[i % 2]]


# ---- runs


def tree(checkout: Path, folder: Path) -> Path:
    """A folder in which the checkout's package and these scripts lie side by side, compiled."""
    kept = shutil.ignore_patterns("__pycache__")
    for source, name in ((checkout, "blip2sweep"), (checkout, "conf"), (ROOT, "scripts/benchmarks")):
        shutil.copytree(source / name, folder / name, ignore=kept)
    (folder / "blip2sweep" / "conf").symlink_to(folder / "conf")
    compileall.compile_dir(folder, quiet=2)
    return folder


def run(root: Path, given: Setting, asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A whole run of the version in a tree (side.py). asked: grid, cells, workers, stop. folder: of its outputs."""
    told = {**given._asdict(), "folder": str(given.folder)}
    request = json.dumps({"given": told, **asked, "output_dir": str(folder)})
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.side"], cwd=root, env=env, input=request, text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{root.name}: a run ended with code {done.returncode}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    if Path(found["package"]).parents[1] != root:
        raise SystemExit(f"{root.name}: {found['package']} ran; right: the package in {root}")
    return found


# ---- whether they said the same

Said = Mapping[str, Mapping[str, Sequence[Any]]]  # {recipe: columns `id`, `text`, `nll_sum`}


class Same(NamedTuple):
    """texts: compared. differing: of them. nll: the largest difference of a likelihood, in nats, or as a share of a larger
    one. missing: recipes that one side has alone."""

    texts: int
    differing: int
    nll: float
    missing: int

    @property
    def wrong(self) -> bool:
        return bool(self.differing or self.missing) or not self.nll <= NEAR


def same(before: Said, now: Said) -> Same:
    """Compare what two runs said of the samples that both have."""
    pairs = [pair for recipe in before.keys() & now.keys() for pair in _common(before[recipe], now[recipe])]
    nll = max((_apart(a["nll_sum"], b["nll_sum"]) for a, b in pairs), default=0.0)
    return Same(len(pairs), sum(a["text"] != b["text"] for a, b in pairs), nll, len(before.keys() ^ now.keys()))


def _common(before: Mapping[str, Sequence[Any]], now: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, Any]]:
    one, other = ({r["id"]: r for r in _records(columns)} for columns in (before, now))
    return ((one[i], other[i]) for i in one if i in other)


def _records(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _apart(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(a - b) / max(1.0, abs(a))
