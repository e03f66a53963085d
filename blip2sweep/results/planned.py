"""Model configs as the sweeps of a folder planned them, read from their packs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.wire.model_section import ModelSection


def planned_models(output_dir: Path) -> dict[str, ModelSection]:
    """{name: model config} from every pack below `output_dir`; the newest of each name counts. Damaged packs are left
    out."""
    found: dict[str, ModelSection] = {}
    packs = [(p.stat().st_mtime, p) for p in (output_dir / "sweeps").glob("*/packs/*.json")]
    for _, path in sorted(packs):
        try:
            pack = read_json(path)
        except UserError:
            continue
        models = pack.get("models") if isinstance(pack, Mapping) else None
        named = (m for m in models or () if isinstance(m, Mapping) and "name" in m)
        found |= {str(m["name"]): cast(ModelSection, m) for m in named}
    return found
