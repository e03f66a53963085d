"""`blip2sweep forget KEY|SWEEP` and `--undo`: cells that do not count any more, until they do again.

Nothing is removed: lines in a journal of their own say that attempts do not count (results/forgotten.py).
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blip2sweep.console.remarks import many, some
from blip2sweep.errors import UserError, nearest
from blip2sweep.results.attempts import Attempts, attempt_id
from blip2sweep.results.collect import collect
from blip2sweep.results.forgotten import Act, acts, write_forgotten, write_unforgotten
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep, list_sweeps
from blip2sweep.running.status import sweep_status
from blip2sweep.workers.attempts import may_live

READ = ("baseline", "control", "beside")  # columns of a result with the keys of cells that it is compared with


def forget(output_dir: Path, what: str | None, undo: bool = False) -> list[str]:
    """Forget a cell, or a sweep and the cells that it alone asked for. undo: take that back; without `what` the last act.

    Returns what there is to say. Raises UserError, before anything is written, for what is not there and for what runs.
    """
    if undo:
        return _undo(output_dir, what)
    if what is None:
        raise UserError("forget: what? right: a key of `blip2sweep table`, a sweep of `blip2sweep sweeps`, or --undo")
    ledger = Ledger(output_dir, measured=True).refresh()
    sweeps = {s.name: s for s in list_sweeps(output_dir)}
    if what in sweeps:
        return _forget_sweep(output_dir, sweeps[what], [s for n, s in sweeps.items() if n != what], ledger)
    return _forget_cell(output_dir, _key(what, ledger, sweeps), list(sweeps.values()), ledger)


def _key(what: str, ledger: Ledger, sweeps: Collection[str]) -> str:
    """The key of a cell that counts and begins so."""
    found = [k for k, a in ledger.attempts.items() if k.startswith(what) and _counts(a)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{what}: {len(found)} cells have such a key ({some(found)}); right: one key, written out")
    if any(k.startswith(what) and a.hidden for k, a in ledger.attempts.items()):
        raise UserError(f"{what}: forgotten already; right: `blip2sweep forget --undo {what}` brings it back")
    raise UserError(f"{what}: no sweep and no cell here; {nearest(what, [*sweeps])}, or a key of `blip2sweep table`")


def _counts(attempts: Attempts) -> bool:
    return bool(attempts.all_results.keys() - attempts.hidden or attempts.counting_failures)


def _ended(attempts: Attempts) -> set[str]:
    """The attempts that can be forgotten: what another host still computes counts when it comes."""
    return {*attempts.all_results, *attempts.ended, *(attempt_id(s) for s in attempts.open if not may_live(s))}


def _living_here(attempts: Attempts) -> bool:
    return any(s["host"] == socket.gethostname() and may_live(s) for s in attempts.open)


# ---- one cell


def _forget_cell(output_dir: Path, key: str, sweeps: Sequence[Sweep], ledger: Ledger) -> list[str]:
    attempts = ledger.attempts[key]
    named = attempts.result["columns"]["recipe"] if attempts.result else "without a result"
    if _living_here(attempts):
        raise UserError(
            f"{key}: it is being computed now; right: `blip2sweep cancel` its sweep first, or wait for its end"
        )
    write_forgotten(output_dir, {key: _ended(attempts)})
    collect(output_dir, ledger=ledger)
    asked = [s.name for s in sweeps if key in s.keys]
    lines = [f"cell {key} ({named}) is forgotten: in no table, and computed again when it is asked for"]
    lines += [f"  asked for by {many(len(asked), 'sweep')}: {some(asked)}"] if asked else []
    away = [s["host"] for s in attempts.open]
    lines += [f"  an attempt on {some(away)} has not ended; what it still computes will count"] if away else []
    readers = _readers({key}, ledger)
    if readers:
        lines.append(
            f"  {many(len(readers), 'cell')} compared with it, without a drop until it is there again: {some(readers)}"
        )
    return [*lines, _back(key)]


def _readers(keys: Collection[str], ledger: Ledger) -> list[str]:
    """The other cells that are done and compared with one of these."""
    return [r["key"] for r in ledger.results() if r["key"] not in keys and _read(r["columns"]) & {*keys}]


def _read(columns: Mapping[str, object]) -> set[str]:
    return {str(columns.get(name)) for name in READ}


def _back(what: str) -> str:
    return f"  nothing was removed: `blip2sweep forget --undo {what}` brings it back without computing"


# ---- a sweep


def _forget_sweep(output_dir: Path, sweep: Sweep, others: Sequence[Sweep], ledger: Ledger) -> list[str]:
    status = sweep_status(output_dir, sweep, ledger)
    if status.queue.packs or status.keys("running", "queued"):
        raise UserError(
            f"{sweep.name}: it runs, or its host could not be asked; right: `blip2sweep cancel {sweep.name}` first"
        )
    shared = {k: names for k in sweep.keys if (names := [s.name for s in others if k in s.keys])}
    own = [k for k in sweep.keys if k not in shared]
    read = _still_read(own, ledger)
    gone = [k for k in own if k not in read and k in ledger.attempts and _counts(ledger.attempts[k])]
    write_forgotten(output_dir, {k: _ended(ledger.attempts[k]) for k in gone}, (sweep.name, sweep.created))
    collect(output_dir, ledger=ledger)
    lines = [_sweep_gone(sweep, len(gone))]
    by = [n for names in shared.values() for n in names]
    counted = [f"{name} ({by.count(name)})" for name in dict.fromkeys(by)]
    lines += [f"  {many(len(shared), 'cell')} stay, asked for by other sweeps too: {some(counted)}"] if shared else []
    lines += (
        [f"  {many(len(read), 'cell')} stay, as other cells are compared with them: {some(sorted(read))}"]
        if read
        else []
    )
    bare = len(own) - len(gone) - len(read)
    lines += [f"  {many(bare, 'cell')} had no result to forget"] if bare else []
    return [*lines, _back(sweep.name)]


def _sweep_gone(sweep: Sweep, gone: int) -> str:
    cells = many(len(sweep.keys), "cell")
    if not gone:
        return f"sweep {sweep.name} is forgotten: it is in no list, and none of its {cells} is"
    return f"sweep {sweep.name} is forgotten, with {gone} of its {cells}: in no table, and computed again when they are asked for"


def _still_read(own: Sequence[str], ledger: Ledger) -> set[str]:
    """Those of a sweep's own cells that cells of no sweep, or of another one, are compared with."""
    found = set[str]()
    while (
        more := {k for r in ledger.results() if r["key"] not in {*own} - found for k in _read(r["columns"])}
        & {*own} - found
    ):
        found |= more
    return found


