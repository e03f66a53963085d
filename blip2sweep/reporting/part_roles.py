"""Tables of models whose parts have different names: parts by role, cells of one kind below each other."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.models import joined, models_of, role_rank
from blip2sweep.models.part import ROLES

ALL, NONE = "all", "none"
SCHEME = ("blocks", "layers", "method", "strategy", "group_size", "symmetric", "input_bits")


def names_differ(table: pd.DataFrame) -> bool:
    """Whether the table is of several models that name the parts of one role differently."""
    if len(models_of(table)) < 2 or not {f"bits_{r}" for r in ROLES}.issubset(table.columns):
        return False
    named = table.assign(role=[_roles(r) for r in table.to_dict("records")])
    named = named[~named["part"].isin([ALL, NONE]) & (named["role"] != "")]
    own = named.groupby(["role", "model"])["part"].agg(lambda parts: "; ".join(sorted(set(parts)))).reset_index()
    return bool((own.groupby("role")["part"].nunique() > 1).any())


def part_texts(table: pd.DataFrame) -> list[str]:
    """The part of each row as `vision (name of the part)`; as it is where part and role have one name."""
    return [_text(r) for r in table.to_dict("records")]


def _text(row: Row) -> str:
    part, role = str(row["part"]), _roles(row)
    return part if part in (ALL, NONE) or role in ("", part) else f"{role} ({part})"


def _roles(row: Row) -> str:
    """The roles that a row touches, joined by `+`."""
    return joined(r for r in ROLES if number(row, f"bits_{r}") == number(row, f"bits_{r}")).replace(" ", "")


def roles_of(table: pd.DataFrame) -> pd.Series:
    """The role of what each row compresses, `vision` or `vision+language`; empty for the baseline and for all parts."""
    roles = ["" if row["part"] in (ALL, NONE) else _roles(row) for row in table.to_dict("records")]
    return pd.Series(roles, index=table.index, dtype=object)


def by_role(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the baselines first, then by role; cells that differ in the model alone stand below each other."""
    if not names_differ(table):
        return table
    models, seen = models_of(table), dict[tuple[object, ...], int]()
    keys = []
    for i, row in enumerate(table.to_dict("records")):
        place = (_rank(row), seen.setdefault(_kind(row), i), models.index(str(row["model"])))
        keys.append((place, i))
    return table.iloc[[i for _, i in sorted(keys)]]


def _rank(row: Row) -> tuple[int, tuple[int, int, list[int], str]]:
    return int(row["part"] != NONE), role_rank(role_of(row))


def role_of(row: Row) -> str:
    """`vision`, `vision + language` or `all`; the part where the row has no roles."""
    part = str(row["part"])
    return part if part == ALL else _roles(row).replace("+", " + ") or part


def _kind(row: Row) -> tuple[Hashable, ...]:
    """What a cell is, whichever model it is of."""
    widths = (number(row, f"bits_{r}") for r in ROLES)
    scheme = (str(row.get(c)) for c in SCHEME)
    return (str(row.get("task")), str(row.get("dtype")), *(None if w != w else w for w in widths), *scheme)
