"""Code from outside: an architecture, task, compression, method or back end that is no part of this package.

It comes in two ways: by an entry point `blip2sweep.<group>` of an installed package, or as a file `<group>/<name>.py` in the
folder of `--config-dir`. Either way a name stands for a module. Entry points are read once, when a name is asked for that is not
built in; a module is imported when its own name is asked for. Keys hold the package and its version, or the sha256 of the file;
packs hold the file's path too, and what runs them imports the very bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, cast

from blip2sweep.errors import UserError, nearest
from blip2sweep.wire.pack import OutsideCode

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUPS = ("architectures", "tasks", "compression", "methods", "backends")
Name = tuple[str, str]  # (group, name)
PAGE = "docs/extending.md"


@dataclass(frozen=True, eq=False)
class Found:
    """A name and who has it. where: for messages; source: imports the module; hashed: gives what keys and packs say of it."""

    where: str
    source: Callable[[], object]
    hashed: Callable[[], OutsideCode]

    @cached_property
    def code(self) -> OutsideCode:
        """Raises UserError for a file that cannot be read."""
        return self.hashed()

    @cached_property
    def module(self) -> object:
        """Raises UserError, one line, where it cannot be imported."""
        try:
            return self.source()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{self.where}: cannot be imported ({type(error).__name__}: {said}); right: a module as {PAGE} has it"
            ) from error

    def having(self, names: Iterable[str]) -> object:
        """The module. Raises UserError where it lacks names."""
        lacking = [name for name in names if not hasattr(self.module, name)]
        if lacking:
            raise UserError(f"{self.where}: lacks {', '.join(lacking)}; right: every name that {PAGE} lists")
        return self.module


# ---- what planning asks


def module_of(group: str, name: str, built_in: Mapping[str, str], protocol: type, unknown: str) -> object:
    """The module of a name, with the names of a protocol. built_in: {name: module} of this package; unknown: the begin of the
    error where nobody has the name. Raises UserError."""
    if name in built_in:
        return import_module(built_in[name])
    found = find(group, name)
    if found is None:
        raise UserError(f"{unknown}; {nearest(name, [*built_in, *names(group)])}")
    return found.having(members(protocol))


def members(protocol: type) -> list[str]:
    """The names that a module of a protocol has."""
    own = [*getattr(protocol, "__annotations__", ()), *vars(protocol)]
    return [name for name in dict.fromkeys(own) if not name.startswith("_")]


def find(group: str, name: str) -> Found | None:
    """Who has a name that is not built in; None where nobody has. Raises UserError where several have it."""
    several = _all(group, name)
    if len(several) > 1:
        raise UserError(
            f"{' and '.join(f.where for f in several)}: {len(several)} have the name {name}; right: only one of them installed"
        )
    return several[0] if several else None


def codes(names: Iterable[Name]) -> dict[str, OutsideCode]:
    """{`group.name`: code} of those names that are from outside. Raises UserError where a file cannot be read."""
    there = {f"{group}.{name}": find(group, name) for group, name in names}
    return {full: found.code for full, found in there.items() if found}


def refuse_taken(group: str, name: str) -> None:
    """Raise UserError where somebody outside has a name that is built in."""
    for found in _all(group, name):
        raise UserError(f"{found.where}: {name} is built in and cannot be taken; right: another name")


def names(group: str) -> list[str]:
    """All names from outside."""
    return sorted({name for own, name in (*_files, *packaged()) if own == group})


def _all(group: str, name: str) -> list[Found]:
    file = _files.get((group, name))
    return [*([file] if file else []), *packaged().get((group, name), ())]


# ---- packages


@cache
def packaged() -> dict[Name, list[Found]]:
    """What installed packages bring; none is imported."""
    from importlib.metadata import entry_points

    every, found = entry_points(), dict[Name, list[Found]]()
    for group in GROUPS:
        for point in every.select(group=f"blip2sweep.{group}"):
            found.setdefault((group, point.name), []).append(_of_package(point))
    return found


def _of_package(point: EntryPoint) -> Found:
    dist = point.dist
    assert dist is not None
    where = f"package {dist.name} {dist.version}, entry point {point.group}: {point.name} = {point.value}"
    return Found(where, point.load, lambda: _package_code(dist, point))


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


# ---- files

_files: dict[Name, Found] = {}
_imported: dict[Name, tuple[str, object]] = {}  # (sha256, module) of files; a process imports one of each name


def search(folders: Iterable[Path]) -> None:
    """Have the names of these folders in the place of those known before, of the first folder that has one. Nothing is read."""
    _files.clear()
    for folder in folders:
        for group in GROUPS:
            for path in sorted((folder / group).glob("[!_]*.py")):
                _files.setdefault((group, path.stem), _of_file((group, path.stem), path.absolute()))


def _of_file(name: Name, path: Path, planned: str | None = None) -> Found:
    """planned: the only sha256 that is imported; None: that of the file as it is when it is first asked for."""
    read = cache(lambda: _checked(path, planned))

    def hashed() -> OutsideCode:
        return OutsideCode(file=str(path), sha256=hashlib.sha256(read()).hexdigest())

    return Found(f"file {path}", lambda: _import_file(name, path, read()), hashed)


def _checked(path: Path, planned: str | None) -> bytes:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"file {path}: cannot be read ({error.strerror}); right: the file that the cell was planned with") from error
    if planned and hashlib.sha256(source).hexdigest() != planned:
        raise UserError(f"file {path}: changed since the cell was planned; right: the same command again, which plans it anew")
    return source


def _import_file(name: Name, path: Path, source: bytes) -> object:
    """Of the bytes, not of what is on disk by now."""
    digest = hashlib.sha256(source).hexdigest()
    known = _imported.get(name)
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
    _imported[name] = (digest, module)
    return module


# ---- what runs a pack

_required: dict[str, OutsideCode] = {}


def require(codes: Mapping[str, OutsideCode]) -> None:
    """Hold what is here against what a pack says, {`group.name`: code}, and know its files. Raises UserError, one line, for a
    file that is gone or changed, and for a package that is not here or of another version."""
    for full, code in codes.items():
        group, _, name = full.partition(".")
        if "file" in code:
            remember({full: code})
        found = find(group, name)
        if found is None:
            raise UserError(f"{said(full, code)}: not installed here; right: pip install '{code['package']}=={code['version']}'")
        if _identity(found.code) != _identity(code):
            raise UserError(
                f"{said(full, code)}: planned with that, here is {found.where}; right: the one that was planned, or the same "
                f"command again"
            )
    _required.update(codes)


def remember(codes: Mapping[str, OutsideCode]) -> None:
    """Know the files that packs name, unless one of that name is known. Nothing is read before a name is asked for."""
    for full, code in codes.items():
        group, _, name = full.partition(".")
        if "file" in code:
            _files.setdefault((group, name), _of_file((group, name), Path(code["file"]), code["sha256"]))


def _identity(code: OutsideCode) -> OutsideCode:
    """What keys say of it: not where it lies."""
    return cast("OutsideCode", {k: v for k, v in code.items() if k != "file"})


def identity(codes: Mapping[str, OutsideCode]) -> dict[str, object]:
    """What keys say of code from outside."""
    return {full: _identity(code) for full, code in codes.items()}


def in_use() -> str:
    """Names and hashes of all code from outside that this process was required to run; empty where there is none."""
    return json.dumps(identity(_required), sort_keys=True) if _required else ""


def said(full: str, code: OutsideCode) -> str:
    """`methods.mine of package toy 1.0`, `methods.mine of /site/methods/mine.py (sha256 1a2b3c4d5e6f)`."""
    if "file" in code:
        return f"{full} of {code['file']} (sha256 {code['sha256'][:12]})"
    return f"{full} of package {code['package']} {code['version']}"


def listing() -> Iterator[tuple[str, Found]]:
    """(`group.name`, who has it) of all that is here."""
    for (group, name), found in sorted(_files.items()):
        yield f"{group}.{name}", found
    for (group, name), several in sorted(packaged().items()):
        yield from ((f"{group}.{name}", found) for found in several)
