"""The folds of every image-text model: a scale that really goes into what stands before changes no output."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.models.part import Fold
from tests.apply.calibration.folding import fold
from tests.models.image_text.made import FIRST, Made, features
from tests.params import quick


@torch.no_grad()
def fold_beside_one(norm: nn.Module, into: list[nn.Linear], s: Tensor) -> None:
    """As `fold` for a norm of Gemma, which multiplies by 1 + weight."""
    norm.weight.add_(1)
    fold(norm, into, s)
    norm.weight.sub_(1)


def folded(block: nn.Module, f: Fold, seed: int) -> None:
    before, into = block.get_submodule(f.before), [block.get_submodule(name) for name in f.into]
    s = torch.rand(into[0].in_features, generator=torch.Generator().manual_seed(seed)) + 0.5
    if type(before).__name__ in ("GemmaRMSNorm", "Gemma3RMSNorm"):
        fold_beside_one(before, into, s)
    else:
        fold(before, into, s, f.piece)


@pytest.mark.parametrize("name", quick(FIRST))
def test_a_folded_model_is_the_same_function(name: str, small: Callable[[str], Made]) -> None:
    m = small(name)
    model, language, pixels = m.loaded.model, m.loaded.language, m.loaded.pixels(m.images[0])
    prompts, before = language.prompt_ids(["what is this?"]), copy.deepcopy(m.loaded.model.state_dict())

    def answer() -> Tensor:
        return language.prefill(features(m.loaded, pixels), prompts).first  # type: ignore[attr-defined]

    plain = answer()
    for part in m.loaded.anatomy.parts.values():
        for i, f in enumerate(part.folds):
            for stack in (s for s in part.stacks if not f.stacks or s.name in f.stacks):
                for path in stack.block_paths:
                    folded(model.get_submodule(path), f, i)
    changed = answer()
    model.load_state_dict(before)
    assert (changed - plain).abs().max() < 1e-3 * plain.abs().max()
    assert torch.equal(answer(), plain)


@pytest.mark.parametrize("name", FIRST)
def test_values_fold_into_the_output_where_there_are_as_many_heads(name: str, small: Callable[[str], Made]) -> None:
    for part in small(name).loaded.anatomy.parts.values():
        names = {f.into[0] for f in part.folds}
        output = next((x.name for x in part.linears if x.leaf in ("o_proj", "out_proj", "proj", "projection_layer")
                       and x.kind == "attention"), None)  # fmt: skip
        values = next((x for x in part.linears if x.leaf in ("v_proj", "qkv")), None)
        if output and values:
            heads = values.out_features in (values.in_features, 3 * values.in_features)
            assert (output in names) == heads
