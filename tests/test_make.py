"""What `make` would run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dry(*words: str) -> list[str]:
    ran = subprocess.run(["make", "-n", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [
        line.partition(".venv/bin/python -m blip2sweep ")[2]
        for line in ran.stdout.splitlines()
        if "-m blip2sweep" in line
    ]


def test_report_is_that_of_the_cards_sweep() -> None:
    assert dry("report", "STUDY=") == ["-m +study=card sweep_name=card", "report card"]


def test_report_takes_the_study_where_its_folder_is_given() -> None:
    sweep, report, study = dry("report", "STUDY=/a b")
    assert (sweep, report) == ("-m +study=card sweep_name=card", "report card")
    assert study == 'import blip2-coco "/a b" && .venv/bin/python -m blip2sweep report blip2-coco'


def test_help_names_it() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "STUDY=FOLDER" in next(line for line in told.splitlines() if line.startswith("report"))


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
@pytest.mark.xdist_group("of-this-test")
def test_a_group_is_one_process(request: pytest.FixtureRequest) -> None:
    """Otherwise each process makes what a file makes once for all its tests, and services run twice."""
    assert request.node.nodeid.endswith("@of-this-test")


@pytest.mark.thorough
def test_what_is_left_out_is_said() -> None:
    """By the options that `make test` gives, on one file."""
    given = [sys.executable, "-m", "pytest", "-m", "not thorough", "-p", "no:cacheprovider", "-n", "2"]
    told = subprocess.run([*given, "tests/test_make.py"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    left, _ = told.stdout.splitlines()[-2:]
    assert left.startswith("left out: 1 thorough tests")
    assert left.endswith("(test_make 1)")
    assert "make test-all" in left
