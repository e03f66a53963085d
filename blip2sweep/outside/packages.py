"""Entry points of installed packages."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.outside.outside_module import GROUPS, Name, OutsideModule
from blip2sweep.wire.pack import OutsideCode

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint


@cache
def packaged() -> dict[Name, list[OutsideModule]]:
    """What installed packages bring; none is imported."""
    from importlib.metadata import entry_points

    every, found = entry_points(), dict[Name, list[OutsideModule]]()
    for group in GROUPS:
        for point in every.select(group=f"blip2sweep.{group}"):
            found.setdefault((group, point.name), []).append(_of_package(point))
    return found


def _of_package(point: EntryPoint) -> OutsideModule:
    dist = point.dist
    assert dist is not None
    where = f"package {dist.name} {dist.version}, entry point {point.group}: {point.name} = {point.value}"
    return OutsideModule(where, point.load, lambda: _package_code(dist, point))


def _package_code(dist: Distribution, point: EntryPoint) -> OutsideCode:
    """Of an editable install the version says nothing: its files count too."""
    code = OutsideCode(package=dist.name, version=dist.version)
    url = json.loads(dist.read_text("direct_url.json") or "{}")
    return {**code, "sha256": _folder_digest(point)} if url.get("dir_info", {}).get("editable") else code


def _folder_digest(point: EntryPoint) -> str:
    spec = find_spec(point.value.partition(":")[0].partition(".")[0])
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [p for folder in folders for p in sorted(Path(folder).rglob("*.py"))]
    files = files or ([Path(spec.origin)] if spec and spec.origin else [])
    return hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in files)).hexdigest()
