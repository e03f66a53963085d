"""Every model of docs/models.md: a sweep by role over small random checkpoints of all of them, and one report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.shipped import model_config, shipped_models
from tests import image_text
from tests.checkpoints import ROOT, TINY, believe, conf, edit, t5_config, tiny_config, write_t5
from tests.command_line import blip2sweep
from tests.miniatures import blip_config, instructblip_config, write_blip, write_instructblip

EMBEDDED = ("tiny", "tiny-llava")
MATCHES = (
    "blip2-itm-vit-g",
    "blip2-itm-vit-g-coco",
    "tiny-itm",
)  # write no text; tests/models/test_retrieval.py runs them
WORDS = ("part=vision,connector,language", "quant.bits=3", "task.limit=2", "generation.max_new_tokens=3")
Made = tuple[Mapping[str, Any], Callable[[Path], object]]


def small(name: str) -> Made:
    """The `model` section of a model with small sizes, and what writes its checkpoint."""
    if name in image_text.SMALL:
        return image_text.small_config(name), partial(image_text.write, name)
    if name.startswith("instructblip"):
        family = str(model_config(name)["family"])
        return instructblip_config(family), partial(write_instructblip, family=family)
    if name.startswith("blip-"):
        like = name.replace("large", "base")
        return blip_config(like), partial(write_blip, name=like)
    if "t5" in name:
        return t5_config(), write_t5
    own = {"config": tiny_config()["config"], "dtype": "float32", "hub_id": None}
    return {**conf(f"model/{name}"), **own}, partial(shutil.copytree, TINY, dirs_exist_ok=True)


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
        if name in (*EMBEDDED, *MATCHES):
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
    asked = [n for n in shipped_models() if n not in MATCHES and _kind(n) == kind]
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
