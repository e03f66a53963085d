"""Parameters of each block, counted in the headers of a checkpoint as transformers names them there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.block_params import block_params
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.load import load
from tests.small_models import small


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "llava-1.5-7b", "gemma-3-4b", "qwen2.5-vl-3b", "blip-vqa-base"])
def test_they_are_those_of_the_modules(tmp_path: Path, name: str) -> None:
    section, write = small(name)
    write(tmp_path)
    layout, tied = anatomy(section), section.get("tied") or ()
    model = load(section, tmp_path).model
    blocks = {
        part.name: {
            s.first + i: s.block_path(s.first + i) for s in part.stacks if not s.whole for i in range(s.n + s.unread)
        }
        for part in layout.parts.values()
    }
    expected = {
        part: {i: sum(_counted(model.get_submodule(path))) for i, path in own.items()} for part, own in blocks.items()
    }
    assert block_params(inspect(tmp_path, tied).tensors, layout, tied) == expected


def _counted(block: nn.Module) -> Iterator[int]:
    """All parameters but T5's position bias, which stays in the model when its block is dropped."""
    yield from (p.numel() for n, p in block.named_parameters() if "relative_attention_bias" not in n)


def test_a_list_that_is_not_there_counts_its_linear_layers(tmp_path: Path) -> None:
    section, write = small("blip2-flan-t5-xl")
    write(tmp_path)
    layout = anatomy(section)
    strange = {n.replace("encoder.layers.", "tower."): t for n, t in inspect(tmp_path).tensors.items() if "norm" in n}
    first = [x for x in layout.parts["vit"].linears if x.block == 0]
    found = block_params(strange, layout)
    assert found["vit"][0] == sum(x.weights + x.out_features * x.bias for x in first)
