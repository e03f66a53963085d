"""What is refused of a planned sweep before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.chat.client import Client
from blip2sweep.chat.recipe import ENDPOINT, endpoint
from blip2sweep.errors import UserError
from blip2sweep.planning.plan import Plan, PlannedJob

Config = Mapping[str, Any]  # a composed config: any section may be asked for


def check_sizes(config: Config) -> None:
    """Refuse a batch size, a time or a number of processes that is not positive."""
    if (batch := config.get("batch_size")) is not None and batch < 1:
        raise UserError(f"batch_size={batch}: right: a positive integer, or null to choose by device")
    if (minutes := config.get("scoring_minutes")) is not None and not minutes > 0:
        raise UserError(f"scoring_minutes={minutes}: right: more than 0, or null for as long as the texts may take")
    if (workers := config.get("data_workers") or 0) < 0:
        raise UserError(f"data_workers={workers}: right: 0, or how many processes decode images")


def check_noise_floor(config: Config, plan: Plan) -> None:
    """Refuse to measure the noise floor of calibration where nothing is calibrated."""
    if (config.get("analysis") or {}).get("noise_floor") and not any(c.calibration for c in plan.cells.values()):
        raise UserError(
            "analysis.noise_floor=true: no cell is calibrated, so it would be ignored; right: leave it out, or a method "
            "that calibrates, such as quant=gptq"
        )


def times(config: Config) -> bool:
    """Whether a composed config asks for latency."""
    return bool((config.get("analysis") or {}).get("latency"))


def check_measured_by_torch(config: Config, plan: Plan) -> None:
    """Refuse measurements that a back end other than torch does not make, and that nobody makes of rounds."""
    chosen, backend = config.get("analysis") or {}, next((c.backend for c in plan.cells.values() if c.backend), None)
    asked = next((name for name in ("propagation", "noise_floor") if chosen.get(name)), None)
    if asked and any(c.chat for c in plan.cells.values()):
        raise UserError(
            f"analysis.{asked}=true: cells that ask a chat model are not measured so; right: the same cells of task=okvqa"
        )
    if asked and backend:
        raise UserError(
            f"analysis.{asked}=true: backend={backend['name']} does not measure it, so it would be ignored; "
            f"right: backend=torch"
        )


def asks_of(config: Config) -> bool:
    """Whether a composed config names a chat model."""
    return bool((config.get("chat") or {}).get("name"))


def check_chat(jobs: Sequence[PlannedJob], plan: Plan) -> None:
    """Refuse jobs whose requests go to different endpoints, because a command has one; and workers that are to ask a chat
    model and cannot, for want of an address or a key."""
    asking = [job.config["chat"] for job in jobs if asks_of(job.config)]
    for other in asking[1:]:
        first, second = endpoint(asking[0]), endpoint(other)
        if differ := [key for key in ENDPOINT if first.get(key) != second.get(key)]:
            told = "; ".join(f"chat.{key}={first.get(key)} and {second.get(key)}" for key in differ)
            raise UserError(
                f"chat={asking[0]['name']},{other['name']}: all requests of a command go to one endpoint ({told}); right: "
                f"one command an endpoint, or the same chat.{differ[0]} for all"
            )
    if any(cell.chat for cell in plan.todo):
        for config in asking:
            if config["online"]:
                Client(endpoint(config))


def check_output_dir(output_dir: Path) -> None:
    """Refuse an output_dir that is a file or that cannot be written, before anything is created."""
    existing = next(p for p in [output_dir.absolute(), *output_dir.absolute().parents] if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"output_dir={output_dir}: {existing} is not a writable folder; right: a folder of yours")
