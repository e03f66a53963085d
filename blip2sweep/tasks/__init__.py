"""Tasks: one file for each data format, one for each kind of task. task.py has both protocols. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from blip2sweep import outside
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.files import local_path
from blip2sweep.rows import without_gc
from blip2sweep.tasks.existence import some_may_lack
from blip2sweep.tasks.generation import Generation, resolve_generation
from blip2sweep.tasks.order import order_of, segments_of
from blip2sweep.tasks.rounds import of_round
from blip2sweep.tasks.sample import Sample, TaskData, fingerprint
from blip2sweep.tasks.settings import named_main_metric, task_settings
from blip2sweep.tasks.task import format_of, task_of

__all__ = [
    "Generation",
    "PlannedTasks",
    "Sample",
    "TaskData",
    "load_task",
    "planned_task",
    "resolve_generation",
    "with_scoring",
]


def load_task(config: Mapping[str, Any]) -> TaskData:
    """The samples of a composed `task` config. Annotations are read and checked; of images only the existence.

    Raises UserError, one line, for anything missing, damaged or outside the data folder.
    """
    kind, own = config["kind"], task_settings(config)
    reader = format_of(str(config["format"]))
    if config.get("on_bad_image", "error") not in ("error", "skip"):
        raise UserError(f"task.on_bad_image={config['on_bad_image']}: right: error or skip")
    root = local_path(str(config["data_dir"]))
    if not root.is_dir():
        raise UserError(
            f"task.data_dir={config['data_dir']}: no such folder; right: the folder that holds annotations/ and images (official files: cocodataset.org, visualqa.org)"
        )
    skip = str(config.get("on_bad_image", "error"))
    with without_gc(), some_may_lack(skip == "skip"):
        samples, notes = reader.read(root, str(config["split"]), config.get("limit"), **own.reading)
    told = [str(config["note"])] if config.get("note") else []
    whole, name, said = fingerprint(samples, root), str(config["name"]), (*told, *notes)
    resolved = getattr(task_of(kind), "resolved_settings", lambda settings, _: settings)(own.identity, samples)
    data = TaskData(name, kind, tuple(samples), whole, said, skip, settings=resolved)
    return data.scored_by(own.scoring, named_main_metric(config))


def with_scoring(data: TaskData, config: Mapping[str, object]) -> TaskData:
    """The samples of another task config that differs in scoring settings alone. Raises UserError as `load_task` does."""
    return data.scored_by(task_settings(config).scoring, named_main_metric(config))


def planned_task(config: Mapping[str, Any]) -> TaskData:
    """The samples of a task as a job carries it, with `planned`: their fingerprint and the digest of the images'
    content. Of a job that has `places` or a `share`, those of these images.

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
    return _part(replace(found, planned=planned["images"]), config)


def _part(whole: TaskData, config: Mapping[str, Any]) -> TaskData:
    """The samples of a job's round, of one segment of the random order, and of its share."""
    if "round" in config:
        whole = of_round(whole, config["round"])
    if "places" in config:
        ((first, end),) = segments_of(config["places"])
        drawn = {*order_of(whole.fingerprint, [*whole.images])[first:end]}
        whole = whole.part([s for s in whole.samples if s.image_id in drawn])
    if "share" in config:
        rank, count = (int(x) for x in config["share"].split("/"))
        whole = whole.share(rank, count)
    return whole


def _segments(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The task of each segment that a job's places name. Where processes share the job, each has its share of every
    segment, so that cells whose rounds are other segments together share what is known of each."""
    return [{**config, "places": own} for own in config["places"].split(",")]


def _together(whole: TaskData, parts: Iterable[TaskData]) -> TaskData:
    """The samples of all parts, in the order of the whole."""
    own = {image for part in parts for image in part.images}
    return whole.part([s for s in whole.samples if s.image_id in own])


class PlannedTasks:
    """`planned_task` of jobs, each read once. What has some of the images of a task is made of what was read of all."""

    def __init__(self) -> None:
        self._known: dict[str, TaskData] = {}

    def __call__(self, config: Mapping[str, Any]) -> TaskData:
        name = canonical_json(config)
        if name not in self._known:
            self._known[name] = self._made(config)
        return self._known[name]

    def _made(self, config: Mapping[str, Any]) -> TaskData:
        if "places" not in config:
            return planned_task(config)
        all_images = {k: v for k, v in config.items() if k not in ("places", "share")}
        if len(segments := _segments(config)) > 1:
            return _together(self(all_images), map(self, segments))
        return _part(self(all_images), {k: config[k] for k in ("places", "share") if k in config})
