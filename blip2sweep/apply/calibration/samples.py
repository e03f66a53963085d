"""The calibration samples of a job, and what else its measurements depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import asked_as
from blip2sweep.models.images import preprocessing
from blip2sweep.models.load import Loaded
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, choose
from blip2sweep.wire.pack import CellJob, JsonObject


def same_samples(section: Mapping[str, Any]) -> Calibration:
    """The samples that planning chose. section: the job's calibration.

    Raises RuntimeError where the annotations have changed since. An image that has changed is found when it is decoded.
    """
    if "planned" not in section:
        raise UserError(
            f"calibration {section['name']} was planned by an earlier version; right: the same command again"
        )
    fields, planned = {k: v for k, v in section.items() if k != "planned"}, section["planned"]
    data = choose(load_task(section["task"]), section["n_samples"], section["seed"])
    if data.fingerprint != planned["samples"]:
        raise RuntimeError(f"the calibration samples of {section['name']} changed between planning and running")
    return Calibration(data=replace(data, planned=planned["images"]), **fields)


def variants(chosen: Calibration) -> dict[str, Calibration]:
    """{name: calibration} for the noise floor of a calibrated cell.

    `seed`: other samples of the same split. `arithmetic`: the same samples in batches of half the size and on another
    number of threads, so that sums are rounded differently.
    """
    seed = chosen.seed + 1
    other = choose(load_task(chosen.task), chosen.n_samples, seed)
    threads, batch = 2 if chosen.threads == 1 else 1, max(1, chosen.batch // 2)
    return {
        "seed": replace(chosen, data=other, seed=seed),
        "arithmetic": replace(chosen, threads=threads, batch=batch),
    }


def origin(loaded: Loaded, job: CellJob, code: str) -> JsonObject:
    """Everything but recipe and samples that determines measurements, as JSON. code: semantics and versions."""
    return {
        "weights": job["columns"]["weights"], "preprocessing": preprocessing(loaded), "dtypes": loaded.dtypes,
        "attention": loaded.attention, "device": loaded.device.type, "code": code,
        **({"stored": loaded.stored} if loaded.stored else {}), **asked_as(job["model"]),
    }  # fmt: skip
