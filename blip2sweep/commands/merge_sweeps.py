"""Takes the sweeps of another output folder: their files, packs and logs. Results do not depend on them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from blip2sweep.commands.other_users import user_name
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import json_bytes, write_new
from blip2sweep.results.forgotten import forgotten_sweeps, write_forgotten
from blip2sweep.results.merging import Copies, copy_files
from blip2sweep.results.sweeps import Sweep, check_name, list_sweeps


def merge_sweeps(other: Path, output_dir: Path) -> list[tuple[str, str]]:
    """Take every sweep of `other`, one that is known here too, by its time and its command, with what was added since.

    Returns (its name there, its name here) of those that are new. A name that is taken here gets a number. Raises
    UserError when the disk refuses; the same call again then goes on.
    """
    here = {(s.created, s.command): s for s in list_sweeps(output_dir, forgotten=True)}
    new = list[tuple[str, str]]()
    for there in filter(_has_a_name, list_sweeps(other, forgotten=True)):
        known = here.get((there.created, there.command))
        if known is None:
            known = _added(replace(there, of_user=_whose(other, there)), output_dir)
            new.append((there.name, known.name))
            _forget_too(other, there, output_dir, known)
        elif (both := _together(known, there)) != known:
            both.write(output_dir)
        copy_files(_files(other, there, output_dir, known), f"packs and logs of {there.name}")
    return new


def _has_a_name(sweep: Sweep) -> bool:
    """Whether a sweep's name is that of a folder, and leads nowhere else. Another one is named and left out."""
    try:
        check_name(sweep.name)
    except UserError as error:
        remark(f"a sweep is left out: {error}")
        return False
    return True


def _whose(other: Path, sweep: Sweep) -> str | None:
    """The other user whose sweep it is. What it names is not run without a word after it was merged, either."""
    uid = (sweep.folder(other) / "sweep.json").stat().st_uid
    return sweep.of_user or (user_name(uid) if uid != os.geteuid() else None)


def _added(sweep: Sweep, output_dir: Path) -> Sweep:
    """Write a sweep under the first name that is free here; another process may take one at the same time."""
    for number in range(1, 1_000_000):
        named = replace(sweep, name=sweep.name if number == 1 else f"{sweep.name}-{number}")
        if write_new(named.folder(output_dir) / "sweep.json", json_bytes(named.data())):
            return named
    raise AssertionError


def _forget_too(other: Path, there: Sweep, output_dir: Path, named: Sweep) -> None:
    """A sweep that is forgotten there is not listed here under its new name. Under its old one the journals say so."""
    if named.name != there.name and (there.name, there.created) in forgotten_sweeps(other):
        write_forgotten(output_dir, {}, (named.name, named.created))


def _together(here: Sweep, there: Sweep) -> Sweep:
    """A sweep with the cells and launches of both of its files."""
    runs = {s.run: s for s in (*there.submissions, *here.submissions)}
    return replace(
        here,
        keys=_union(here.keys, there.keys),
        baselines=_union(here.baselines, there.baselines),
        rerun={**there.rerun, **here.rerun},
        submissions=sorted(runs.values(), key=lambda s: s.created),
    )


def _union(one: Iterable[str], two: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*one, *two]))


def _files(other: Path, there: Sweep, output_dir: Path, here: Sweep) -> Copies:
    """The packs and logs that are not here."""
    logs = (f"logs/{there.name}", f"logs/{here.name}")
    found: Copies = {}
    for source, target in ((f"sweeps/{there.name}/packs", f"sweeps/{here.name}/packs"), logs):
        for path in sorted((other / source).rglob("*")):
            to = output_dir / target / path.relative_to(other / source)
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and not to.exists():
                found[path] = to
    return found
