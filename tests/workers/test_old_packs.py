"""A pack that the version before has queued runs with the worker of this one.

pack_0_1.json is what 0.1 wrote for `task=shapes_vqa task.limit=4 part=qformer quant.bits=4`, with FOLDER for the tiny model's
folder and OUTPUT for the output folder.
"""

from __future__ import annotations

import json
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from blip2sweep.backends.backend import choice_of
from blip2sweep.errors import UserError
from blip2sweep.planning.packs import read_pack
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_predictions
from blip2sweep.workers.worker import main, run_pack
from tests.composing import plan

WRITTEN = Path(__file__).with_name("pack_0_1.json")


def old_pack(folder: Path, **settings: str) -> Path:
    """The pack, in a folder of this machine; settings: further ones of that version."""
    text = WRITTEN.read_text().replace("FOLDER", str(files("blip2sweep.assets") / "tiny"))
    pack = json.loads(text.replace("OUTPUT", str(folder / "outputs")))
    path = folder / "0123abcd-0.json"
    path.write_text(json.dumps({**pack, "settings": {**pack["settings"], **settings}}))
    return path


def test_its_cells_run_and_have_the_keys_of_today(tmp_path: Path) -> None:
    pack = read_pack(old_pack(tmp_path))
    with closing(Journal(Path(pack["output_dir"]))) as journal:
        assert run_pack(pack, journal) == 0
    results = {r["key"]: r for r in Ledger(tmp_path / "outputs").refresh().results()}
    assert set(results) == set(plan("task=shapes_vqa", "task.limit=4", "part=qformer", "quant.bits=4").cells)
    for key, result in results.items():
        assert result["predictions"] is not None
        assert result["cost"]["device"] == "cpu"
        said = read_predictions(tmp_path / "outputs", f"{key}-{result['predictions'][:12]}")
        assert said.hash == result["predictions"]


@pytest.mark.parametrize("runner", ["blip2sweep.sweep.dummy:Dummy", "blip2sweep.backends.dummy:Dummy"])
def test_the_runner_it_names_is_a_back_end_of_today(tmp_path: Path, runner: str) -> None:
    assert main([str(old_pack(tmp_path, runner=runner))]) == 0
    results = Ledger(tmp_path / "outputs").refresh().results()
    assert [set(r["cost"]) for r in results] == [{"seconds", "batch_size"}] * 2


def test_the_torch_back_end_has_other_names_too() -> None:
    for runner in ("blip2sweep.sweep.runner:Runner", "blip2sweep.backends.torch.backend:Runner"):
        assert choice_of({"runner": runner}) == {"name": "torch"}
    with pytest.raises(UserError, match=r"settings\.runner=their\.module:Runner: no back end of this version; right: "):
        choice_of({"runner": "their.module:Runner"})
