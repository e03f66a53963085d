"""The grids, as dictionaries: what conf/study says, without Hydra."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

Config = dict[str, Any]
PARTS = ("vit", "qformer", "llm")
ROLES = ("vision", "connector", "language")
WIDTHS = ("3", "4", "8", "none")
THIRDS = ("first", "middle", "last", "first+middle", "first+last", "middle+last", "all")


def grid(name: str, cells: int | None = None) -> list[Config]:
    """The recipe sections (part, blocks, layers, quant, per_part) of every cell; or of fewer or more cells of the grid."""
    if name == "seed_grid":
        return seed_grid(cells or 60)
    return {"card": card, "part_wise": part_wise, "role_wise": role_wise}[name]()[:cells]


def card() -> list[Config]:
    return [_cell(part=p, quant=_rtn(b)) for p in ("vit", "llm", "qformer") for b in ("2", "4", "8")]


def part_wise() -> list[Config]:
    """Four widths a part, all combinations: 64 cells, the one that touches nothing being the baseline."""
    return [_each(PARTS, widths) for widths in itertools.product(WIDTHS, repeat=3)]


def role_wise() -> list[Config]:
    """Three widths a role, all combinations, for models whose parts are called after their roles: 27 cells with the
    baseline."""
    return [_each(ROLES, widths) for widths in itertools.product(("3", "4", "none"), repeat=3)]


def _each(parts: Sequence[str], widths: Sequence[str]) -> Config:
    return _cell(quant=_rtn("8"), per_part={p: {"bits": b} for p, b in zip(parts, widths, strict=True)})


def seed_grid(cells: int = 60) -> list[Config]:
    """Cells of the published study's grid, evenly spread over it (which shares less than neighbours would)."""
    whole = [cell for part in PARTS for cell in _thirds_of(part)]
    return [whole[i * len(whole) // cells] for i in range(cells)]


def _thirds_of(part: str) -> list[Config]:
    """One part in thirds and their unions, the others whole or left alone."""
    pairs = [pair for pair in itertools.combinations(PARTS, 2) if part in pair]
    selections = [part, *("+".join(pair) for pair in pairs), "all"]
    widths, layers = (16, 8, 6, 5, 4, 3), ("mlp", "attention+crossattention", "all")
    return [
        _cell(part=s, layers=x, quant={"method": "minmax", "bits": b}, per_part={part: {"blocks": t}})
        for b, x, s, t in itertools.product(widths, layers, selections, THIRDS)
    ]


def _rtn(bits: str) -> Config:
    return {"method": "rtn", "bits": bits}


def _cell(**sections: Any) -> Config:
    return {"part": "all", "blocks": "all", "layers": "all", "per_part": {}, "rules": {}, **sections}
