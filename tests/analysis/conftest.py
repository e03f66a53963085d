"""The published study, imported once for the tests that look at it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.importing.blip2_coco import import_blip2_coco
from blip2sweep.importing.study import Counts
from blip2sweep.results.collect import collect
from blip2sweep.results.sweeps import find_sweep

STUDY = Path(os.environ.get("BLIP2SWEEP_STUDY_DATA", Path(__file__).parents[2].parent / "shared/data/blip2_coco"))


@pytest.fixture(scope="session")
def study() -> Path:
    if not (STUDY / "scores.csv").is_file():
        pytest.skip(f"the study's data is not at {STUDY}; set BLIP2SWEEP_STUDY_DATA to its folder")
    return STUDY


@pytest.fixture(scope="session")
def imported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counts, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("study")
    counts = import_blip2_coco(study, folder)
    return folder, counts, collect(folder, find_sweep(folder, "blip2-coco"))
