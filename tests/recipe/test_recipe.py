"""Anatomies, recipes and sizes: against the real counts, round trips, and sizes computed a second, dumb way."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand, targets
from blip2sweep.recipe.size import Numbers, alike, size
from tests.composing import composer

MODELS = ("tiny", "blip2-opt-2.7b", "blip2-opt-6.7b", "blip2-opt-2.7b-coco", "blip2-flan-t5-xl", "blip2-flan-t5-xxl")


def load(names: tuple[str, ...]) -> dict[str, Anatomy]:
    return {n: anatomy(composer().config((f"model={n}",))["model"]) for n in names}


ANATOMIES = load(MODELS)
TINY, T5 = ANATOMIES["tiny"], ANATOMIES["blip2-flan-t5-xl"]


def recipe(model: Anatomy = TINY, **config: Any) -> Recipe:
    defaults = {"part": "all", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": 4}}
    return resolve_recipe({**defaults, **config}, model)


def test_counts_of_the_full_size_models() -> None:
    counts = {n: [len(p.linears) for p in ANATOMIES[n].parts.values()] for n in MODELS}
    assert counts["blip2-opt-2.7b"] == [156, 96, 192]
    assert counts["blip2-opt-6.7b"] == [156, 96, 192]
    assert counts["blip2-flan-t5-xl"] == [156, 96, 24 * 7 + 24 * 11]
    assert "language_model.lm_head" not in recipe(ANATOMIES["blip2-opt-2.7b"]).schemes


def test_thirds_are_cut_as_in_the_published_study() -> None:
    opt = ANATOMIES["blip2-opt-2.7b"]
    sizes = {p: [len(opt.parts[p].blocks(t)) for t in ("first", "middle", "last")] for p in opt.parts}
    assert sizes == {"vit": [13, 13, 13], "qformer": [4, 4, 4], "llm": [10, 11, 11]}


def test_t5_stacks_are_parts_of_their_own_and_thirds_are_per_stack() -> None:
    assert T5.addressable == ["vit", "qformer", "llm", "llm.encoder", "llm.decoder"]
    assert T5.parts["llm"].blocks("first") == frozenset([*range(8), *range(24, 32)])
    encoder = recipe(T5, part="llm.encoder").schemes
    assert len(encoder) == 168
    assert all(".encoder." in path for path in encoder)
    both = recipe(T5, part="llm", per_part={"llm": {"encoder": {"bits": 8}}})
    assert {s.weights.num_bits for p, s in both.schemes.items() if ".encoder." in p} == {8}
    assert {s.weights.num_bits for p, s in both.schemes.items() if ".decoder." in p} == {4}


def test_crossattention_of_the_qformer_stands_in_every_second_block() -> None:
    paths = recipe(part="qformer", layers="crossattention").schemes
    assert {int(p.split(".")[3]) for p in paths} == {0, 2, 4}


def blocks_text() -> st.SearchStrategy[str]:
    index = st.integers(0, 5).map(str)
    run = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda x: f"{min(x)}-{max(x)}")
    word = st.one_of(st.sampled_from(["all", "first", "middle", "last"]), index, run)
    return st.lists(word, min_size=1, max_size=3).map("+".join)


@settings(max_examples=60, deadline=None)
@given(
    part=st.sampled_from(["all", "vit", "qformer", "llm", "vit+llm", "qformer+llm"]),
    blocks=blocks_text(),
    layers=st.sampled_from(["all", "attention", "mlp", "attention+mlp"]),
    bits=st.integers(1, 8),
    strategy=st.sampled_from(["tensor", "channel", "group"]),
    group_size=st.sampled_from([16, 48, 64]),
    symmetric=st.booleans(),
)  # fmt: skip
def test_the_short_form_means_the_same(
    part: str, blocks: str, layers: str, bits: int, strategy: str, group_size: int, symmetric: bool
) -> None:
    quant = {"method": "rtn", "bits": bits, "strategy": strategy, "symmetric": symmetric, "group_size": group_size}
    made = recipe(part=part, blocks=blocks, layers=layers, quant=quant)
    again = expand(targets(made), TINY)
    assert again.schemes == made.schemes
    assert again.hash == made.hash
    assert len(str(targets(made))) < 2000


@pytest.mark.parametrize("model", MODELS)
def test_the_short_form_of_every_model(model: str) -> None:
    for config in ({}, {"blocks": "first+last"}, {"layers": "mlp", "keep": "vit:3"}, {"layers": "attention"}):
        made = recipe(ANATOMIES[model], **config)
        assert expand(targets(made), ANATOMIES[model]).hash == made.hash


def test_closed_forms_of_bits_per_weight() -> None:
    big = ANATOMIES["blip2-opt-2.7b"]
    quant = {"method": "rtn", "bits": 4, "strategy": "group", "group_size": 128, "symmetric": False}
    half, single = (alike(4 * 10**9, bits) for bits in (16, 32))
    assert size(recipe(big, quant=quant), half).bits_per_weight_touched == pytest.approx(4.15625)
    assert size(recipe(big, quant=quant), single).bits_per_weight_touched == pytest.approx(4.28125)
    quant["symmetric"] = True
    assert size(recipe(big, quant=quant), half).bits_per_weight_touched == pytest.approx(4.125)
    assert size(recipe(big, quant=quant), single).bits_per_weight_touched == pytest.approx(4.25)


@pytest.mark.parametrize(
    ("quant", "bits", "in_float32"),
    [
        ({"method": "nf4", "bits": 4}, 4.5, 4.5),
        ({"method": "hqq", "bits": 3, "strategy": "group", "group_size": 64}, 3.5, 4.0),
        ({"method": "gptq", "bits": 4, "strategy": "group"}, 4.15625, 4.28125),
        ({"method": "awq", "bits": 4, "strategy": "group"}, 4.15625, 4.28125),  # what stands before absorbs its scales
        ({"method": "float8", "bits": 8, "strategy": "tensor"}, 8 + 32 / 1408**2, 8 + 32 / 1408**2),
        ({"method": "minmax", "bits": 4}, 4 + 64 / 1408**2, 4 + 64 / 1408**2),
    ],
)
def test_bits_per_weight_of_each_method(quant: dict[str, Any], bits: float, in_float32: float) -> None:
    made = recipe(ANATOMIES["blip2-opt-2.7b"], part="vit", layers="projection", quant=quant)
    found = [size(made, alike(4 * 10**9, b)).bits_per_weight_touched for b in (16, 32)]
    assert found == pytest.approx([bits, in_float32], rel=1e-9)


def test_prescales_count_in_the_size() -> None:
    kept, folded = (
        recipe(part="vit", blocks="0", layers="fc2", quant={"method": m, "bits": 4}) for m in ("awq_prescale", "awq")
    )
    for bits in (16, 32):
        sizes = [size(r, alike(10**6, bits)) for r in (kept, folded)]
        assert (sizes[0].bits_per_weight - sizes[1].bits_per_weight) * 10**6 == pytest.approx(256 * bits)


@pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
@pytest.mark.parametrize("method", ["rtn", "minmax"])
@pytest.mark.parametrize("number", [16, 32])
def test_sizes_against_a_second_count(method: str, strategy: str, number: int) -> None:
    if method == "minmax" and strategy != "tensor":
        return
    quant = {"method": method, "bits": 3, "strategy": strategy, "group_size": 48 if strategy == "group" else None}
    made = recipe(part="vit+llm", quant=quant)
    bits = 0
    for layer, scheme in made.touched():
        rows = {"tensor": 1, "channel": layer.out_features}.get(scheme.weights.strategy)
        groups = rows or layer.out_features * math.ceil(layer.in_features / 48)
        bits += layer.out_features * layer.in_features * 3 + groups * (64 if method == "minmax" else number + 3)
    found = size(made, alike(10**6, number))
    assert found.bits_per_weight_touched * found.params_touched == pytest.approx(bits)
    biases = sum(x.out_features for x, _ in made.touched())
    stored_biases = biases * 3 + 64 * found.layers_touched if method == "minmax" else biases * number
    rest = 10**6 - found.params_touched - biases
    assert found.bits_per_weight == pytest.approx((bits + stored_biases + number * rest) / 10**6)
    assert found.compression_ratio == pytest.approx(16 / found.bits_per_weight)


def test_an_untouched_model_is_its_own_size() -> None:
    """Ratios compare with 16 bits a number, whatever the model itself is stored in."""
    for bits, ratio in ((16, 1), (32, 0.5)):
        found = size(recipe(part="none"), alike(10**6, bits))
        assert (found.bits_per_weight, found.compression_ratio, found.model_bytes) == (bits, ratio, bits * 10**6 // 8)


def test_each_stage_counts_at_its_own_dtype() -> None:
    """Also of a dropped block, whose norms are known from the files."""
    stages = [p.stage for p in TINY.parts.values()]
    mixed = Numbers(dict.fromkeys(stages, 10**6), dict(zip(stages, (16, 32, 16), strict=True)), {"qformer": {5: 10**5}})
    assert size(recipe(part="none"), mixed).bits_per_weight == pytest.approx(64 / 3)
    quant = {"method": "rtn", "bits": 4, "strategy": "channel", "symmetric": True}
    for name, bits in (("vit", 16), ("qformer", 32)):
        made = recipe(part=name, quant=quant)
        rows = sum(x.out_features for x, _ in made.touched())
        found = size(made, mixed)
        assert found.bits_per_weight_touched * found.params_touched == pytest.approx(
            found.params_touched * 4 + rows * bits
        )
        assert found.model_bytes * 8 == 64 * 10**6 - found.params_touched * (bits - 4) + rows * bits
    dropped = size(recipe(part="none", drop_blocks="qformer:5"), mixed)
    assert dropped.model_bytes * 8 == 64 * 10**6 - 32 * 10**5


def test_columns_are_one_word_where_parts_agree() -> None:
    columns = recipe_columns(recipe(part="vit+llm", blocks="first", layers="mlp"), alike(10**6, 16))
    assert (columns["part"], columns["blocks"], columns["layers"]) == ("vit+llm", "first", "mlp")
    assert (columns["bits_vit"], columns["bits_qformer"], columns["bits_llm"]) == (4, None, 4)
    mixed = recipe_columns(recipe(per_part={"llm": {"bits": 8, "blocks": "last"}}), alike(10**6, 16))
    assert mixed["blocks"] == "vit:all qformer:all llm:last"


def test_a_renamed_module_is_an_error_and_never_a_silent_no_op() -> None:
    linears = {x.path: (x.out_features, x.in_features, x.bias) for p in TINY.parts.values() for x in p.linears}
    blocks = {s.path: s.n for p in TINY.parts.values() for s in p.stacks}
    TINY.verify(linears, blocks)
    renamed = {p.replace("out_proj", "o_proj"): s for p, s in linears.items()}
    with pytest.raises(UserError, match="o_proj"):
        TINY.verify(renamed, blocks)
    with pytest.raises(UserError, match=r"out, in, bias"):
        TINY.verify({**linears, next(iter(linears)): (1, 2, True)}, blocks)
    with pytest.raises(UserError, match="blocks"):
        TINY.verify(linears, {**blocks, "qformer.encoder.layer": 7})
    with pytest.raises(UserError, match="extra"):
        TINY.verify({**linears, "qformer.encoder.layer.0.extra": (1, 1, True)}, blocks)
