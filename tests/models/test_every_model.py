"""Every model of docs/models.md: a sweep by role over small random checkpoints of all of them, and one report."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.shipped import model_config, shipped_models
from tests.checkpoints import ROOT, believe, edit
from tests.command_line import blip2sweep
from tests.small_models import RETRIEVAL, small
from tests.toy.task import write as write_data

pytestmark = pytest.mark.thorough

EMBEDDED = ("tiny", "tiny-itm", "tiny-llava")
WORDS = ("part=vision,connector,language", "quant.bits=3", "task.limit=2", "generation.max_new_tokens=3")


def test_the_page_lists_every_model() -> None:
    table = (ROOT / "docs" / "models.md").read_text().split("\n1. ")[0]
    assert re.findall(r"^\| `([\w.-]+)` \|", table, flags=re.MULTILINE) == sorted(
        shipped_models(), key=lambda name: table.index(f"`{name}`")
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every-model")
    (folder / "site" / "model").mkdir(parents=True)
    for name in shipped_models():
        if name in EMBEDDED:
            continue
        section, write = small(name)
        write(folder / name)
        edit(folder / name / "config.json", _name_or_path=name)  # or models of equal sizes would be one
        own = {**section, "name": f"small-{name}", "path": str(folder / name)}
        (folder / "site" / "model" / f"small-{name}.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        believe(folder / name, own)
    return folder


@pytest.fixture(scope="module")
def matches(site: Path) -> dict[str, str]:
    """The environment of commands that know the task of matches of tests/toy."""
    toys = ROOT / "tests" / "toy"
    for of, name in (("tasks", "toy"), ("tasks", "toy_match"), ("task", "toy"), ("task", "toy_match")):
        source = toys / {"toy": "task.py", "toy_match": "matching.py"}[name]
        source = toys / "conf" / "task" / f"{name}.yaml" if of == "task" else source
        (site / "site" / of).mkdir(exist_ok=True)
        shutil.copy(source, site / "site" / of / f"{name}{source.suffix}")
    (site / "data").mkdir()
    write_data(site / "data")
    return {"PYTHONPATH": str(ROOT)}


def test_the_retrieval_model_is_swept_by_role_and_reported(site: Path, matches: dict[str, str]) -> None:
    words = (
        "part=vision,connector",
        "quant.bits=3",
        "task=toy_match",
        f"task.data_dir={site / 'data'}",
        'generation.prompt="Question: {} Answer:"',
    )
    ran = blip2sweep("--config-dir", "site", "-m", f"model=small-{RETRIEVAL}", *words, "sweep_name=match",
                     cwd=site, env=matches)  # fmt: skip
    assert ran.code == 0, ran.err
    table = pd.read_parquet(site / "outputs" / "sweeps" / "match" / "table.parquet")
    assert set(table["status"]) == {"done"}
    assert sorted(table["part"].fillna("none")) == ["none", "qformer", "vit"]
    assert table["toy_recall"].notna().all()
    made = blip2sweep("report", "match", cwd=site, env=matches)
    assert made.code == 0, made.err


@pytest.mark.parametrize(("task", "kind"), [("shapes_vqa", "vqa"), ("shapes_caption", "caption")])
def test_every_model_is_swept_by_role_and_reported(site: Path, task: str, kind: str) -> None:
    asked = [n for n in shipped_models() if _kind(n) == kind]
    names = [n if n in EMBEDDED else f"small-{n}" for n in asked]
    ran = blip2sweep("--config-dir", "site", "-m", f"model={','.join(names)}", f"task={task}", *WORDS,
                     f"sweep_name={kind}", "batch_size=2", cwd=site)  # fmt: skip
    assert ran.code == 0, ran.err
    if "gemma-3-4b" in asked:
        assert "no part of the role connector (its projection is a bare" in " ".join(ran.err.split())
    table = pd.read_parquet(site / "outputs" / "sweeps" / kind / "table.parquet")
    assert set(table["status"]) == {"done"}
    for name, own in zip(asked, names, strict=True):
        parts = [p.name for p in anatomy(model_config(name)).parts.values()]
        assert sorted(table.loc[table["model"] == own, "part"].fillna("none")) == sorted(["none", *parts])
    made = blip2sweep("report", kind, cwd=site)
    assert made.code == 0, made.err


def _kind(name: str) -> str:
    """What a model is asked here: questions, but captions or matches where it answers none."""
    if name.startswith(RETRIEVAL) or name == "tiny-itm":
        return "match"
    return "caption" if name.startswith("blip-image-captioning") else "vqa"
