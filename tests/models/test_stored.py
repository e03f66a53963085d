"""Weights are rounded to the dtype in which they are stored, and sizes count every stage of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip2sweep.models import checkpoints
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.architecture import stage_of
from blip2sweep.models.load import load
from blip2sweep.models.location import locate
from blip2sweep.models.role_params import stage_params
from blip2sweep.models.shipped import model_config
from tests.checkpoints import t5_config, write_t5


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in float32 whose numbers no half precision holds."""
    return write_t5(tmp_path_factory.mktemp("t5"))


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_all_weights_are_rounded_once_and_computed_in_float32(stored: str, t5_folder: Path) -> None:
    plain, rounded = (load({**t5_config(), "stored": s}, t5_folder) for s in (None, stored))
    assert (plain.stored, rounded.stored) == (None, stored)
    own, dtype = dict(plain.model.named_parameters()), getattr(torch, stored)
    for name, parameter in rounded.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, own[name].to(dtype).float()), name
    assert any(not torch.equal(p, own[n]) for n, p in rounded.model.named_parameters())


def test_a_stage_in_half_precision_is_not_rounded_twice(t5_folder: Path) -> None:
    section = {**t5_config(), "dtype": "bfloat16", "dtype_per_part": {"qformer": "float32"}, "stored": "bfloat16"}
    found, plain = load(section, t5_folder), load(t5_config(), t5_folder)
    own = dict(plain.model.named_parameters())
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter.float(), own[name].bfloat16().float()), name
    assert {p.dtype for p in found.model.qformer.parameters()} == {torch.float32}
    assert {p.dtype for p in found.model.language_model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["tiny", "tiny-llava", "tiny-itm"])
def test_every_number_of_the_files_is_of_one_stage(name: str) -> None:
    """As many as the model has in it, tied ones once."""
    section = model_config(name)
    folder = locate(section).folder
    loaded, found = load(section, folder), checkpoints.inspect(folder)
    counted = dict.fromkeys((s.name for s in loaded.anatomy.stages), 0)
    for path, parameter in loaded.model.named_parameters():  # which names a tied parameter once
        counted[stage_of(path, loaded.anatomy.stages).name] += parameter.numel()
    layout = anatomy(section)
    assert stage_params(found.tensors, layout, layout.tied) == {s: n for s, n in counted.items() if n}
