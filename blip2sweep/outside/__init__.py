"""Code from outside: an architecture, task, compression, method or back end that is no part of this package.

It comes in two ways: by an entry point `blip2sweep.<group>` of an installed package, or as a file `<group>/<name>.py` in the
folder of `--config-dir`. Either way a name stands for a module. Entry points are read once, when a name is asked for that is not
built in; a module is imported when its own name is asked for. Keys hold the package and its version, or the sha256 of the file;
packs hold the file's path too, and what runs them imports the very bytes that were hashed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import cast

from blip2sweep.errors import UserError, nearest
from blip2sweep.outside import files
from blip2sweep.outside.files import remember, search
from blip2sweep.outside.outside_module import PAGE, Name, OutsideModule
from blip2sweep.outside.packages import packaged
from blip2sweep.wire.pack import OutsideCode

__all__ = [
    "PAGE", "OutsideModule", "codes", "describe", "find", "forget", "identity", "in_use", "listing", "members", "module_of", "names", "refuse_taken", "remember",
    "require", "search", "take",
]  # fmt: skip


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


def find(group: str, name: str) -> OutsideModule | None:
    """Who has a name that is not built in; None where nobody has. Raises UserError where several have it."""
    several = sorted(_all(group, name), key=lambda found: found.where)
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
    return sorted({name for own, name in (*files.known, *packaged()) if own == group})


def _all(group: str, name: str) -> list[OutsideModule]:
    file = files.known.get((group, name))
    return [*([file] if file else []), *packaged().get((group, name), ())]


def forget() -> None:
    """Know nothing from outside any more, as a new process: files are read again, and packages looked for.

    What this package has remembered of the functions of such code is forgotten too.
    """
    before = packaged()
    packaged.cache_clear()
    if files.known or files.imported or required or before or packaged():
        ours = [module for name, module in sys.modules.items() if name.startswith("blip2sweep.")]
        for value in (value for module in ours for value in list(vars(module).values())):
            if callable(clear := getattr(value, "cache_clear", None)):
                clear()
    packaged.cache_clear()
    for known in (files.known, files.imported, required):
        known.clear()


# ---- what runs a pack

required: dict[str, OutsideCode] = {}


def take(codes: Mapping[str, OutsideCode]) -> None:
    """Of who runs a pack: know its files, then `require`."""
    remember(codes)
    require(codes)


def require(codes: Mapping[str, OutsideCode]) -> None:
    """Hold what is here against what a pack says, {`group.name`: code}. Raises UserError, one line, for a file that is gone or
    changed, and for a package that is not here or of another version."""
    for full, code in codes.items():
        group, _, name = full.partition(".")
        found = find(group, name)
        if found is None:
            right = (
                f"pip install '{code['package']}=={code['version']}'"
                if "package" in code
                else "--config-dir of its folder"
            )
            raise UserError(f"{describe(full, code)}: not known here; right: {right}")
        if _identity(found.code) != _identity(code):
            raise UserError(
                f"{describe(full, code)}: planned with that, here is {found.where}; right: the one that was planned, or the same "
                f"command again"
            )
    required.update(codes)


def _identity(code: OutsideCode) -> OutsideCode:
    """What keys say of it: not where it lies."""
    return cast("OutsideCode", {k: v for k, v in code.items() if k != "file"})


def identity(codes: Mapping[str, OutsideCode]) -> dict[str, object]:
    """What keys say of code from outside."""
    return {full: _identity(code) for full, code in codes.items()}


def in_use() -> str:
    """Names and hashes of all code from outside that this process was required to run; empty where there is none."""
    return json.dumps(identity(required), sort_keys=True) if required else ""


def describe(full: str, code: OutsideCode) -> str:
    """`methods.mine of package toy 1.0`, `methods.mine of /site/methods/mine.py (sha256 1a2b3c4d5e6f)`."""
    if "file" in code:
        return f"{full} of {code['file']} (sha256 {code['sha256'][:12]})"
    return f"{full} of package {code['package']} {code['version']}"


def listing() -> Iterator[tuple[str, OutsideModule]]:
    """(`group.name`, who has it) of all that is here."""
    for (group, name), found in sorted(files.known.items()):
        yield f"{group}.{name}", found
    for (group, name), several in sorted(packaged().items()):
        yield from ((f"{group}.{name}", found) for found in several)
