"""Python files: beside the YAML of `--config-dir`, or named by a pack."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.outside.outside_module import GROUPS, Name, OutsideModule
from blip2sweep.wire.pack import OutsideCode

known: dict[Name, OutsideModule] = {}
imported: dict[Name, tuple[str, object]] = {}  # (sha256, module) of files; a process imports one of each name


def search(folders: Iterable[Path]) -> None:
    """Have the names of these folders in the place of those known before, of the first folder that has one. Nothing is read."""
    known.clear()
    for folder in folders:
        for group in GROUPS:
            for path in sorted((folder / group).glob("[!_]*.py")):
                known.setdefault((group, path.stem), _of_file((group, path.stem), path.absolute()))


def _of_file(name: Name, path: Path, planned: str | None = None) -> OutsideModule:
    """planned: the only sha256 that is imported; None: that of the file as it is when it is first asked for."""
    read = cache(lambda: _checked(path, planned))

    def hashed() -> OutsideCode:
        return OutsideCode(file=str(path), sha256=hashlib.sha256(read()).hexdigest())

    return OutsideModule(f"file {path}", lambda: _import_file(name, path, read()), hashed)


def _checked(path: Path, planned: str | None) -> bytes:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"file {path}: cannot be read ({error.strerror}); right: the file that the cell was planned with"
        ) from error
    if planned and hashlib.sha256(source).hexdigest() != planned:
        raise UserError(
            f"file {path}: changed since the cell was planned; right: the same command again, which plans it anew"
        )
    return source


def _import_file(name: Name, path: Path, source: bytes) -> object:
    """Of the bytes, not of what is on disk by now."""
    digest = hashlib.sha256(source).hexdigest()
    known = imported.get(name)
    if known:
        if known[0] != digest:
            raise UserError(f"file {path}: changed since this process imported it; right: a new process")
        return known[1]
    title = f"blip2sweep_outside_{'_'.join(name)}"
    spec = spec_from_file_location(title, path)
    assert spec is not None
    module = sys.modules[title] = module_from_spec(spec)
    try:
        exec(compile(source, path, "exec"), vars(module))
    except BaseException:
        del sys.modules[title]
        raise
    imported[name] = (digest, module)
    return module


def remember(codes: Mapping[str, OutsideCode]) -> None:
    """Know the files that packs name, unless one of that name is known. Nothing is read before a name is asked for."""
    for full, code in codes.items():
        group, _, name = full.partition(".")
        if "file" in code:
            known.setdefault((group, name), _of_file((group, name), Path(code["file"]), code["sha256"]))
