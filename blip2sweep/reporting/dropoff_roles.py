"""The panels of a drop-off picture, and those of several models: one for each role, a curve a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from blip2sweep.analysis.models import models_of, role_rank
from blip2sweep.reporting.part_roles import role_of

MOST_ROLES = 6


@dataclass(frozen=True)
class Panel:
    """cells: of one metric; their `line` names the curve."""

    title: str
    cells: pd.DataFrame


@dataclass(frozen=True)
class PanelRow:
    """Panels beside each other; None leaves a place free.

    there: how many there are with those left out. curves: the names of all, in one order, where panels share them.
    """

    panels: list[Panel | None]
    there: int
    curves: list[str] = field(default_factory=list)


def role_panels(cells: pd.DataFrame) -> list[PanelRow]:
    """A row for each task and method, a panel a role; none where no two models have cells of one role.

    cells: as `dropoff` draws them, with `line`: the part, and behind it what varies.
    """
    if len(models_of(cells)) < 2:
        return []
    rows = cells.assign(role=[role_of(r) for r in cells.to_dict("records")])
    if rows.groupby(["task", "role"])["model"].nunique().max() < 2:
        return []
    rows["line"] = list(_lines(rows))
    roles = sorted(rows["role"].unique(), key=role_rank)
    curves = list(
        dict.fromkeys(rows.sort_values("model", key=lambda m: m.map(models_of(cells).index), kind="stable")["line"])
    )
    groups = rows.groupby(["task", "method"], sort=False, dropna=False)
    return [_row(str(task), method, own, roles, curves) for (task, method), own in groups]


def _row(task: str, method: object, own: pd.DataFrame, roles: list[str], curves: list[str]) -> PanelRow:
    name = "several methods" if pd.isna(method) else str(method)  # type: ignore[call-overload]
    by_role = {str(role): cells for role, cells in own.groupby("role")}
    titles = {role: f"{role}, {task}, {name}" for role in roles}
    panels = [Panel(titles[r], by_role[r]) if r in by_role else None for r in roles[:MOST_ROLES]]
    return PanelRow(panels, len(roles), curves)


def _lines(rows: pd.DataFrame) -> Iterator[str]:
    """The model, with its part where it has several of the role, and what varies."""
    several = rows.groupby(["model", "role"])["part"].transform("nunique") > 1
    for model, part, line, named in zip(rows["model"], rows["part"], rows["line"], several, strict=True):
        varied = str(line).removeprefix(str(part)).strip()
        yield label(" ".join(w for w in (str(model), str(part) if named else "", varied) if w))


def label(text: str) -> str:
    """A text as matplotlib shows it as it is: no formula, and named in the legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")
