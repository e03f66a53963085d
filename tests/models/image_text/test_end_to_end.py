"""A checkpoint written of one cell of an image-text model, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from blip2sweep.models.load import load
from tests.checkpoints import believe
from tests.command_line import blip2sweep
from tests.image_text import write

pytestmark = pytest.mark.thorough

NAMES = {"splits": "smolvlm-256m", "videos": "qwen2.5-vl-3b"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the YAML of both, and their checkpoints."""
    folder = tmp_path_factory.mktemp("end-to-end")
    (folder / "site" / "model").mkdir(parents=True)
    for name, of in NAMES.items():
        section = {**write(of, folder / name), "name": name}
        (folder / "site" / "model" / f"{name}.yaml").write_text(yaml.safe_dump(section, sort_keys=False))
        believe(folder / name, section)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_becomes_a_checkpoint(site: Path, name: str) -> None:
    written = site / f"{name}-rtn3"
    ran = blip2sweep("quantize", "--config-dir", "site", f"model={name}", "part=language", "quant=rtn", "quant.bits=3",
                     "--to", str(written), cwd=site)  # fmt: skip
    assert ran.code == 0, ran.err
    section = yaml.safe_load((site / "site" / "model" / f"{name}.yaml").read_text())
    plain, again = (load({**section, "path": str(f)}, f) for f in (site / name, written))
    layer = plain.anatomy.parts["language"].linears[0].path
    assert all(len(row.unique()) <= 8 for row in again.model.get_submodule(layer).weight)
    layer = plain.anatomy.parts["vision"].linears[0].path
    assert torch.equal(again.model.get_submodule(layer).weight, plain.model.get_submodule(layer).weight)
    # It says what the original says where it was not changed: the processor came along.
    users = ["what is this?"]
    assert again.language.prompt_ids(users) == plain.language.prompt_ids(users)
