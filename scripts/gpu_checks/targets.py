"""What is wanted of which card, and whether it was reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from scripts.gpu_checks.running import Found


class Target(NamedTuple):
    """ratio: a cell of the reference against one of ours. vision: share of the floor. captions: a second in the language
    stage."""

    ratio: float
    vision: float
    captions: float


# Of the A100 the captions are scaled by the published rates of bfloat16 products, 312 against 790 as measured.
TARGETS = {"H200": Target(100, 0.5, 400), "H100": Target(100, 0.5, 400), "A100": Target(100, 0.5, 158)}


def ratio(sweep: Found, reference: Found) -> float | None:
    """How many times as long a cell takes the reference."""
    ours, theirs = sweep.get("seconds_per_cell"), reference.get("seconds_per_cell")
    return theirs / ours if ours and theirs else None


def judged(checks: Mapping[str, Found]) -> list[dict[str, Any]]:
    """[{what, wanted, found, met}]; empty for a card without targets, as for a rehearsal."""
    device = str(checks.get("machine", {}).get("device", ""))
    wanted = next((target for name, target in TARGETS.items() if name in device), None)
    if wanted is None:
        return []
    sweep, reference = checks.get("sweep", {}), checks.get("reference", {})
    reached = Target(
        ratio(sweep, reference) or float("nan"),
        sweep.get("floor", {}).get("share_vision") or float("nan"),
        sweep.get("captions_per_second") or float("nan"),
    )
    pairs = zip(Target._fields, wanted, reached, strict=True)
    return [{"what": what, "wanted": w, "found": None if r != r else r, "met": r >= w} for what, w, r in pairs]


def mistakes(checks: Mapping[str, Found]) -> list[str]:
    """What is wrong: checks that failed, and what should be the same and is not. A target that is missed is no mistake."""
    wrong = [f"{name}: {entry['error']}" for name, entry in checks.items() if entry.get("error")]
    return wrong + [f"{name}: {entry['disagreement']}" for name, entry in checks.items() if entry.get("disagreement")]
