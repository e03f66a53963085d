"""`blip2sweep quantize`: the checkpoint reloads to the very weights of the cell."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from transformers import ProcessorMixin

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.quantize import write_checkpoint
from blip2sweep.errors import UserError
from blip2sweep.models.load import load
from tests.checkpoints import TINY, tiny_config
from tests.command_line import blip2sweep, refused
from tests.composing import jobs, plan, recipes

TOYS = Path(__file__).resolve().parents[1] / "toy"
pytestmark = pytest.mark.thorough


def test_a_checkpoint_holds_the_cells_weights_and_its_recipe(tmp_path: Path) -> None:
    words = ["part=llm", "quant=gptq", "quant.bits=3", "calibration.n_samples=8"]
    folder = tmp_path / "gptq3"
    ran = blip2sweep("quantize", *words, "--to", str(folder), cwd=tmp_path)
    assert ran.code == 0, ran
    assert "llm:all:all=gptq3/channel" in ran.out
    written, plain = (
        load(tiny_config(), f).model for f in (folder, Path(load.__code__.co_filename).parents[1] / "assets/tiny")
    )
    layer = "language_model.model.decoder.layers.3.fc1"
    assert all(len(row.unique()) <= 8 for row in written.get_submodule(layer).weight)
    vit = "vision_model.encoder.layers.0.mlp.fc1"
    assert torch.equal(written.get_submodule(vit).weight, plain.get_submodule(vit).weight)
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert told["calibration"]["calibration_samples"] == 8
    assert recipes(f"recipe_file={folder / 'recipe.yaml'}") == ["llm:all:all=gptq3/channel"]
    cell = plan(*words)
    assert told["key"] == cell.keys[0]
    assert plan(f"recipe_file={folder / 'recipe.yaml'}", "calibration.n_samples=8").keys == cell.keys
    refused(blip2sweep("quantize", *words, "--to", str(folder), cwd=tmp_path), "holds something already")


def test_a_key_and_a_recipe_file_make_the_same_checkpoint_with_the_modes_of_the_umask(tmp_path: Path) -> None:
    """Also: sizes beside each other, the last line makes the packed one, and no library talks."""
    ran = blip2sweep("part=llm", "quant.bits=4", "task.limit=2", cwd=tmp_path)
    assert ran.code == 0, ran
    table = pd.read_parquet(tmp_path / "outputs/table.parquet").set_index("part")
    row, base = table.loc["llm"], table.loc["none"]
    before = os.umask(0o027)
    try:
        ran = blip2sweep("quantize", row["key"][:7], "--to", "a", cwd=tmp_path)
        again = blip2sweep("quantize", "a/recipe.yaml", "--to", "b", cwd=tmp_path)
    finally:
        os.umask(before)
    assert (ran.code, again.code, ran.err, again.err) == (0, 0, "", "")
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a").iterdir()} == {0o640}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750
    weights = "model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()
    told, size = ran.out.splitlines(), (tmp_path / "a" / weights).stat().st_size
    rest = sum(p.stat().st_size for p in (tmp_path / "a").iterdir()) - size
    plain = (TINY / weights).stat().st_size
    assert told[0] == "wrote a: llm:all:all=rtn4/channel"
    assert told[1] == f"on disk: {size:,} bytes of weights, whose numbers are not packed, and {rest:,} of other files"
    assert told[2] == f"packed: {row['model_bytes']:,.0f} bytes, as model_bytes of its row"
    assert told[3].startswith(f"original: {plain:,} bytes on disk, {base['model_bytes']:,.0f} as it is loaded")
    assert told[-1] == f"its packed bits: blip2sweep export {row['key']} --to compressed-tensors a-compressed-tensors"
    ran = blip2sweep(*shlex.split(told[-1].partition("blip2sweep ")[2]), cwd=tmp_path)
    assert ran.code == 0, ran
    assert ran.out.splitlines()[2] == told[3]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    refused(blip2sweep("quantize", "part=none", "--to", "x", cwd=tmp_path), "leaves every layer alone")
    refused(blip2sweep("quantize", "part=vti", "--to", "x", cwd=tmp_path), "part=vti")
    assert not (tmp_path / "x").exists()


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: ProcessorMixin, folder: Path) -> None:
        assert any(folder.glob("*.safetensors"))
        raise OSError("disk full")

    monkeypatch.setattr(ProcessorMixin, "save_pretrained", fails)
    (job,) = [j for j in jobs("part=vit", "quant=rtn", "quant.bits=3") if j.config["part"] == "vit"]
    with pytest.raises(UserError, match=r"to: cannot be written \(disk full\); right: a folder with space"):
        write_checkpoint({**job.config, "output_dir": str(tmp_path)}, tmp_path / "to")
    assert not [p for p in tmp_path.iterdir() if "to" in p.name]


def test_a_checkpoint_evaluates_to_the_cells_predictions(tmp_path: Path) -> None:
    words = ["part=llm", "quant=gptq", "quant.bits=3", "calibration.n_samples=8"]
    ran = blip2sweep("quantize", *words, "--to", str(tmp_path / "gptq3"), cwd=tmp_path)
    assert ran.code == 0, ran
    (cell,) = [c.job() for c in plan(*words, "task.limit=20").cells.values() if not c.recipe.empty]
    (whole,) = [c.job() for c in plan(f"model.path={tmp_path / 'gptq3'}", "part=none", "task.limit=20").cells.values()]
    (plain,) = [c.job() for c in plan("part=none", "task.limit=20").cells.values()]
    expected, found, other = (TorchBackend({"device": "cpu"})(job).predictions for job in (cell, whole, plain))
    assert found == expected
    assert found.text != other.text


def test_a_model_without_some_blocks_is_written_as_a_shorter_one(tmp_path: Path) -> None:
    words = ["drop_blocks=qformer:4-5+llm:0+3", "part=llm", "quant.bits=4"]
    ran = blip2sweep("quantize", *words, "--to", str(tmp_path / "short"), cwd=tmp_path)
    assert ran.code == 0, ran
    told = json.loads((tmp_path / "short" / "config.json").read_text())
    assert [told[s]["num_hidden_layers"] for s in ("vision_config", "qformer_config", "text_config")] == [6, 4, 4]
    (cell,) = [c.job() for c in plan(*words, "task.limit=10").cells.values() if not c.recipe.empty]
    (whole,) = [c.job() for c in plan(f"model.path={tmp_path / 'short'}", "part=none", "task.limit=10").cells.values()]
    expected, found = (TorchBackend({"device": "cpu"})(job).predictions for job in (cell, whole))
    assert found == expected
    assert plan(f"recipe_file={tmp_path / 'short' / 'recipe.yaml'}").keys == plan(*words).keys


def test_a_set_of_blocks_that_a_checkpoint_cannot_hold_is_refused(tmp_path: Path) -> None:
    (job,) = jobs("drop_blocks=qformer:1", "part=none")
    said = r"cannot hold the model without these blocks: .* would be drawn at random .*; right: other blocks"
    with pytest.raises(UserError, match=said, check=lambda e: "\n" not in str(e)):
        write_checkpoint({**job.config, "output_dir": str(tmp_path)}, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_recovered_checkpoint_evaluates_to_the_cells_predictions(tmp_path: Path) -> None:
    words = ["part=none", "drop_blocks=qformer:5", "recover=lora", "recover.steps=2", "recover.batch_size=4", "recover.n_samples=8",
             "recover.holdout=0"]  # fmt: skip
    ran = blip2sweep("quantize", *words, "--to", str(tmp_path / "recovered"), cwd=tmp_path)
    assert ran.code == 0, ran
    (cell,) = [c.job() for c in plan(*words, "task.limit=6").cells.values() if "drop_blocks" in str(c.job()["recipe"])]
    (whole,) = [
        c.job() for c in plan(f"model.path={tmp_path / 'recovered'}", "part=none", "task.limit=6").cells.values()
    ]
    first, second = (TorchBackend({"device": "cpu"})(job) for job in (cell, whole))  # type: ignore[arg-type]
    assert first.predictions.text == second.predictions.text
    assert first.predictions.nll_sum == pytest.approx(second.predictions.nll_sum, rel=1e-5)


def test_adapters_beside_layers_are_no_checkpoint(tmp_path: Path) -> None:
    words = ["part=qformer", "quant.bits=4", "recover=lora", "recover.n_samples=8"]
    said = refused(blip2sweep("quantize", *words, "--to", "x", cwd=tmp_path), "right: recover.merge=true")
    assert not (tmp_path / "x").exists(), said


def test_the_key_of_ones_own_method_takes_its_code_along(tmp_path: Path) -> None:
    """The method lies in a folder beside the results. The key alone is typed, and with the folder that is not there any more
    the reason is one line."""
    (tmp_path / "own" / "methods").mkdir(parents=True)
    (tmp_path / "own" / "quant").mkdir()
    (tmp_path / "own" / "methods" / "toy_shift.py").write_text((TOYS / "method.py").read_text())
    (tmp_path / "own" / "quant" / "toy_shift.yaml").write_text("method: toy_shift\nbits: 3\n")
    ran = blip2sweep("--config-dir", "own", "part=llm", "quant=toy_shift", "task.limit=2", cwd=tmp_path)
    assert ran.code == 0, ran
    table = pd.read_parquet(tmp_path / "outputs/table.parquet").set_index("part")
    key = str(table.loc["llm", "key"])
    ran = blip2sweep("quantize", key, "--to", "a", cwd=tmp_path)
    assert ran.code == 0, ran
    layer = load(tiny_config(), tmp_path / "a").model.get_submodule("language_model.model.decoder.layers.3.fc1").weight
    scales = torch.log2(layer.abs().where(layer != 0, torch.inf).amin(1))
    assert torch.equal(scales, scales.round())  # each row's least step is a power of two, times a whole number
    assert all(len(row.unique()) <= 8 for row in layer)
    (tmp_path / "own" / "methods" / "toy_shift.py").unlink()
    refused(blip2sweep("quantize", key, "--to", "b", cwd=tmp_path), "toy_shift")
    assert not (tmp_path / "b").exists()
