"""Warns about the folder of another user. The code that its files name runs with the rights of the current user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path

from blip2sweep.outside import describe
from blip2sweep.planning.packs import pack_path
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.pack import CellJob, OutsideCode

SHELL = ("setup", "teardown", "srun_args", "additional_parameters")


def owner(output_dir: Path, sweep: Sweep) -> str | None:
    """The other user who owns files of a sweep, or owned it before it was merged: the name, or the number of one without
    a name."""
    if sweep.of_user:
        return sweep.of_user
    folder = sweep.folder(output_dir)
    files = [folder / "sweep.json", *(pack_path(folder, s.run, i) for s in sweep.submissions for i in range(s.packs))]
    others = {p.stat().st_uid for p in files if p.exists()} - {os.geteuid()}
    return user_name(min(others)) if others else None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def its_commands(sweep: Sweep, jobs: Iterable[CellJob]) -> list[str]:
    """The `setup: …` and `backend: …` of the launch that would be repeated, and the code from outside of its cells."""
    launcher: Mapping[str, object] = sweep.submissions[-1].launcher if sweep.submissions else {}
    told = [f"{name}: {launcher[name]!r}" for name in SHELL if launcher.get(name)]
    jobs = list(jobs)
    named = [sweep.settings["runner"]] if "runner" in sweep.settings else []  # of version 0.1, whose jobs name none
    named += [job["backend"]["name"] for job in jobs if "backend" in job]
    backends = list(dict.fromkeys(named)) or ["torch"]
    code = its_code(job.get("outside", {}) for job in jobs)
    chat = sweep.settings.get("chat") or {}
    told += [f"requests to: {chat.get('base_url')!r}"] if chat.get("online") else []
    return [*(told or ["no setup"]), *(f"backend: {name!r}" for name in backends), *code]


def its_code(codes: Iterable[Mapping[str, OutsideCode]]) -> list[str]:
    """`code: …` of each file or package that packs name."""
    return sorted({f"code: {describe(full, code)}" for some in codes for full, code in some.items()})
