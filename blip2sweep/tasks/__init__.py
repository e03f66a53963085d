"""Tasks: one file for each data format, one for each kind of task. task.py has both protocols. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blip2sweep import outside
from blip2sweep.errors import UserError
from blip2sweep.files import local_path
from blip2sweep.rows import without_gc
from blip2sweep.tasks.generation import Generation, resolve_generation
from blip2sweep.tasks.rounds import of_round
from blip2sweep.tasks.sample import Sample, TaskData, fingerprint
from blip2sweep.tasks.task import format_of, task_of

__all__ = ["Generation", "Sample", "TaskData", "load_task", "planned_task", "resolve_generation"]


def load_task(config: Mapping[str, Any]) -> TaskData:
    """The samples of a composed `task` config. Annotations are read and checked; of images only the existence.

    Raises UserError, one line, for anything missing, damaged or outside the data folder.
    """
    kind, form = config["kind"], config["format"]
    reader = format_of(str(form))
    if kind not in reader.KINDS:
        held = ", ".join(reader.KINDS)
        raise UserError(f"task.kind={kind}: format {form} holds {held}; right: task.kind={held}")
    task_of(kind)
    if config.get("on_bad_image", "error") not in ("error", "skip"):
        raise UserError(f"task.on_bad_image={config['on_bad_image']}: right: error or skip")
    root = local_path(str(config["data_dir"]))
    if not root.is_dir():
        raise UserError(
            f"task.data_dir={config['data_dir']}: no such folder; right: the folder that holds annotations/ and images (official files: cocodataset.org, visualqa.org)"
        )
    with without_gc():
        samples, notes = reader.read(root, str(config["split"]), config.get("limit"))
    own = [str(config["note"])] if config.get("note") else []
    skip = str(config.get("on_bad_image", "error"))
    whole, main = fingerprint(samples, root), str(config.get("main_metric") or "")
    variant = str(config.get("variant") or "")
    return TaskData(
        str(config["name"]), kind, tuple(samples), whole, (*own, *notes), skip, main_metric=main, variant=variant
    )


def planned_task(config: Mapping[str, Any]) -> TaskData:
    """The samples of a task as a job carries it, with `planned`: their fingerprint and the digest of the images'
    content. Of a job that has a `share`, those of that share.

    Raises UserError where the samples, or the code from outside that reads them, have changed since.
    """
    planned = config.get("planned")
    outside.require((planned or {}).get("outside") or {})
    found = load_task(config)
    if not planned:  # a job that an earlier version planned
        return found
    if found.fingerprint != planned["samples"]:
        raise UserError(
            f"task {found.name}: its annotations in {config['data_dir']} changed since it was planned; right: the same "
            f"command again, which plans them as they are now"
        )
    whole = replace(found, planned=planned["images"])
    if "round" in config:
        whole = of_round(whole, config["round"])
    if "share" not in config:
        return whole
    rank, count = (int(x) for x in config["share"].split("/"))
    return whole.share(rank, count)
