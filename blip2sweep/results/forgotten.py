"""What was forgotten: cells and sweeps that do not count any more, until that is taken back.

An act of forgetting writes lines into a journal of its own, whose name ends with KIND: no other journal, no sweep's file
and no predictions are touched, and no other journal is opened to know which sweeps are forgotten. A line lists the
attempts at a cell that do not count. Whatever is computed later counts. Lines may be read in any order. Versions that do not know
these lines read a folder as if nothing was forgotten.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blip2sweep.results.journal import Journal
from blip2sweep.results.lines import number_of, parse
from blip2sweep.wire.lines import ForgottenLine, UnforgottenLine, line_of

KIND = "-forget"
SweepId = tuple[str, float]  # the name of a sweep, and when it was made: a name is used again


@dataclass
class Act:
    """One act of forgetting, as far as it was not taken back. keys: of its cells; sweeps: those it hides from lists."""

    name: str
    time: float
    keys: set[str] = field(default_factory=set)
    sweeps: set[SweepId] = field(default_factory=set)


def acts(output_dir: Path) -> list[Act]:
    """Every act of forgetting that still counts, the oldest first. Damaged lines are left out; the ledger names them."""
    lines = list(_lines(output_dir))
    found: dict[str, Act] = {}
    for line in (x for x in lines if x["event"] == "forgotten"):
        act = found.setdefault(line["forget"], Act(line["forget"], line["time"]))
        _add(act, line)
    for back in (x for x in lines if x["event"] == "unforgotten" and x["forget"] in found):
        act = found[back["forget"]]
        act.keys.discard(back.get("key", ""))
        act.sweeps.discard(_sweep_id(back))
    return sorted((a for a in found.values() if a.keys or a.sweeps), key=lambda a: a.time)


def _add(act: Act, line: ForgottenLine) -> None:
    if "key" in line:
        act.keys.add(line["key"])
    else:
        act.sweeps.add(_sweep_id(line))


def _sweep_id(line: ForgottenLine | UnforgottenLine) -> SweepId:
    return line.get("sweep", ""), line.get("created", 0.0)


def forgotten_sweeps(output_dir: Path) -> set[SweepId]:
    """The sweeps that are not listed."""
    return {sweep for act in acts(output_dir) for sweep in act.sweeps}


def _lines(output_dir: Path) -> Iterable[ForgottenLine | UnforgottenLine]:
    for path in sorted((output_dir / "journals").glob(f"*{KIND}.jsonl")):
        try:
            data = path.read_bytes()
        except OSError:
            continue  # the ledger says so
        for text in data.split(b"\n"):
            line = line_of(parse(text)) if number_of(text) is not None else None
            if line is not None and (line["event"] == "forgotten" or line["event"] == "unforgotten"):
                yield line


def write_forgotten(output_dir: Path, attempts: Mapping[str, Iterable[str]], sweep: SweepId | None = None) -> None:
    """Forget attempts, {key: their ids}, and a sweep. Writes all lines or none. Raises UserError when the disk refuses."""
    head = {"forget": uuid.uuid4().hex[:8]}
    lines = [{"key": key, **head, "attempts": sorted(ids)} for key, ids in attempts.items()]
    _write(output_dir, "forgotten", [*lines, *([{**head, **_of(sweep)}] if sweep else [])])


def write_unforgotten(output_dir: Path, taken_back: Iterable[Act]) -> None:
    """Take back these acts, for the keys and sweeps that they have here. Raises UserError when the disk refuses."""
    lines: list[Mapping[str, object]] = []
    for act in taken_back:
        lines += [{"key": key, "forget": act.name} for key in sorted(act.keys)]
        lines += [{"forget": act.name, **_of(sweep)} for sweep in sorted(act.sweeps)]
    _write(output_dir, "unforgotten", lines)


def _of(sweep: SweepId) -> dict[str, object]:
    return {"sweep": sweep[0], "created": sweep[1]}


def _write(output_dir: Path, event: str, lines: list[Mapping[str, object]]) -> None:
    journal = Journal(output_dir, KIND)
    journal.write_many(event, lines)
    journal.close()
