"""Models and tasks as the sweeps of a folder planned them, read from their packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import TaskJob


def planned_models(output_dir: Path) -> dict[str, ModelSection]:
    """{name: model config} from every pack below `output_dir`; the newest of each name counts. Damaged packs are left
    out."""
    found: dict[str, ModelSection] = {}
    for pack in _packs(output_dir):
        named = (m for m in pack.get("models") or () if isinstance(m, Mapping) and "name" in m)
        found |= {str(m["name"]): cast(ModelSection, m) for m in named}
    return found


def planned_tasks(output_dir: Path) -> dict[str, TaskJob]:
    """{key: task of its job} of every cell in any pack below `output_dir`; the newest counts. Damaged packs are left
    out."""
    found: dict[str, TaskJob] = {}
    for pack in _packs(output_dir):
        tasks = [t for t in pack.get("tasks") or () if isinstance(t, Mapping)]
        for cell in (c for c in pack.get("cells") or () if isinstance(c, Mapping)):
            number = cell.get("task")
            if isinstance(number, int) and 0 <= number < len(tasks):
                found[str(cell.get("key"))] = cast(TaskJob, tasks[number])
    return found


def _packs(output_dir: Path) -> Iterator[Mapping[str, Any]]:
    """The JSON of every pack that can be read, oldest first."""
    files = [(p.stat().st_mtime, p) for p in (output_dir / "sweeps").glob("*/packs/*.json")]
    for _, path in sorted(files):
        with suppress(UserError):
            pack = read_json(path)
            if isinstance(pack, Mapping):
                yield pack
