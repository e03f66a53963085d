"""Results that stopped early beside those of all images: which one counts, and what is read of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.results.attempts import Attempts
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import stem, write_predictions
from blip2sweep.results.prefixes import Prefix, known_prefix, remove_prefix, write_prefix
from blip2sweep.results.stopped import is_unfinished, told
from blip2sweep.results.sweeps import Sweep
from blip2sweep.results.unscored import scored, scoring, unscored
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.stopping import StopRequest

KNOWN: StopRequest = {"stop": "known", "margin": 0.05, "images": {}}


VERDICT: StopRequest = {"stop": "verdict", "margin": 0.05, "images": {}}


def stopped(images: int, reason: str = "known to ±5 %", stop: str = "known") -> dict[str, Any]:
    return {"images": images, "of": 500, "reason": reason, "stop": stop, "margin": 0.05}


def said(n: int) -> Predictions:
    ids = list(range(n))
    return Predictions(ids, list(ids), ["a"] * n, [1] * n, [0.5] * n, [1] * n)


def write(
    folder: Path, attempt: str, images: int | None, replaces: Sequence[str] = (),
    predictions: Predictions | None = None, early: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """A result of cell `k` with so many images, None for all; its predictions' name."""
    own = said(images or 500) if predictions is None else predictions
    name = stem("k", own.hash)
    note = write_predictions(folder, name, own)
    told = {"stopped": early or stopped(images)} if images else {}
    journal = Journal(folder)
    journal.write(
        "result", key="k", sweep="s", run="r", attempt=attempt, job=None, predictions=own.hash, files={"predictions": note},
        replaces=list(replaces), starts=[], **told, columns={"semantics": 1}, layers_changed=3, cost={"seconds": 1.5},
        versions="torch 0",
    )  # fmt: skip
    journal.close()
    return name


def test_a_longer_result_counts_whatever_came_last(tmp_path: Path) -> None:
    """A worker that stopped early replaces nothing longer, also where it knew of it, as in merged ledgers."""
    lines = {"early": (96, ["whole"]), "later": (192, ["early", "whole"]), "whole": (None, [])}
    for i, order in enumerate(permutations(lines)):
        for attempt in order:
            write(tmp_path / str(i), attempt, *lines[attempt])
        for brief in (False, True):
            (found,) = Ledger(tmp_path / str(i), brief=brief).refresh().results()
            assert found["attempt"] == "whole"
            assert "stopped" not in found
    two = tmp_path / "two"
    write(two, "b", 192)
    write(two, "c", 96, ["b"])
    for brief in (False, True):
        ledger = Ledger(two, brief=brief).refresh()
        assert ledger.results()[0]["stopped"] == stopped(192)
        assert ledger.done("k")
        assert ledger.done("k", request=KNOWN)
        assert not ledger.done("k", request=None)
        assert not ledger.done("k", request={**KNOWN, "margin": 0.02})
        assert not ledger.done("k", ["b", "c"], KNOWN)


@pytest.mark.parametrize("brief", [False, True])
def test_a_longer_result_that_is_gone_hides_no_stopped_one(tmp_path: Path, brief: bool) -> None:
    """Otherwise the cell would be lost whatever was computed again."""
    name = write(tmp_path, "a1", None)
    ledger = Ledger(tmp_path, brief=brief).refresh()
    (tmp_path / "predictions" / f"{name}.json").unlink()
    write(tmp_path, "a2", 192, ["a1"])
    ledger = Ledger(tmp_path, brief=brief).refresh()
    assert [r["attempt"] for r in ledger.results()] == ["a2"]
    assert ledger.done("k", request=KNOWN)
    ledger.attempts["k"].mark_missing("a2")
    assert ledger.results() == []
    write(tmp_path, "a3", None, ["a1", "a2"])  # the same predictions as the first
    assert [r["attempt"] for r in Ledger(tmp_path, brief=brief).refresh().results()] == ["a3"]


def test_a_whole_result_that_was_replaced_does_not_come_back_where_the_new_one_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "a1", None)
    write(tmp_path, "a2", None, ["a1"], said(499))
    ledger = Ledger(tmp_path).refresh()
    ledger.attempts["k"].mark_missing("a2")
    assert ledger.results() == []


