"""What a model takes: as it was written, as its bits would be packed, and before it was compressed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from blip2sweep.models.checkpoints.files import weight_files
from blip2sweep.planning.model import planned_model
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import CellJob


class Original(NamedTuple):
    """A model without a recipe. stored: bytes of its numbers as they are stored (`model.stored`, else the cell's dtype).
    disk: bytes of its files of weights."""

    stored: int
    disk: int


def original(job: CellJob) -> Original:
    """The model that a cell compresses, from the headers of its files. Raises UserError where they are gone."""
    model = planned_model(ModelSection(**{**job["model"], "path": job["folder"]}))
    disk = sum(path.stat().st_size for path in weight_files(model.folder))
    return Original(math.ceil(model.numbers.total_bits / 8), disk)


def original_line(job: CellJob) -> str:
    """`original: 2,046,984 bytes on disk, 4,020,224 as it is loaded (model_bytes of the baseline's row)`."""
    found = original(job)
    return (
        f"original: {found.disk:,} bytes on disk, {found.stored:,} as it is loaded (model_bytes of the baseline's row)"
    )


def on_disk(folder: Path) -> tuple[int, int]:
    """The bytes of the files of weights in a folder, and of all others."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    weights = sum(n for path, n in sizes.items() if path.suffix == ".safetensors")
    return weights, sum(sizes.values()) - weights


def packed_bytes(job: CellJob) -> int | None:
    """The column model_bytes of the cell's row; None where it has none."""
    told = job["columns"].get("model_bytes")
    return None if told is None else int(told)
