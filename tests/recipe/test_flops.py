"""FLOPs and parameters of recipes: the figures of the published study, of models at full size, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blip2sweep.compression.step import Entries, Site, SpecFields, Stored
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import ARCHITECTURES, work
from blip2sweep.models.block_params import block_params
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.part import Linear
from blip2sweep.models.role_params import role_params
from blip2sweep.models.work import Asked
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.flops import stage_flops
from blip2sweep.recipe.params import param_columns
from blip2sweep.recipe.recipe import PartRecipe
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


# ---- further steps


@dataclass(frozen=True)
class Beside:
    """A spec as others than dropping have it: weights that stay, and numbers that run beside each layer."""

    share: float = 1.0
    beside: int = 0
    needs: frozenset[str] = frozenset()

    def as_dict(self) -> SpecFields:
        return {"share": self.share, "beside": self.beside}

    def measured_on(self, digest: str) -> Beside:
        return self

    def first_block(self, site: Site) -> int:
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        return before._replace(values=int(before.values * self.share), flops=before.flops + 2 * self.beside)


def beside(layout: Anatomy, part: str, layers: str, *specs: Beside) -> Recipe:
    own = layout.parts[part]
    chosen = [x for x in own.linears if x.leaf in layers.split("+")]
    steps = tuple(Entries("toy", tuple((x, spec) for x in chosen)) for spec in specs)
    return Recipe({n: PartRecipe(p, steps if n == part else ()) for n, p in layout.parts.items()})


def test_adapters_add_their_parameters_and_flops(layout: Anatomy, tensors: dict[str, Tensor]) -> None:
    """The study's LoRA: rank 16 on q and v of OPT are 5.24 M parameters, .01 GFLOP a token."""
    recipe, roles = beside(layout, "llm", "q_proj+v_proj", Beside(beside=16 * 5120)), role_params(tensors, layout)
    found = param_columns(recipe, sum(roles.values()), roles, {})
    assert found["params"] - sum(roles.values()) == found["params_language"] - roles["language"] == 5_242_880
    assert found["params_nonzero"] == found["params"]
    plain, more = (giga(r, Asked((1,), 10))["language"] for r in (dropped("none", layout), recipe))
    assert more - plain == pytest.approx(42 * 2 * 5_242_880 / 1e9)


def test_a_mask_leaves_parameters_and_flops(layout: Anatomy, tensors: dict[str, Tensor]) -> None:
    roles, weights = role_params(tensors, layout), 32 * 2560 * 10240
    total = sum(roles.values())
    for recipe, further in (
        (beside(layout, "llm", "fc1", Beside(0.5)), 0),
        (beside(layout, "llm", "fc1", Beside(0.5), Beside(beside=8 * 12800)), 32 * 8 * 12800),
    ):
        found = param_columns(recipe, total, roles, {})
        assert found["params"] == total + further
        assert found["params_nonzero"] == total + further - weights // 2
    assert giga(beside(layout, "llm", "fc1", Beside(0.5)), Asked((1,), 3)) == giga(
        dropped("none", layout), Asked((1,), 3)
    )


# ---- what is asked


def test_beams_share_the_prompt_and_write_each_token(layout: Anatomy) -> None:
    plain = dropped("none", layout)
    first, greedy, beams = (giga(plain, Asked((4,), *a))["language"] for a in ((1,), (9,), (9, 5)))
    assert beams - first == pytest.approx(5 * (greedy - first))


def test_options_are_read_behind_the_prompt(layout: Anatomy) -> None:
    plain, asked = dropped("none", layout), Asked((4,), options=(3, 2))
    both = giga(plain, asked)["language"]
    one, other = (giga(plain, Asked((4,), options=(n,)))["language"] for n in (3, 2))
    nothing = giga(plain, Asked((4,)))["language"]
    assert both - nothing == pytest.approx(one + other - 2 * nothing)
    assert nothing < other < one


def test_an_architecture_may_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "toy", "tests.toy.architecture")
    assert work({"architecture": "toy"}, {}, Asked()) is None