@pytest.mark.parametrize("order", [("v", "k"), ("k", "v")])
def test_sweeps_that_stop_at_the_same_images_by_other_rules_are_both_done(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    """Neither would compute an image, and each would replace the other's line for ever."""
    early = {"v": stopped(192, "within 5 %", "verdict"), "k": stopped(192, "known to ±20 %") | {"margin": 0.2}}
    for i, attempt in enumerate(order):
        write(tmp_path, attempt, 192, order[:i], early=early[attempt])
    for brief in (False, True):
        ledger = Ledger(tmp_path, brief=brief).refresh()
        assert ledger.done("k", request=VERDICT)
        assert ledger.done("k", request={**KNOWN, "margin": 0.2})
        assert not ledger.done("k", request=KNOWN)
        assert not ledger.done("k", ["v"], VERDICT)
        assert ledger.results()[0]["stopped"]["stop"] == "known"  # analyses refuse verdicts
    write(tmp_path, "longer", 256, order, early=stopped(256) | {"margin": 0.1})
    assert not Ledger(tmp_path).refresh().done("k", request=VERDICT)


def test_who_asks_for_less_is_satisfied() -> None:
    result: Any = {"stopped": stopped(96)}
    assert not is_unfinished(None, None)
    assert not is_unfinished({}, None)  # type: ignore[typeddict-item]
    assert is_unfinished(result, None)
    assert not is_unfinished(result, KNOWN)
    assert not is_unfinished(result, {**KNOWN, "margin": 0.1})
    assert is_unfinished(result, {**KNOWN, "margin": 0.01})
    collapsed: Any = {"stopped": stopped(64, "below 50 %")}
    assert not is_unfinished(collapsed, {**KNOWN, "margin": 0.01})
    assert not is_unfinished({**result, "imported": "table.csv"}, None)  # nobody has more of it


def test_the_share_of_images_is_told() -> None:
    results: Any = [{"stopped": stopped(64)}, {}, {"stopped": stopped(136)}]
    assert told(results) == "2 stopped, after 20 % of their images"
    assert told([{}]) == ""  # type: ignore[typeddict-item]


# ---- scores of one that went on


def test_scores_of_the_first_images_are_none_of_the_cell_that_went_on(tmp_path: Path) -> None:
    sweep = Sweep("s", "", 0.0, ["k"], [])

    def score(name: str) -> None:
        (tmp_path / "scores").mkdir(exist_ok=True)
        (tmp_path / "scores" / f"{name}.npz").touch()

    score(write(tmp_path, "a", 96))
    assert scored(tmp_path, sweep)
    assert unscored(tmp_path, sweep) == []
    name = write(tmp_path, "b", None, ["a"])
    assert not scored(tmp_path, sweep)
    assert scoring(tmp_path, sweep) == "every cell is done; 1 of 1 are being scored"
    assert [r["attempt"] for r in unscored(tmp_path, sweep)] == ["b"]
    assert unscored(tmp_path, sweep, done=["other"]) == []
    score(name)
    write(tmp_path, "c", 64)  # nobody scores a shorter one
    assert scored(tmp_path, sweep)
    assert unscored(tmp_path, sweep) == []


# ---- where a cell goes on


def prefix(n: int) -> Prefix:
    return Prefix(n, said(n), {"seconds": 2.0}, 3, {"versions": "torch 0"}, {"propagation": [{"block": 0}]})


def attempts(folder: Path) -> Attempts:
    return Ledger(folder).refresh().attempts.get("k", Attempts())


def test_the_longest_prefix_that_can_be_read_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert known_prefix(tmp_path, "k", attempts(tmp_path)) is None
    write_prefix(tmp_path, "k", prefix(64))
    assert known_prefix(tmp_path, "k", attempts(tmp_path)) == prefix(64)
    name = write(tmp_path, "a", 96)
    found = known_prefix(tmp_path, "k", attempts(tmp_path))
    assert found == Prefix(96, said(96), {"seconds": 1.5}, 3, {"versions": "torch 0"})
    assert known_prefix(tmp_path, "k", attempts(tmp_path), ["a"]) is None  # of a cell that is computed again
    (tmp_path / "predictions" / f"{name}.json").write_text("{}")
    found = known_prefix(tmp_path, "k", attempts(tmp_path))
    assert found == prefix(64)
    remove_prefix(tmp_path, "k")
    remove_prefix(tmp_path, "k")
    assert known_prefix(tmp_path, "k", attempts(tmp_path)) is None
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_prefix_is_named_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    write_prefix(tmp_path, "k", prefix(64))
    (path,) = (tmp_path / "cache" / "prefixes").iterdir()
    data = path.read_bytes()
    path.write_bytes({"cut": data[:100], "other": data.replace(b'"a"', b'"b"', 1), "empty": b""}[damage])
    assert known_prefix(tmp_path, "k", attempts(tmp_path)) is None
    err = capsys.readouterr().err
    assert f"{path}: damaged" in err
    assert "these images are computed again" in err
