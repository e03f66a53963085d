"""`blip2sweep model`: what it prints and writes, and that a sweep of what it wrote runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from blip2sweep.commands import model
from blip2sweep.commands.model import add, known
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.discovery.child import answer
from blip2sweep.models.linear_share import linear_share
from blip2sweep.planning.cell_builder import CellBuilder
from tests.checkpoints import believe, fails
from tests.command_line import blip2sweep, refused
from tests.composing import composer
from tests.models.discovery.made import write, write_whole

pytestmark = pytest.mark.thorough


@pytest.fixture
def asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's answer, without a child."""
    monkeypatch.setattr(model, "ask", lambda _, folder, question, *__: answer(folder, question))


FEW = ("task.limit=4", "generation.max_new_tokens=3")


def test_the_list_has_each_model() -> None:
    lines = {line.split()[0]: line.split()[1:] for line in known()}
    assert lines["llava-1.5-7b"] == ["llava", "llava-hf/llava-1.5-7b-hf"]
    assert lines["tiny"] == ["blip-2", "pkg://blip2sweep.assets/tiny"]


def test_without_a_folder_it_prints(tmp_path: Path, asked_here: None) -> None:
    text = add(write("vipllava", tmp_path / "vip"), None, "mine")
    assert yaml.safe_load(text)["name"] == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vip"]


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with fails("model tiny: conf/model has a model of that name", "--name"):
        add(tmp_path, tmp_path / "site", "tiny")
    (tmp_path / "site" / "model").mkdir(parents=True)
    (tmp_path / "site" / "model" / "mine.yaml").write_text("")
    with fails("mine.yaml is there already"):
        add(tmp_path, tmp_path / "site", "mine")


def test_never_into_the_package(tmp_path: Path) -> None:
    import blip2sweep.conf

    with fails("the package's own conf", "a folder of your own"):
        add(tmp_path, Path(blip2sweep.conf.__path__[0]), "mine")


def test_bad_input(tmp_path: Path) -> None:
    refused(blip2sweep("model", "add", "nowhere", cwd=tmp_path), "nowhere: no such folder")
    refused(blip2sweep("model", "remove", cwd=tmp_path), "remove")
    assert list(tmp_path.iterdir()) == []


def test_what_it_wrote_runs(tmp_path: Path) -> None:
    write_whole("aya_vision", tmp_path / "mine")
    told = blip2sweep("model", "add", "mine", "--config-dir", "site", cwd=tmp_path)
    assert told.code == 0, told.err
    assert "model=mine" in told.out
    words = ("--config-dir", "site", "-m", "model=mine", "part=vision,connector,language", "quant.bits=2", *FEW)
    ran = blip2sweep(*words, "sweep_name=new", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "new" / "table.parquet")
    assert sorted(rows["layers_touched"]) == [0, 2, 21, 24]
    assert (rows["layers_changed"] == rows["layers_touched"]).all()
    assert rows["linear_share"].isna().all()


def test_a_mixture_of_experts_only_when_it_is_asked_for(tmp_path: Path, asked_here: None) -> None:
    folder = write_whole("qwen3_vl_moe", tmp_path / "moe")
    with fails("moe", "of the weights in its blocks are in linear layers", "--allow-partial"):
        add(folder, tmp_path / "site", None)
    assert not (tmp_path / "site").exists()
    add(folder, tmp_path / "site", None, partial=True)
    section = yaml.safe_load((tmp_path / "site" / "model" / "moe.yaml").read_text())
    assert section["allow_partial"] is True
    shape, inside = anatomy(section), 3 * 16 * 3 * 64 * 64 + 3 * 16 * 64  # experts and routers of three blocks
    blocks = sum(x.weights for p in shape.parts.values() for x in p.linears if x.stack != "merger")
    share = blocks / (blocks + inside)
    assert linear_share(inspect(folder).tensors, shape) == pytest.approx(share)
    believe(folder, section)
    config = composer().config(("part=language", "quant.bits=2", "task.limit=2"))
    columns = CellBuilder()({**config, "model": section}).columns()
    assert columns["linear_share"] == pytest.approx(share, abs=1e-4)
    with fails("model moe", f"{share:.1%} of the weights", "right: model.allow_partial=true"):
        CellBuilder()({**config, "model": {**section, "allow_partial": False}})
    assert "linear_share" not in CellBuilder()(config).columns()
