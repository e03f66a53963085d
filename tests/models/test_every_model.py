"""Every model of docs/models.md: a sweep by role over small random checkpoints of all of them, and one report."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.shipped import model_config, shipped_models
from tests.checkpoints import ROOT, believe, edit
from tests.command_line import blip2sweep
from tests.small_models import RETRIEVAL, small

EMBEDDED = ("tiny", "tiny-llava")
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
        if name in (*EMBEDDED, RETRIEVAL):
            continue
        section, write = small(name)
        write(folder / name)
        edit(folder / name / "config.json", _name_or_path=name)  # or models of equal sizes would be one
        own = {**section, "name": f"small-{name}", "path": str(folder / name)}
        (folder / "site" / "model" / f"small-{name}.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        believe(folder / name, own)
    return folder


@pytest.mark.parametrize(("task", "kind"), [("shapes_vqa", "vqa"), ("shapes_caption", "caption")])
def test_every_model_is_swept_by_role_and_reported(site: Path, task: str, kind: str) -> None:
    asked = [n for n in shipped_models() if n != RETRIEVAL and _kind(n) == kind]
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
    """What a model is asked here: questions, but captions where it answers none."""
    return "caption" if name.startswith("blip-image-captioning") else "vqa"
