"""`blip2sweep.json` of an exported folder: what it is, and the hash of each file. What was cut is found by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict, cast

from blip2sweep.errors import UserError
from blip2sweep.exporting import Written
from blip2sweep.files import read_json, write_json
from blip2sweep.version import VERSION as OWN_VERSION
from blip2sweep.wire.pack import CellJob, JsonObject

NAME = "blip2sweep.json"
VERSION = 1
LIBRARIES = (
    "torch",
    "transformers",
    "compressed-tensors",
    "openvino",
    "nncf",
    "onnx",
    "onnxruntime",
    "torchao",
    "bitsandbytes",
)


class FileNote(TypedDict):
    """A file's size and content."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """What an exported folder is. payload: bytes of numbers. around: of headers, graphs and texts. model_bytes: what the
    payload is by the table."""

    format: str
    version: int
    purpose: str | None
    key: str
    model: str
    weights: str
    recipe: list[JsonObject]
    payload: int
    around: int
    model_bytes: float | None
    files: dict[str, FileNote]
    versions: dict[str, str]


def write_manifest(
    folder: Path, form: str, purpose: str | None, job: CellJob, written: Written, model_bytes: float | None
) -> Manifest:  # fmt: skip
    """Write the manifest of a folder whose other files are all there."""
    columns = job["columns"]
    made = Manifest(
        format=form, version=VERSION, purpose=purpose, key=job["key"], model=columns["model"], weights=columns["weights"],
        recipe=job["recipe"], payload=written.payload, around=written.around, model_bytes=model_bytes, files=_files(folder),
        versions=_versions(),
    )  # fmt: skip
    write_json(folder / NAME, made)
    return made


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises UserError where there is none, or another version's."""
    found = read_json(folder / NAME)
    if not _is_manifest(found):
        raise UserError(f"{folder / NAME}: of another version; right: `blip2sweep export` of this one")
    return cast("Manifest", dict(found))


def _is_manifest(found: object) -> bool:
    if (
        not isinstance(found, Mapping)
        or found.get("version") != VERSION
        or not Manifest.__required_keys__ <= found.keys()
    ):
        return False
    notes = found["files"]
    return isinstance(notes, Mapping) and all(
        isinstance(note, Mapping) and isinstance(note.get("bytes"), int) and "sha256" in note for note in notes.values()
    )


def check_export(folder: Path) -> Manifest:
    """The manifest of a folder whose files are as they were written. Raises UserError with all that are not, and with
    those that were added."""
    if not (folder / NAME).is_file():
        raise UserError(f"{folder}: no export, {NAME} is not there; right: a folder that `blip2sweep export` wrote")
    found, now = read_manifest(folder), _files(folder)
    wrong = [f"{name} {_why(note, now.get(name))}" for name, note in found["files"].items() if now.get(name) != note]
    wrong += [f"{name} was added" for name in now if name not in found["files"]]
    if wrong:
        raise UserError(f"{folder}: {', '.join(wrong)}; right: the export again, to another folder")
    return found


def _why(written: FileNote, now: FileNote | None) -> str:
    if now is None:
        return "is missing"
    return f"has {now['bytes']} bytes of {written['bytes']}" if now["bytes"] != written["bytes"] else "was changed"


def _files(folder: Path) -> dict[str, FileNote]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): FileNote(bytes=p.stat().st_size, sha256=_sha256(p)) for p in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"blip2sweep": OWN_VERSION}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
