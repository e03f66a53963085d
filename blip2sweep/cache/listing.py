"""What transformers finds in its own folder: which of its modules has which names.

It reads 1600 files of models to find out, twice whenever it is imported, though what it finds is the same until
another release is installed. So it is kept in a user's store. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from blip2sweep.cache import disk
from blip2sweep.canonical import digest

STORE = "listings"  # of the user's stores
MODULE, FUNCTION = "transformers.utils.import_utils", "create_import_structure_from_path"
MODELS = "models"  # the one folder that has many files
# {name of a folder: its structure; frozenset of what must be installed: {module: names}}, as transformers has it
Structure = dict[Any, Any]


@contextlib.contextmanager
def listed_before() -> Iterator[None]:
    """Where transformers is imported inside for the first time, it asks the store for what it found before."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    """Finds the module that has the function, and puts another one in its place when the module has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path) if name == MODULE else None
        if found is None or found.loader is None:
            return None
        plain = found.loader.exec_module

        def execute(module: ModuleType) -> None:
            plain(module)
            with contextlib.suppress(AttributeError):  # of a release that has another one
                release = sys.modules[name.partition(".")[0]].__version__  # not of another one that is installed, too
                setattr(module, FUNCTION, remembered(getattr(module, FUNCTION), release))

        found.loader.exec_module = execute  # type: ignore[method-assign]
        return found


def remembered(listed: Callable[[str], Structure], release: str) -> Callable[[str], Structure]:
    """The function, which reads the folder of models once for a release. Files of one under development may change."""
    made: dict[str, str] = {}  # in this process, which asks twice

    def ask(path: Any) -> Structure:
        folder = Path(path).parent if Path(path).name == "__init__.py" else Path(path)  # either names the folder
        if folder.name != MODELS or "dev" in release:
            return listed(path)
        key = digest([release, str(folder), *_changed(folder), Path(__file__).read_text()])
        if key not in made:
            store = disk.of_user(STORE)
            known = store.get(key) if store else None
            made[key] = known.decode() if known else json.dumps(_plain(listed(path)))
            if store and not known:
                store.put(key, made[key].encode())
        return _structure(json.loads(made[key]))

    return ask


def _changed(folder: Path) -> list[tuple[str, int]]:
    """When files were last added to this folder and to those in it, or removed, in ns: which is when pip or an editor puts a
    new file in an old one's place."""
    with os.scandir(folder) as entries:
        return [
            ("", folder.stat().st_mtime_ns),
            *sorted((e.name, e.stat().st_mtime_ns) for e in entries if _is_model(e)),
        ]


def _is_model(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and entry.name != "__pycache__"


def _plain(found: Structure) -> list[Any]:
    """The structure in JSON's types, in the same order: [name, folder] and [what must be installed, {module: names}]."""
    return [
        [sorted(key), {module: sorted(names) for module, names in value.items()}]
        if isinstance(key, frozenset)
        else [key, _plain(value)]
        for key, value in found.items()
    ]


def _structure(plain: list[Any]) -> Structure:
    return {
        key if isinstance(key, str) else frozenset(key): _structure(value)
        if isinstance(key, str)
        else {module: set(names) for module, names in value.items()}
        for key, value in plain
    }
