"""docs/blip2-coco.md says what scripts/study_findings.py prints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.importing.study import Counts
from blip2sweep.reporting.source import load_source
from scripts import study_findings
from scripts.study_findings import Study

pytestmark = [pytest.mark.xdist_group("java"), pytest.mark.thorough]
PAGE = Path(__file__).parents[2] / "docs/blip2-coco.md"


@pytest.fixture(scope="module")
def subject(imported: tuple[Path, Counts, pd.DataFrame]) -> Study:
    return Study(load_source(imported[0], "blip2-coco"))


def page() -> str:
    return " ".join(PAGE.read_text().split())


@pytest.mark.parametrize("of", ["findings", "conclusions"])
def test_every_number_of_the_page_is_printed_by_the_script(subject: Study, of: str) -> None:
    told = getattr(study_findings, of)(subject)
    assert len(told) > 10
    text = page()
    absent = {name: value for name, value in told.items() if value not in text}
    assert absent == {}


def test_the_counts_shares_and_sizes(subject: Study, study: Path, imported: tuple[Path, Counts, pd.DataFrame]) -> None:
    told = study_findings.counted(imported[1]) | study_findings.shares(subject) | study_findings.sizes(study)
    assert {name: value for name, value in told.items() if value not in page()} == {}


def test_what_is_recommended(subject: Study) -> None:
    told = study_findings.recommended(subject)
    assert {k: v for k, v in told.items() if not k.endswith("recipe") and v not in page()} == {}


def test_numbers_are_written_as_on_the_page() -> None:
    assert study_findings.bounded(-0.0344, -0.0721, 0.0031) == "−.034 [−.072, .003]"
    assert study_findings.bounded(1.2584, float("nan"), float("nan")) == "1.258"
