"""Checks the settings of `hydra.launcher` for Slurm. Settings that cannot work are refused before anything is
written."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.planning.processes import checked_processes
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.pack import CellJob

Given = Mapping[str, object]  # settings as the user wrote them, of any type

# The smallest value of a setting.
LEAST = {
    "timeout_min": 1, "array_parallelism": 1, "nodes": 1, "tasks_per_node": 1, "max_packs": 1, "pack_minutes": 0,
    "signal_delay_s": 0, "max_num_timeout": 0,
}  # fmt: skip
FLAGS = ("wait", "stderr_to_stdout")
LISTS = ("setup", "teardown", "srun_args")
# Options that change what sbatch prints or does, on which following the jobs depends.
OURS_ALONE = ("array", "error", "open-mode", "output", "parsable", "quiet", "test-only", "wait", "wrap")
LONG = {"M": "clusters", "p": "partition", "A": "account", "q": "qos", "C": "constraint", "x": "exclude", "w": "nodelist",
        "L": "licenses", "H": "hold", "b": "begin", "d": "dependency", "c": "cpus-per-task", "t": "time", "J": "job-name"}  # fmt: skip
# Unicode categories of invisible characters: controls, formats such as text direction, surrogates, line and paragraph
# ends.
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def checked_launcher(launcher: Given) -> Launcher:
    """The settings, with clusters under their own name. Raises UserError for settings that cannot work."""
    _check_text(launcher)
    _check_numbers(launcher)
    checked_processes(launcher.get("processes_per_cell"))
    _check_shapes(launcher)
    return _with_clusters(launcher)


def check_gpus(launcher: Launcher, jobs: Iterable[CellJob]) -> None:
    """Raise UserError where the processes of a job cannot have equal numbers of its GPUs.

    Each has one GPU; with `model.device_map` it has an equal share of them.
    """
    processes, tasks = launcher.get("processes_per_cell") or 1, launcher.get("tasks_per_node") or 1
    gpus, needed = gpus_of(launcher), processes * tasks
    spread = any(job["model"].get("device_map") for job in jobs)
    if processes == 1 or gpus is None or gpus == needed or (spread and gpus and gpus % needed == 0):
        return
    more = f"gpus_per_node={needed}" + (" or a multiple, which model.device_map divides" if spread else "")
    raise UserError(
        f"hydra.launcher.processes_per_cell={processes}: {tasks} task{'s' * (tasks > 1)} of {processes} processes need "
        f"{needed} GPUs a node, and {gpus} {'are' if gpus != 1 else 'is'} asked for; right: hydra.launcher.{more}"
    )


def gpus_of(launcher: Launcher) -> int | None:
    """The GPUs of a job, as its settings ask for them. None where they do not say."""
    by_task = _count(launcher.get("gpus_per_task"))
    if by_task is not None:
        return by_task * (launcher.get("tasks_per_node") or 1)
    on_node = _count(launcher.get("gpus_per_node"))
    return (
        on_node
        if on_node is not None
        else _count(str(launcher.get("gres") or "").partition("gpu")[2].partition(",")[0])
    )


def _count(setting: int | str | None) -> int | None:
    """The number of `4`, `a100:4` or `:a100:4`."""
    last = str(setting).rpartition(":")[2]
    return int(last) if last.isdigit() else None


def with_time_to_work(launcher: Launcher) -> Launcher:
    """The settings with `signal_delay_s` at most a quarter of the wall time, because a job signalled at its start would
    do nothing."""
    delay, minutes = launcher.get("signal_delay_s"), launcher.get("timeout_min")
    return {**launcher, "signal_delay_s": min(delay, 15 * minutes)} if delay and minutes else launcher


def _with_clusters(launcher: Given) -> Launcher:
    more = dict(
        cast("Given", launcher.get("additional_parameters") or {})
    )  # `_check_shapes` made sure that it is a dict
    named = {str(v) for v in (launcher.get("clusters"), more.pop("clusters", None), more.pop("M", None)) if v}
    if len(named) > 1:
        raise UserError(f"hydra.launcher.clusters: said twice, {' and '.join(sorted(named))}; right: once")
    return cast("Launcher", {**launcher, "clusters": next(iter(named), None), "additional_parameters": more})


def _check_numbers(launcher: Given) -> None:
    for name, least in LEAST.items():
        value = launcher.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
            raise UserError(f"hydra.launcher.{name}={value}: right: {least} or more")
    for name in FLAGS:
        if not isinstance(launcher.get(name, True), bool):
            raise UserError(f"hydra.launcher.{name}={launcher[name]}: right: true or false")
    if launcher.get("nodes", 1) != 1:
        raise UserError(
            f"hydra.launcher.nodes={launcher['nodes']}: a pack runs on one node; right: more packs (max_packs)"
        )


def _check_shapes(launcher: Given) -> None:
    more = launcher.get("additional_parameters") or {}
    if not isinstance(more, dict):
        raise UserError(
            f"hydra.launcher.additional_parameters={more}: right: names and values, as in {{reservation: x}}"
        )
    for name in LISTS:
        if not isinstance(launcher.get(name) or [], list):
            raise UserError(f"hydra.launcher.{name}={launcher[name]}: right: a list, as in '{name}=[\"…\"]'")
    for name, value in (*launcher.items(), *((f"additional_parameters.{k}", v) for k, v in more.items())):
        if isinstance(value, list | tuple) and name not in LISTS:
            raise UserError(f"hydra.launcher.{name}: a list; right: {as_text(name, ','.join(map(str, value)))}")
    for name in map(str, more):
        _check_flag(name)


def _check_flag(name: str) -> None:
    where = f"hydra.launcher.additional_parameters.{name}"
    if name.replace("_", "-") in OURS_ALONE:
        raise UserError(f"{where}: arrays, logs and what sbatch prints are ours; right: leave it out")
    if len(name) == 1 and name != "M":
        raise UserError(f"{where}: a flag of one letter; right: its long name, {LONG.get(name, 'see sbatch --help')}")
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise UserError(f"{where}: no flag of sbatch; right: the name of one, such as reservation")


def as_text(name: str, value: str) -> str:
    """How a text with commas is typed. Hydra takes it for a sweep, unless it is in quotes that the shell leaves."""
    return f"hydra.launcher.{name}=\\'{value}\\' (or \"hydra.launcher.{name}='{value}'\"), one text in quotes that Hydra sees"


def _check_text(launcher: Given) -> None:
    """Refuse invisible characters: one that ends a line would add a line to the batch script."""
    for where, text in _texts("hydra.launcher", launcher):
        tab = "\t" if where.rpartition(".")[2].partition("[")[0] in ("setup", "teardown") else ""
        unseen = next((c for c in text if c not in tab and unicodedata.category(c) in UNSEEN), None)
        if unseen is not None:
            raise UserError(
                f"{ascii(where)[1:-1]}={text!a}: holds U+{ord(unseen):04X}, a control character; right: one line of plain text"
                + (", each command an entry of the list" if "[" in where else "")
            )


def _texts(where: str, value: object) -> Iterator[tuple[str, str]]:
    """(where, text) of every text in a value, keys included."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield where, str(key)
            yield from _texts(f"{where}.{key}", inner)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _texts(f"{where}[{i}]", inner)
