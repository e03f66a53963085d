"""The pictures of docs/report.md, taken anew in headless Chromium.

    python scripts/report_pictures.py --study FOLDER    # three minutes; without the published study its picture stays

Subjects: the published study, 200 scenes of the embedded tiny model, and planted numbers.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

IMAGES = ROOT / "docs/images"
LAPTOP, PHONE = (1440, 900), (390, 844)
PARTS = "part=vit,qformer,llm,vit+qformer,vit+llm,qformer+llm,all"
TINY = ["-m", "task.limit=200", "quant=rtn,mse", "quant.bits=2,3,4,8", PARTS, "sweep_name=tiny"]


def take(page: Path, name: str, sections: Sequence[str], dark: bool = False, phone: bool = False) -> None:
    """Sections that follow each other on a page, as docs/images/report-<name>.webp."""
    from tests.reporting.browser import chromium, open_report, wait

    with (
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile), *(PHONE if phone else LAPTOP), dark, phone) as driver,
    ):
        open_report(driver, page)
        if "captions" in sections:
            driver.execute_script("document.getElementById('captions').scrollIntoView()")
            wait(driver, "document.getElementById('outputs') !== null")
        driver.execute_script("document.querySelector('nav').style.position = 'static'; scrollTo(0, 0)")
        ends = (
            "[...arguments].map(id => document.getElementById(id).getBoundingClientRect()).map(r => [r.top, r.bottom])"
        )
        boxes = driver.execute_script(f"return {ends}", *sections)
        _save(driver, name, boxes[0][0], boxes[-1][1], driver.execute_script("return innerWidth"))


def _save(driver: Any, name: str, top: float, bottom: float, wide: int) -> None:
    from PIL import Image

    clip = {"x": 0, "y": top, "width": wide, "height": bottom - top, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    Image.open(io.BytesIO(base64.b64decode(shot["data"]))).save(IMAGES / f"report-{name}.webp", quality=80, method=6)
    print(f"wrote docs/images/report-{name}.webp")


def blip2sweep(*words: str, folder: Path) -> None:
    command = [sys.executable, "-m", "blip2sweep", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=os.environ.get("BLIP2SWEEP_STUDY_DATA"))
    study = parser.parse_args().study
    from tests.synthetic import build, grid

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweeps = folder / "outputs/sweeps"
        build(folder / "outputs", grid())
        blip2sweep("report", "planted", folder=folder)
        take(sweeps / "planted/report.html", "blocks", ["blocks"], dark=True)
        blip2sweep(*TINY, folder=folder)
        blip2sweep("report", "tiny", folder=folder)
        take(sweeps / "tiny/report.html", "map-shapley", ["map", "shapley"])
        take(sweeps / "tiny/report.html", "dark", ["dropoff", "frontier"], dark=True)
        take(sweeps / "tiny/report.html", "phone", ["overview", "dropoff"], phone=True)
        take(sweeps / "tiny/report.html", "outputs", ["captions"])
        if study:
            blip2sweep("import", "blip2-coco", str(study.resolve()), folder=folder)
            blip2sweep("report", "blip2-coco", folder=folder)
            take(sweeps / "blip2-coco/report.html", "overview", ["overview", "dropoff"])


if __name__ == "__main__":
    main()
