"""`blip2sweep merge OTHER`: takes the results of another output folder into this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2sweep.commands.merge_sweeps import merge_sweeps
from blip2sweep.console.remarks import many, some
from blip2sweep.results.attempts import Attempts, attempt_id
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.merging import check_folders, copy_files, needed, new_journals, whole_lines, write_journals
from blip2sweep.results.rivals import differ
from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.results.table_files import write_sweep


def merge(other: Path, output_dir: Path) -> list[str]:
    """Copy the results, sweeps, packs and logs of `other` that are not in `output_dir`, and make the tables of both.

    Returns what there is to say. Raises UserError, before anything is written, for a folder that is none, the same one
    or a nested one, and for journals that cannot be read or contradict each other; later when the disk refuses. What
    was taken by then is whole, and the same call goes on.
    """
    check_folders(other, output_dir)
    sizes = whole_lines(other)
    journals = new_journals(other, output_dir, sizes)
    here, there = Ledger(output_dir).refresh(), Ledger(other).refresh()
    copy_files(needed(other, output_dir), f"copying results of {other}")
    write_journals(other, output_dir, journals)
    sweeps = merge_sweeps(other, output_dir)
    ledger = Ledger(output_dir, measured=True)
    table = collect(output_dir, ledger=ledger)
    for sweep in list_sweeps(output_dir):
        write_sweep(output_dir, table, sweep, ledger)
    return [*_summary(other, output_dir, sweeps, (here, there, ledger)), *_compared(other, here, there, ledger)]


def _summary(other: Path, output_dir: Path, sweeps: Sequence[tuple[str, str]], ledgers: Sequence[Ledger]) -> list[str]:
    """How many cells and sweeps are new. ledgers: as it was here, as it is there, as it is here now."""
    before, others, now = ({k for k in ledger.attempts if ledger.done(k)} for ledger in ledgers)
    named = [one if one == two else f"{one} as {two}" for one, two in sweeps]
    told = f"{many(len(sweeps), 'sweep')} new ({some(named)})" if sweeps else "no sweep new"
    hidden = {k for k, a in ledgers[1].attempts.items() if a.hidden}
    rest = {k for s in list_sweeps(other) for k in s.keys if k not in others | hidden}
    lines = [
        f"merged {other} into {output_dir}: {many(len(now - before), 'cell')} new, {len(before & others)} there before; {told}"
    ]
    return lines + (
        [f"  {many(len(rest), 'cell')} without a result there: merging again takes it when there is one"]
        if rest
        else []
    )


def _compared(other: Path, here: Ledger, there: Ledger, now: Ledger) -> list[str]:
    """What is said of cells with other outputs here and there, and of cells that were forgotten in one of the two."""
    both = [k for k in there.attempts if there.done(k) and here.done(k)]
    rivals = {k: _winner(other, here.attempts[k], now.attempts[k]) for k in both if _differ(k, here, there)}
    kept = [k for k in there.attempts if there.done(k) and not now.done(k)]
    lost = [k for k in here.attempts if here.done(k) and not now.done(k) and now.attempts[k].hidden]
    told = some([f"{k}: {winner}" for k, winner in rivals.items()], 5)
    lines = []
    if rivals:
        lines += [
            f"  {many(len(rivals), 'cell')} with other outputs here and there; one of the two counts everywhere, that of more "
            f"images, else by its attempt's id: {told}",
            f"  drops are against the baseline that counts; --rerun {next(iter(rivals))} in its command replaces both",
        ]
    lines += [f"  {many(len(kept), 'cell')} forgotten here, and so it stays: {some(kept)}"] if kept else []
    lines += [f"  {many(len(lost), 'cell')} forgotten there, and so here now: {some(lost)}"] if lost else []
    return lines


def _differ(key: str, here: Ledger, there: Ledger) -> bool:
    """Whether the results of a key here and there do not know each other, and have other outputs."""
    one, two = here.attempts[key], there.attempts[key]
    assert one.result is not None
    assert two.result is not None
    known = attempt_id(one.result) in _known(two) or attempt_id(two.result) in _known(one)
    return not known and differ([one.result, two.result])


def _known(attempts: Attempts) -> set[str]:
    """The attempts whose results are in a ledger, or that the one that counts replaced."""
    replaced = attempts.result.get("replaces", []) if attempts.result else []
    return {*attempts.all_results, *replaced}


def _winner(other: Path, before: Attempts, now: Attempts) -> str:
    if now.result is None:
        return "neither"
    return "that of here" if attempt_id(now.result) in before.all_results else f"that of {other}"
