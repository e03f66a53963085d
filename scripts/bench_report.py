"""How long a report takes at the size of the published study: 1500 cells × 1000 samples, all with outputs.

    python scripts/bench_report.py --study FOLDER    # about two minutes; without the published study no import

Prints: the bootstrap of all cells, the report's seconds and MB, first paint in Chromium, the import of the study's 1500 rows.

Outputs repeat between cells as they do in the study: 451 distinct sets, 68 distinct captions an image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CELLS, SAMPLES, SETS = 1500, 1000, 451
PAINT = "seconds: first paint"
WORDS = [
    "a",
    "man",
    "woman",
    "dog",
    "cat",
    "on",
    "in",
    "the",
    "street",
    "with",
    "red",
    "blue",
    "small",
    "large",
    "table",
    "plate",
    "of",
    "food",
    "riding",
    "standing",
    "next",
    "to",
]


def make(folder: Path) -> None:
    """A ledger of that size, with planted numbers."""
    from tests.synthetic import build, entry

    rng = np.random.default_rng(0)
    recipes: list[list[dict[str, object]]] = []
    for v in (8, 7, 6, 5, 4, 3, 2, 0):
        for q in (8, 6, 5, 4, 3, 2, 0):
            for t in (8, 7, 6, 5, 4, 3, 2, 0):
                for blocks in ("all", "first", "last", "middle"):
                    parts = [("vit", v, blocks), ("qformer", q, "all"), ("llm", t, "all")]
                    listed = [entry(f"{p}:{b}:all", bits) for p, bits, b in parts if bits]
                    if listed and not (blocks != "all" and not v):
                        recipes.append(listed)
    captions = [[" ".join(rng.choice(WORDS, 9)) for _ in range(68)] for _ in range(SAMPLES)]
    sets = [[own[j] for own, j in zip(captions, rng.integers(0, 68, SAMPLES), strict=True)] for _ in range(SETS)]
    build(folder, recipes[: CELLS - 1], n=SAMPLES, texts=lambda cell, kept: sets[cell % SETS])


def measure(study: Path | None) -> dict[str, float]:
    from blip2sweep.analysis.cells import comparable
    from blip2sweep.analysis.draws import load_draws
    from blip2sweep.metrics.bootstrap import _weights
    from blip2sweep.results.latest import read_table

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["seconds: writing and collecting the ledger"] = timed(lambda: make(folder))
        cells = comparable(read_table(folder / "table.parquet"))
        found["cells"] = len(cells)
        _weights.cache_clear()
        found["seconds: bootstrap of all cells, score files read"] = timed(lambda: load_draws(folder, cells, "cider"))
        words = [sys.executable, "-m", "blip2sweep", "report", "--output-dir", name]
        found["seconds: blip2sweep report, whole process"] = timed(lambda: subprocess.run(words, check=True, cwd=name))
        page = folder / "sweeps/planted/report.html"
        found["MB: report.html"] = page.stat().st_size / 1e6
        found |= paint(page, folder)
        if study:
            given = [
                sys.executable,
                "-m",
                "blip2sweep",
                "import",
                "blip2-coco",
                str(study),
                "--output-dir",
                name + "/s",
            ]
            found["seconds: blip2sweep import blip2-coco, whole process"] = timed(
                lambda: subprocess.run(given, check=True)
            )
    return found


def timed(run: object) -> float:
    start = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - start


def paint(page: Path, folder: Path) -> dict[str, float]:
    """First paint and everything drawn, in headless Chromium; nothing where it is not installed."""
    from tests.reporting.browser import CHROMIUM, chromium, open_report, wait

    if not CHROMIUM:
        return {}
    with chromium(folder / "profile") as driver:
        start = time.perf_counter()
        open_report(driver, page)
        drawn = time.perf_counter() - start
        first = driver.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
        start = time.perf_counter()
        driver.execute_script("document.getElementById('captions').scrollIntoView()")
        wait(driver, "document.getElementById('outputs') !== null")
        return {PAINT: first / 1000, "seconds: all figures drawn": drawn,
                "seconds: outputs unpacked and shown": time.perf_counter() - start}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=os.environ.get("BLIP2SWEEP_STUDY_DATA"))
    study = parser.parse_args().study
    found = measure(study)
    for name, value in found.items():
        print(f"{value:10.2f}  {name}")
    for wanted, there in (
        ("first paint: no Chromium here", PAINT in found),
        ("import: no --study FOLDER", study is not None),
    ):
        if not there:
            print(f"not measured  {wanted}")


if __name__ == "__main__":
    main()
