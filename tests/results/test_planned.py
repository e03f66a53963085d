"""What packs say of models, for rows that were written before there were roles."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from blip2sweep.models.shipped import model_config
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.planned import planned_models
from blip2sweep.results.table import build_table
from tests.synthetic import build, whole


def test_rows_of_an_older_journal_get_the_columns_of_roles(tmp_path: Path) -> None:
    """Of a shipped model, of one that a pack knows, and of one that nobody knows."""
    build(tmp_path, [whole(["vit"], 4), whole(["llm"], 3)])
    path = next((tmp_path / "journals").glob("imported-*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, model in zip(lines, ("tiny", "mine", "lost"), strict=True):
        line["columns"] = {k: v for k, v in line["columns"].items() if k[5:] not in ("vision", "connector", "language")}
        line["columns"]["model"] = model
        del line["n"], line["crc"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mine = {**copy.deepcopy(model_config("tiny")), "name": "mine"}
    (tmp_path / "sweeps/a/packs").mkdir(parents=True)
    (tmp_path / "sweeps/a/packs/x-0.json").write_text(json.dumps({"models": [mine], "cells": []}))
    (tmp_path / "sweeps/a/packs/x-1.json").write_text("{")
    assert planned_models(tmp_path) == {"mine": mine}
    table = build_table(Ledger(tmp_path).refresh()).set_index("model")
    assert table.loc["mine", "bits_vision"] == table.loc["mine", "bits_vit"] == 4
    assert table.loc["lost", "bits_llm"] == 3
    assert table[["bits_vision", "bits_connector", "bits_language"]].loc[["tiny", "lost"]].isna().all(axis=None)
    assert list(table).index("bits_vision") == list(table).index("bits_llm") + 1
