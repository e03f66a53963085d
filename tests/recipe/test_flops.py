"""FLOPs and parameters of recipes: the figures of the published study, of models at full size, from shapes alone."""

from __future__ import annotations

import pytest

from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import work
from blip2sweep.models.block_params import block_params
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.role_params import role_params
from blip2sweep.models.work import Asked
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.flops import stage_flops
from blip2sweep.recipe.params import param_columns
from tests.checkpoints import build_meta, conf

NAME = "blip2-opt-2.7b"
# What is dropped: GFLOPs of a caption of 10 tokens, and millions of parameters.
STUDY = {
    "none": (748.03, 3744.8),
    "qformer:6-11": (741.66, 3692.2),
    "qformer:8-11": (743.78, 3709.7),
    "llm:28-31": (721.55, 3430.1),
    "llm:28-31+qformer:8-11": (717.30, 3395.0),
}


@pytest.fixture(scope="module")
def layout() -> Anatomy:
    return anatomy(conf(f"model/{NAME}"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The tensors of the model at full size, as headers have them."""
    return {n: Tensor("BF16", tuple(p.shape), 0, 0) for n, p in build_meta(conf(f"model/{NAME}")).named_parameters()}


def dropped(blocks: str, layout: Anatomy, **further: object) -> Recipe:
    quant = {"method": "rtn", "bits": None}
    return resolve_recipe({"drop_blocks": blocks, "part": "none", "quant": quant, **further}, layout)


def giga(recipe: Recipe, asked: Asked) -> dict[str, float]:
    model = conf(f"model/{NAME}")
    computed = work(model, model["config"], asked)
    assert computed is not None
    return {stage: n / 1e9 for stage, n in stage_flops(recipe, computed).items()}


@pytest.mark.parametrize("blocks", STUDY)
def test_flops_are_those_of_the_study(blocks: str, layout: Anatomy) -> None:
    assert sum(giga(dropped(blocks, layout), Asked((1,), 10)).values()) == pytest.approx(STUDY[blocks][0], abs=0.006)


def test_the_connector_is_a_small_share(layout: Anatomy) -> None:
    found = giga(dropped("none", layout), Asked((1,), 10))
    assert {stage: round(n, 2) for stage, n in found.items()} == {"vision": 520.72, "bridge": 12.75, "language": 214.56}
    assert round(found["bridge"] / sum(found.values()), 3) == 0.017


def test_a_token_costs_what_six_tokens_do_not(layout: Anatomy) -> None:
    """The published overhead of LoRA is six more tokens written; its adapters are a hundredth of a GFLOP a token."""
    ten, sixteen = (sum(giga(dropped("none", layout), Asked((1,), n)).values()) for n in (10, 16))
    assert sixteen - ten == pytest.approx(31.74, abs=0.1)


@pytest.mark.parametrize("blocks", STUDY)
def test_parameters_are_those_of_the_study(blocks: str, layout: Anatomy, tensors: dict[str, Tensor]) -> None:
    roles, own = role_params(tensors, layout), block_params(tensors, layout)
    found = param_columns(dropped(blocks, layout), sum(roles.values()), roles, own)
    assert round(found["params"] / 1e6, 1) == STUDY[blocks][1]
    assert found["params_nonzero"] == found["params"]
    assert sum(n for name, n in found.items() if name in {f"params_{r}" for r in roles}) == found["params"]


def test_roles_have_their_parameters(layout: Anatomy, tensors: dict[str, Tensor]) -> None:
    """The queries are the connector's, the projection the language model's."""
    found = {role: round(n / 1e6, 2) for role, n in role_params(tensors, layout).items()}
    assert found == {"vision": 985.95, "connector": 105.16, "language": 2653.65}
