"""Conditions of `blip2sweep table --where`: what they mean by kind of column, and what each mistake is told."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_mistakes import wrong_condition
from blip2sweep.reporting.table_rows import chosen_rows
from blip2sweep.reporting.table_where import KINDS, Condition, column_kind, fulfilling
from blip2sweep.results.schema import FIXED

TIMES = pd.to_datetime(["2026-11-28T23:59:59", "2026-11-29T10:30:15.5", None, "2026-11-30"], format="ISO8601", utc=True)
TABLE = pd.DataFrame({
    "key": ["0a2e3cff07bd", "0b2e3cff07bd", "033c8c4c96ab", "a6a3d4ac2682"], "part": ["vit", "llm", "vit+llm", "none"],
    "bits": [4, 3, 8, None], "cider": [3.25, 1.5, None, 3.3], "stale": [False, True, False, False], "finished": TIMES,
    "sweeps": [np.array(["night", "a, b"]), np.array(["night"]), np.array([]), np.array(["day"])],
    "stopped": ["known to ±5 %", "", None, "below 50 %"], "failure": [None] * 4, "symmetric": [True, None, False, None],
    "group_size": ["128", "mixed", None, None], "configs": [np.array([12, 13]), None, None, None],
})  # fmt: skip


def rows(*where: str) -> list[int]:
    asked = Asked(where=where)
    assert asked.mistakes() + asked.mistakes_in(TABLE) == []
    return list(chosen_rows(TABLE, asked).index)


def mistakes(*where: str) -> list[str]:
    asked = Asked(where=where)
    return [*asked.mistakes(), *asked.mistakes_in(TABLE)]


@pytest.mark.parametrize(("where", "wanted"), [
    ("bits<=4", [0, 1]), ("bits==4", [0]), ("bits=3,8", [1, 2]), ("bits=null,4", [0, 3]), ("bits!=4", [1, 2, 3]), ("bits>=4.0", [0, 2]),
    ("cider<1.5e0", []), ("cider<2", [1]), ("cider!=null", [0, 1, 3]), ("stale=TRUE", [1]), ("stale!=true", [0, 2, 3]),
    ("symmetric=false", [2]), ("symmetric=null", [1, 3]), ("symmetric=true,false", [0, 2]),
    ("sweeps=night", [0, 1]), ("sweeps=day,night", [0, 1, 3]), ("sweeps='a, b'", [0]), ("sweeps=null", [2]), ("sweeps!=night", [2, 3]),
    ("configs=12", [0]), ("configs=null", [1, 2, 3]), ("stopped=null", [1, 2]), ("stopped!=null", [0, 3]), ("stopped=known to ±5 %", [0]),
    ("part='vit'", [0]), ('part="vit","llm"', [0, 1]), ("part = vit+llm", [2]), ("group_size=128", [0]), ("group_size=mixed,128", [0, 1]),
])  # fmt: skip
def test_rows_of_each_kind_of_column(where: str, wanted: list[int]) -> None:
    if wanted:
        assert rows(where) == wanted
        return
    with pytest.raises(UserError, match="no row has it"):
        rows(where)


@pytest.mark.parametrize(("where", "wanted"), [
    ("finished=2026-11-29", [1]), ("finished!=2026-11-29", [0, 2, 3]), ("finished>2026-11-28", [1, 3]), ("finished>=2026-11-28", [0, 1, 3]),
    ("finished<=2026-11-29", [0, 1]), ("finished<2026-11-29", [0]), ("finished=2026-11-29 10:30", [1]), ("finished=2026-11-29T10:30:15Z", [1]),
    ("finished<=2026-11-29T12:30:15.5+02:00", [0, 1]), ("finished=null,2026-11-30", [2, 3]),
])  # fmt: skip
def test_a_date_is_all_of_its_day_and_a_minute_all_of_it(where: str, wanted: list[int]) -> None:
    assert rows(where) == wanted


@pytest.mark.parametrize(("where", "told"), [
    # what stands there is not of the column's kind
    ("bits<=four", "bits is a number, which 'four' is not; right: such as 'bits<=4'"),
    ("bits=four,3,five", "bits is a number, which 'four' and 'five' are not; right: bits=3"),
    ("bits<four,3", "bits is a number, < takes one value, and which 'four' is not; right: 'bits<3'"),
    ("bits=none", "bits is a number, which 'none' is not; right: bits=null, or such as bits=4"),
    ("cider>nan", "cider is a number, which 'nan' is not; right: cider=null, or such as 'cider>3.25'"),
    ("cider>99%", "cider is a number, which '99%' is not; right: such as 'cider>3.25'"),
    ("stale=yes", "stale is a boolean, which 'yes' is not; right: such as stale=false"),
    ("stale<maybe", "stale is a boolean, which has no <, and which 'maybe' is not; right: such as stale=false"),
    ("finished>yesterday", "finished is a time, which 'yesterday' is not; right: such as 'finished>2026-11-28'"),
    ("finished=29.11.2026", "finished is a time, which '29.11.2026' is not; right: such as finished=2026-11-28"),
    ("finished=2026-02-30", "finished is a time, which '2026-02-30' is not"),
    ("part<'vit'", "part is text, which has no <; right: part=vit"),
    ("part='vit", "part is text, of which a value is empty or has one quote; right: part=vit"),
    ("sweeps>=night", "sweeps is a list, which has no >=; right: sweeps=night"),
    ("bits<null", "null is unknown, which has no <; right: bits=null or 'bits!=null'"),
    # columns that are null in every row are of the kind that the dictionary of columns has
    ("latency_ms_median<=four", "latency_ms_median is a number, which 'four' is not; right: such as 'latency_ms_median<=4'"),
    ("reproducible=maybe", "reproducible is a boolean, which 'maybe' is not; right: such as reproducible=true"),
    # what is no comparison
    ("bits=<4", "no comparison; right: 'bits<=4'"), ("bits=>4", "no comparison; right: 'bits>=4'"), ("bits<>4", "no comparison; right: 'bits!=4'"),
    ("bits=", "the value is missing; right: bits=VALUE, or bits=null"), ("=4", "the column is missing; right: COLUMN=4"),
    ("4>=bits", "the column comes first; right: --where 'bits<=4'"),
    ("3<bits<=4", "the column comes first; right: --where 'bits>3' --where 'bits<=4'"),
    ("part=vit and bits=4", "2 conditions; right: --where part=vit --where bits=4"),
    ("part=vit,bits<=4", "2 conditions; right: --where part=vit --where 'bits<=4'"),
])  # fmt: skip
def test_a_mistake_is_told_with_what_would_be_right(where: str, told: str) -> None:
    (line,) = mistakes(where)
    assert line.startswith(f"--where {where}: {told}")


@pytest.mark.parametrize(("where", "told"), [
    ("BITS=4", "--where BITS: no such column; right: bits, or another"), ("prt=vit", "--where prt: no such column; right: part, or another"),
    ("bits per weight<3", "--where bits per weight: no such column; right: bits_per_weight, or another"),
    ("zzzzzz=1", "--where zzzzzz: no such column; right: one of docs/columns.md"),
    ("", "--where '': empty; right: COLUMN=VALUE, such as bits=4"), ("bits", "--where bits: no condition; right: COLUMN=VALUE"),
])  # fmt: skip
def test_an_unknown_column_has_the_nearest(where: str, told: str) -> None:
    (line,) = mistakes(where)
    assert line.startswith(told)


def test_all_mistakes_of_all_conditions_are_told_at_once() -> None:
    assert len(mistakes("", "bits<=four", "prt=vit", "stale<maybe", "bits<=4")) == 4


@pytest.mark.parametrize(("where", "told"), [
    ("bits>8", "no row has it; right: from 3 to 8"), ("cider=99", "no row has it; right: one of 1.5, 3.25, 3.3"),
    ("failure=oom", "no row has it; failure is null in every row"), ("key=null", "no row has it; key is null in none"),
    ("finished>2026-11-30", "no row has it; right: from 2026-11-28 to 2026-11-30"), ("part=vti", "no row has it; right: one of llm, none, vit"),
    ("group_size!=128,mixed,null", "no row has it; right: one of 128, mixed"),
])  # fmt: skip
def test_where_no_row_has_it_what_there_is_is_named(where: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        rows(where)
    assert str(caught.value).startswith(f"--where {where}: {told}")


def test_of_many_values_few_are_named_and_the_one_that_was_begun() -> None:
    many = pd.DataFrame({"key": [f"{i:012x}" for i in range(3, 900, 7)]})
    with pytest.raises(UserError) as caught:
        chosen_rows(many, Asked(where=["key=00000000001"]))
    assert "right: 000000000011, or another of 000000000003, " in str(caught.value)
    assert len(str(caught.value)) < 200


def test_every_column_takes_every_sign_or_says_why_not() -> None:
    """Of a table where it has no value, and of one where it has. Nothing else is raised."""
    values = {"text": "a", "number": 4, "boolean": True, "time": pd.Timestamp("2026-11-29", tz="UTC"), "list": ["a"]}
    typed = {"text": "a", "number": "4", "boolean": "true", "time": "2026-11-29", "list": "a"}
    holds = {"=": [True, False], "!=": [False, True], "<": [False, False], ">=": [True, False]}
    for name, column in FIXED.items():
        kind = KINDS[column.dtype]
        empty, filled = pd.DataFrame({name: [None, None]}), pd.DataFrame({name: pd.Series([values[kind], None])})
        for table, sign in product((empty, filled), holds):
            assert column_kind(table, name) == kind
            right, wrong = (Condition(name, sign, value) for value in (typed[kind], "four"))
            unordered = sign in ("<", ">=") and kind not in ("number", "time")
            assert (wrong_condition(right, table, FIXED) is not None) == unordered
            assert (wrong_condition(wrong, table, FIXED) is None) == (kind in ("text", "list") and not unordered)
            if not unordered and table is filled:
                assert fulfilling(table.assign(part="vit"), right).tolist() == holds[sign] or name == "part"