# ---- taking it back


def _undo(output_dir: Path, what: str | None) -> list[str]:
    there = acts(output_dir)
    if not there:
        raise UserError(f"{output_dir}: nothing is forgotten here; right: --output-dir of another folder, or no --undo")
    chosen = there[-1:] if what is None else _acts_of(what, there)
    keys = {k for act in chosen for k in act.keys}
    write_unforgotten(output_dir, chosen)
    ledger = Ledger(output_dir, measured=True).refresh()
    collect(output_dir, ledger=ledger)
    done = [k for k in keys if ledger.done(k)]
    names = [f"sweep {name}" for act in chosen for name, _ in sorted(act.sweeps)]
    told = [*names, *([many(len(keys), "cell")] if keys else [])]
    results = f", {len(done)} with a result" if keys else ""
    lines = [f"{' and '.join(told)} back{results}; nothing was computed"]
    rest = len(acts(output_dir))
    return lines + ([f"  {rest} more to take back: `blip2sweep forget --undo` takes back the last"] if rest else [])


def _acts_of(what: str, there: Sequence[Act]) -> list[Act]:
    """The acts that forgot a sweep of this name; else those that forgot the cell whose key begins so, for it alone."""
    of_sweep = [act for act in there if any(name == what for name, _ in act.sweeps)]
    if of_sweep:
        return of_sweep
    keys = sorted({k for act in there for k in act.keys if k.startswith(what)})
    if len(keys) != 1:
        told = (
            f"{len(keys)} forgotten cells have such a key ({some(keys)})"
            if keys
            else "nothing of that name is forgotten"
        )
        names = [name for act in there for name, _ in act.sweeps]
        raise UserError(f"--undo {what}: {told}; {nearest(what, [*names, *(k for act in there for k in act.keys)])}")
    return [replace(act, keys={keys[0]}, sweeps=set()) for act in there if keys[0] in act.keys]
