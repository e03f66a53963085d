"""docs/of_others.md, followed word by word, with the key that a cell has here."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.models.checkpoints.quantized import AWQ, COMPRESSED, GPTQ
from tests.outside.page import follow, lines, plain, shown, write
from tests.outside.typed import workers_here

PAGE = Path(__file__).parents[2] / "docs" / "of_others.md"
KEY = "0123456789ab"  # in the page

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR


@pytest.mark.thorough
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(PAGE, tmp_path))
    key = KEY
    for command, text in shown(PAGE):
        with workers_here():
            said = "".join(follow(x.replace(KEY, key), tmp_path) for x in lines(command))
        for line in plain(text):
            assert any(line in x for x in plain(said)), (command, line, said)
        ours = pd.read_parquet("outputs/sweeps/ours/table.parquet").set_index("part")
        key = str(ours.loc["llm", "key"])
    table = pd.read_parquet("outputs/table.parquet").set_index("key")
    cell, (foreign,), (imported,) = table.loc[key], *(table[table[c].notna()].index for c in ("checkpoint", "imported"))
    assert table.loc[foreign, "predictions"] == cell["predictions"]
    assert table.loc[foreign, "checkpoint"] == "compressed-tensors (pack-quantized) 4 bits, groups of 32, asymmetric"
    for one in (foreign, imported):
        compared = [c for c in table if c.startswith(("cider", "drop_cider", "baseline_cider"))]
        assert table.loc[one, compared].to_dict() == cell[compared].to_dict()
    assert table.loc[imported, ["backend", "latency_ms_median"]].tolist() == ["vllm", 12.5]


def test_its_table_has_every_format() -> None:
    named = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert named == ["quant_method", GPTQ, AWQ, COMPRESSED]


def test_lines_are_short() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert max(len(line) for line in prose.splitlines() if not line.startswith("|")) <= 106
