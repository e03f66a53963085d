"""A user's own model: a random T5 checkpoint in the Hugging Face layout, described by a YAML file in --config-dir."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.checkpoints import t5_config, write_t5
from tests.command_line import blip2sweep
from tests.miniatures import instructblip_config, write_instructblip

pytestmark = pytest.mark.thorough


def test_a_t5_checkpoint_runs_end_to_end(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "weights")
    (tmp_path / "site" / "model").mkdir(parents=True)
    config = {**t5_config(), "path": str(folder)}
    (tmp_path / "site" / "model" / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["--config-dir", "site", "-m", "model=mine", "task=shapes_caption,shapes_vqa", "task.limit=6"]
    words += ["part=llm.encoder,llm.decoder,all", "quant.bits=2", "generation.max_new_tokens=4"]
    ran = blip2sweep(*words, "sweep_name=t5", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "t5" / "table.parquet")
    assert len(rows) == 8
    touched = rows[rows["task"] == "shapes_caption"].set_index("recipe")["layers_touched"]
    assert touched["none"] == 0
    assert touched["llm:0-1:all=rtn2/channel"] == 2 * 7
    assert touched["llm:2-3:all=rtn2/channel"] == 2 * 11
    assert (rows["layers_changed"] == rows["layers_touched"]).all()
    assert rows["nll"].notna().all()


def test_a_model_whose_connector_reads_the_question_runs_end_to_end(tmp_path: Path) -> None:
    folder = write_instructblip(tmp_path / "weights", "llama")
    (tmp_path / "site" / "model").mkdir(parents=True)
    config = {**instructblip_config("llama"), "name": "mine", "path": str(folder)}
    (tmp_path / "site" / "model" / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = [
        "--config-dir",
        "site",
        "-m",
        "model=mine",
        "task=shapes_vqa",
        "task.limit=4",
        "generation.max_new_tokens=3",
    ]
    words += ["part=connector,all", "quant=rtn,gptq", "quant.bits=3", "calibration.n_samples=4"]
    ran = blip2sweep(*words, "sweep_name=asked", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "asked" / "table.parquet")
    touched = rows.groupby("part")["layers_touched"].unique().map(list).to_dict()
    assert touched == {"none": [0], "qformer": [38], "all": [12 + 38 + 21]}  # not the text's branch of the last block
    assert (rows["layers_changed"] == rows["layers_touched"]).all()
    assert rows["generation"].str.contains("Short Answer:").all()
    assert rows["nll"].notna().all()
