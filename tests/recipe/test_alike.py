"""Rows of recipes that differ in width and blocks alone share their setting and their semantics."""

from __future__ import annotations

import json

import pytest

from blip2sweep.canonical import canonical_json
from blip2sweep.recipe.semantics import semantics_of
from blip2sweep.recipe.setting import alike, setting, setting_name, setting_text, undigested

RTN = {"bits": 3, "method": "rtn", "strategy": "channel", "symmetric": False, "target": "vit:3+9:all"}
RECIPES: list[list[dict[str, object]]] = [
    [],
    [RTN],
    [{**RTN, "bits": 4.5, "target": "llm.encoder:all:mlp"}],
    [{**RTN, "method": "gptq", "group_size": 32, "target": "llm"}],
    [{**RTN, "method": "gptq", "calibration": "0a1b", "target": "vision:0-3:all"}],
    [{**RTN, "input": {"bits": 8, "strategy": "tensor"}}],
    [{**RTN, "symmetric": True}, {**RTN, "method": "gptq", "target": "llm:all:all"}],
    [{"step": "drop", "target": "llm:4-5"}],
    [{"step": "drop", "target": "llm:4-5"}, RTN],
    [{**RTN, "zebra": "a:b"}],
    [{**RTN, "note": 'a "target":"b"'}],
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_what_is_alike_has_the_same_setting_and_semantics(recipe: list[dict[str, object]]) -> None:
    text = canonical_json(recipe)
    every = [undigested(entry) for entry in recipe]
    plain = setting_name(every) if not any("step" in e for e in recipe) else setting_text(every)
    assert setting(text) == plain
    for stored in ("float32", "float16", "vit float16, llm float32"):
        assert semantics_of(json.loads(alike(text)), stored) == semantics_of(json.loads(text), stored)


def test_width_and_blocks_of_one_quantizer_are_left_out_and_nothing_else() -> None:
    one = [
        canonical_json([{**RTN, "bits": b, "target": f"vit:{t}:all"}]) for b, t in ((2, "0"), (8, "1+2"), (2.5, "all"))
    ]
    assert len(set(map(alike, one))) == 1
    others = ({"method": "gptq"}, {"target": "llm:0:all"}, {"symmetric": True}, {"group_size": 32})
    assert len({alike(canonical_json([{**RTN, **other}])) for other in ({}, *others)}) == 5
    two = canonical_json([RTN, RTN])
    assert alike(two) == two
