"""A sweep on disk: `sweeps/<name>/sweep.json` lists its keys and the command it came from. Results belong to the output
folder, not to a sweep."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError, nearest
from blip2sweep.files import read_json, write_json
from blip2sweep.machine.processes import born, user
from blip2sweep.results.forgotten import forgotten_sweeps
from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.stopped import asked
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.lines import FailureLine
from blip2sweep.wire.pack import JsonObject, Settings
from blip2sweep.wire.scoring import Asked


class JobArray(TypedDict):
    """One Slurm job of a launch: `count` packs, from pack `first` on. cluster: None for the cluster of the host."""

    job: str
    first: int
    count: int
    cluster: NotRequired[str | None]


@dataclass
class Submission:
    """One launch of a sweep's packs `packs/<run>-<i>.json`.

    arrays: its Slurm jobs; a job's id is unique on its cluster alone. cluster: the name of the host's own cluster,
    empty when Slurm did not say it.
    """

    run: str
    kind: str  # local | slurm
    launcher: Launcher
    packs: int = 0
    arrays: list[JobArray] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    user: str = field(default_factory=user)
    process: str | None = field(default_factory=born)  # identifies the process that had the pid
    cluster: str = ""
    cancelled: float | None = None  # when its jobs were cancelled, which also counts when Slurm does not answer


@dataclass
class Sweep:
    """A sweep: the cells that one command asked for.

    keys: all cells in order, including baselines. rerun: {key: attempts whose results do not count for this sweep}.
    """

    name: str
    command: str
    created: float
    keys: list[str]
    baselines: list[str]
    skipped: list[dict[str, str]] = field(default_factory=list)
    merged: int = 0
    rerun: dict[str, list[str]] = field(default_factory=dict)
    tracking: JsonObject = field(default_factory=dict)
    settings: Settings = field(default_factory=lambda: Settings())  # what workers get besides the cells
    foreign: str | None = None  # the name of another package's launcher; None for ours
    single: bool | None = None  # whether the command asked for one cell; None in files of earlier versions
    scoring: list[Asked] = field(default_factory=list)  # of cells that are scored by other than default settings
    submissions: list[Submission] = field(default_factory=list)
    of_user: str | None = None  # whose it was in the folder that it was merged from; None for the owner of its file

    def folder(self, output_dir: Path) -> Path:
        """The folder of the sweep's files."""
        return output_dir / "sweeps" / self.name

    def write(self, output_dir: Path) -> None:
        """Write sweep.json. Raises UserError when the disk refuses."""
        write_json(self.folder(output_dir) / "sweep.json", self.data())

    def data(self) -> dict[str, object]:
        """What sweep.json has."""
        absent = [*([] if self.scoring else ["scoring"]), *([] if self.of_user else ["of_user"])]
        return {name: value for name, value in asdict(self).items() if name not in absent}

    def asked(self) -> dict[str, Asked]:
        """{key: how it is to be scored} of the cells in `scoring`."""
        return {key: asked for asked in self.scoring for key in asked["keys"]}

    def wanted(self) -> dict[str, set[str]]:
        """{variant: keys of the cells that are to be scored by it}, by suffix."""
        asked, found = self.asked(), dict[str, set[str]]()
        for key in self.keys:
            for variant in asked[key]["variants"] if key in asked else [""]:
                found.setdefault(variant, set()).add(key)
        return found

    @property
    def of_one_cell(self) -> bool:
        """Whether the sweep is a single cell, which tables and reports do not show by default."""
        if self.single is None:
            return len(set(self.keys) - set(self.baselines)) <= 1 and not self.command.startswith("import")
        return self.single

    @property
    def runs(self) -> list[str]:
        """The ids of all launches, in order."""
        return [s.run for s in self.submissions]

    def done(self, ledger: Ledger, key: str) -> bool:
        """Whether the ledger has a result that counts for this sweep, of as many images as it asks for."""
        attempts = ledger.attempts.get(key)
        result = None if attempts is None else attempts.result
        if result is not None and key not in self.rerun and not result.get("stopped"):
            return True  # the usual case: of all images
        return ledger.done(key, self.rerun.get(key, ()), asked(self.settings, key))

    def failures(self, attempts: Attempts) -> list[FailureLine]:
        """Failures of this sweep's launches. Another package's launcher has no run ids, so that only the last failure
        of all is known."""
        if self.foreign:
            return [attempts.last_failure] if attempts.last_failure else []
        return attempts.failed_in(self.runs)

    def logs(self, output_dir: Path, run: str) -> Path:
        """The folder of the logs of one launch."""
        return output_dir / "logs" / self.name / run


def new_run() -> str:
    """A random id for a launch, 8 hex digits."""
    return uuid.uuid4().hex[:8]


