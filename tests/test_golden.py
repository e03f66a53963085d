"""Keys, recipes, chains, rows, texts and names on disk are those of golden.json: a move or a new name changes none of them.

Not here: what calibration and packed kernels compute, which follows the processor; scripts/compare_commits.py compares that.
"""

from __future__ import annotations

import json

import pytest

from tests.golden.freeze import FILE, MISSING, Frozen, differences, frozen

TOLD = 25  # differences that are shown
AGAIN = "right: undo it; `python -m tests.golden` takes what was added on purpose (see CONTRIBUTING.md)"
EXPECTED: Frozen = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """Everything made once, as JSON has it."""
    made: Frozen = json.loads(json.dumps(frozen(tmp_path_factory.mktemp("golden"))))
    return made


def is_addition(difference: str) -> bool:
    """A new column, field or file: what reads the old ones goes on. Nothing is added to an identity without a word."""
    return f": was {MISSING!r}, is" in difference and "identity" not in difference and "chain" not in difference


def check(section: str, found: Frozen, exact: bool = True) -> None:
    told = [d for d in differences(EXPECTED[section], found[section], exact=exact) if not is_addition(d)]
    more = [f"… and {len(told) - TOLD} more"] if len(told) > TOLD else []
    assert not told, "\n".join([f"{len(told)} differences from {FILE.name}; {AGAIN}", *told[:TOLD], *more])


@pytest.mark.parametrize("section", ["planned", "disk"])
def test_plans_and_names_on_disk_are_as_frozen(section: str, found: Frozen) -> None:
    check(section, found)


def test_rows_are_as_frozen(found: Frozen) -> None:
    """Texts and what is counted of them on every processor; likelihoods to the last digit on the one they were frozen on."""
    check("rows", found, exact=found["processor"] == EXPECTED["processor"])
