"""The files of a cell, kept in the sweep's cache: they are there whole, or not at all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from blip2sweep.cache.disk import Store
from blip2sweep.canonical import digest
from blip2sweep.wire.pack import CellJob, JsonObject, Settings

GB, DISK_GB = 10**9, 20.0


def store_of(settings: Settings) -> Store | None:
    """The store of a sweep on disk; None where nothing is kept."""
    folder, gigabytes = settings.get("cache_dir"), settings.get("cache_gb")
    if settings.get("cache") != "disk" or not folder:
        return None
    return Store(Path(folder), int((DISK_GB if gigabytes is None else gigabytes) * GB))


def content_key(job: CellJob, made_by: JsonObject) -> str:
    """The name of what is written of a cell: of its weights and recipe, and of what wrote it."""
    columns, model = job["columns"], {k: v for k, v in job["model"].items() if k not in ("path", "revision")}
    return digest([made_by, model, columns["weights"], job["recipe"] and columns["semantics"], job["recipe_hash"]])[:32]


def packed(folder: Path) -> bytes:
    """All files of a folder as one archive."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.add(folder, arcname=".")
    return held.getvalue()


def unpack(payload: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(payload)) as archive:
        archive.extractall(folder, filter="data")