def check_name(name: str | None) -> None:
    """Raise UserError for a sweep name that cannot be a folder name. None is allowed."""
    if name is not None and not re.fullmatch(r"[\w][\w.-]*", name):
        raise UserError(f"sweep_name={name}: not a folder name; right: letters, digits, '.', '_' and '-'")


def list_sweeps(output_dir: Path, forgotten: bool = False) -> list[Sweep]:
    """All sweeps, oldest first. A sweep whose file is damaged, or may not be read, is named and left out. forgotten:
    list those too that were forgotten."""
    found, hidden = [], set() if forgotten else forgotten_sweeps(output_dir)
    for folder in sorted((output_dir / "sweeps").glob("*")):
        try:
            found.append(read_sweep(folder / "sweep.json"))
        except UserError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                remark(f"{error}; the sweep {folder.name} is left out")
    return sorted((s for s in found if (s.name, s.created) not in hidden), key=lambda s: s.created)


def read_sweep(path: Path) -> Sweep:
    """A sweep from its file. Fields of other versions are ignored. Raises UserError for a file that is not a
    sweep's."""
    data = read_json(path)
    try:
        launches = [Submission(**_known(s, Submission.__dataclass_fields__)) for s in data.get("submissions", [])]
        sweep = Sweep(**_known({**data, "submissions": launches}, Sweep.__dataclass_fields__))
        valid = _is_sweep(sweep)
    except (AttributeError, KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(f"{path}: not what a sweep's file says; right: an unchanged copy")
    return sweep


def submissions_of(output_dir: Path, name: str) -> list[Submission]:
    """All launches in a sweep's file so far. Empty when the file is missing, and, after a remark, when it is
    damaged."""
    try:
        return read_sweep(output_dir / "sweeps" / name / "sweep.json").submissions
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            remark(f"{error}; what was launched before is not known")
        return []


def _is_sweep(sweep: Sweep) -> bool:
    """Whether the fields that are used without a check are of their types."""
    texts = (
        sweep.name,
        sweep.command,
        sweep.of_user or "",
        *sweep.keys,
        *sweep.baselines,
        *(k for r in sweep.rerun.values() for k in r),
    )
    launches = sweep.submissions
    texts += tuple(t for s in launches for t in (s.run, s.kind, s.host, s.user))
    numbers = (sweep.created, *(n for s in launches for n in (s.created, s.pid, s.packs)))
    texts += tuple(t for a in sweep.scoring for t in (a["main_metric"], *a["variants"], *a["keys"]))
    objects = (sweep.rerun, sweep.tracking, sweep.settings, *(s.launcher for s in launches), *sweep.skipped)
    objects += tuple(a["settings"] for a in sweep.scoring)
    arrays = [a for s in launches for a in s.arrays]
    return (
        all(isinstance(t, str) for t in texts)
        and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        and all(isinstance(o, dict) for o in (*objects, *arrays))
        and all({"job", "first", "count"} <= a.keys() for a in arrays)
    )


def find_sweep(output_dir: Path, name: str | None) -> Sweep:
    """The named sweep; without a name, the one that was started last. Raises UserError when there is none, or when it was
    forgotten."""
    if name is not None and (path := output_dir / "sweeps" / name / "sweep.json").exists():
        sweep = read_sweep(path)
        if is_forgotten(output_dir, sweep):
            raise UserError(f"sweep '{name}' was forgotten; right: `blip2sweep forget --undo {name}`, or another sweep")
        return sweep
    sweeps = list_sweeps(output_dir)
    if not sweeps:
        raise UserError(
            f"{output_dir}: no sweep here; right: --output-dir of a sweep, or run one with python -m blip2sweep -m …"
        )
    if name is None:
        return sweeps[-1]
    raise UserError(f"sweep '{name}' is not in {output_dir}; {nearest(name, [s.name for s in sweeps])}")


def is_forgotten(output_dir: Path, sweep: Sweep) -> bool:
    """Whether a sweep was forgotten. One that was made later under its name was not."""
    return (sweep.name, sweep.created) in forgotten_sweeps(output_dir)


def find_results(output_dir: Path, name: str | None) -> Sweep:
    """The named sweep; without a name, the newest of several cells, or the newest run of one cell when there is no
    other."""
    several = [] if name is not None else [s for s in list_sweeps(output_dir) if not s.of_one_cell]
    return several[-1] if several else find_sweep(output_dir, name)


def newer_single_runs(output_dir: Path, sweep: Sweep) -> list[str]:
    """The names of runs of one cell that are newer than the sweep that `find_results` chose."""
    return [s.name for s in list_sweeps(output_dir) if s.of_one_cell and s.created > sweep.created]


def _known(data: Mapping[str, object], names: Collection[str]) -> dict[str, Any]:
    """The fields that this version knows."""
    return {k: v for k, v in data.items() if k in names}
