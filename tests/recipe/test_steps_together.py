"""All built-in steps in one recipe: their order, the short form, recipe files and columns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand, targets, text
from blip2sweep.recipe.size import alike
from tests.checkpoints import fails, tiny_config
from tests.composing import plan

ANATOMY = anatomy(tiny_config())
RTN = {"method": "rtn", "bits": 4}
DROPPED = (None, "vit:4-5+qformer:0")
SPARSE = (None, {"method": "wanda", "ratio": 0.25}, {"method": "magnitude", "pattern": "2of4"})
QUANT = ({**RTN, "bits": "none"}, RTN)
RECOVER = (
    None,
    {"method": "lora", "target": "qformer+llm:all:attention", "rank": 4, "loss": "distill"},
    {"method": "lora", "target": "llm", "merge": True},
    {"method": "full", "target": "llm:0-1", "steps": 20},
)
EVERY = list(itertools.product(DROPPED, SPARSE, QUANT, RECOVER))


def recipe(dropped: Any = None, sparse: Any = None, quant: Any = RTN, recover: Any = None, **config: Any) -> Recipe:
    plain = {"part": "all", "blocks": "all", "layers": "all"}
    own = {"drop_blocks": dropped, "sparsity": sparse, "quant": quant, "recover": recover}
    return resolve_recipe({**plain, **{k: v for k, v in own.items() if v is not None}, **config}, ANATOMY)


def test_they_come_in_one_order() -> None:
    dense = {"llm": {"sparsity": {"method": "none"}}}  # an adapter would fill the zeros
    made = recipe("vit:5", SPARSE[1], RTN, {"method": "lora", "target": "llm:0", "requantize": True}, per_part=dense)
    assert made.kinds == ("drop_blocks", "sparsity", "quantize", "recover", "quantize")
    assert [name.split("=")[0] for name in text(targets(made)).split("; ")] == [
        "vit:5", "vit:all:all", "qformer:all:all", "vit:all:all", "qformer:all:all", "llm:all:all",
        "llm:0:all", "llm:0:all",
    ]  # fmt: skip


def test_the_short_form_of_every_kind_means_the_same(tmp_path: Path) -> None:
    hashes = set()
    for i, chosen in enumerate(EVERY):
        made = recipe(*chosen)
        short = json.loads(json.dumps(targets(made)))
        assert expand(short, ANATOMY).hash == made.hash, chosen
        assert targets(expand(short, ANATOMY)) == short, chosen
        path = tmp_path / f"{i}.yaml"
        path.write_text(yaml.safe_dump({"targets": short}))
        assert resolve_recipe({"recipe_file": str(path)}, ANATOMY).hash == made.hash, chosen
        hashes.add(made.hash)
    assert len(hashes) == len(EVERY)


def test_a_recipe_file_may_quantize_again(tmp_path: Path) -> None:
    made = recipe("vit:5", None, RTN, {"method": "lora", "target": "llm:0", "requantize": True})
    path, short = tmp_path / "r.yaml", targets(made)
    path.write_text(yaml.safe_dump({"targets": short}))
    assert resolve_recipe({"recipe_file": str(path)}, ANATOMY).hash == made.hash
    path.write_text(yaml.safe_dump({"targets": [*short[:-1], {**short[-1], "bits": 8}]}))
    with fails("quantizes otherwise after step recover than before"):
        resolve_recipe({"recipe_file": str(path)}, ANATOMY)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "nf4"}, {"nf4/group64", "nf4/channel"}), ({"method": "fp4", "group_size": 128}, {"fp4/group128", "fp4/channel"}),
     ({"method": "nf4", "packed": "cpu"}, {"nf4/group64/packed", "nf4/channel/packed"}),
     ({"method": "rtn", "strategy": "group", "group_size": 64, "packed": "cuda"},
      {"rtn4/group64/packed", "rtn4/channel/packed"})],
)  # fmt: skip
def test_a_group_as_long_as_the_row_is_read_back(tmp_path: Path, options: dict[str, Any], words: set[str]) -> None:
    made = recipe(quant={"bits": 4, **options})
    path, short = tmp_path / "r.yaml", targets(made)
    assert {text([e]).partition("=")[2] for e in short} == words
    path.write_text(yaml.safe_dump({"targets": short}))
    assert resolve_recipe({"recipe_file": str(path)}, ANATOMY).hash == made.hash


def test_columns_of_a_row() -> None:
    found = [recipe_columns(recipe(*chosen), alike(1_005_056, 16)) for chosen in EVERY]
    assert {c.get("blocks_dropped") for c in found} == {None, "vit:4-5 qformer:0"}
    assert {c.get("sparsity") for c in found} == {None, "wanda0.25", "magnitude2of4", "mixed"}
    words = {str(c["recover"]).removesuffix(", off the grid") for c in found if "recover" in c}
    assert words == {"lora r4 distill 150 steps", "lora r8 150 steps", "full 20 steps"}
    assert sum("recover" in c for c in found) == len(EVERY) * 3 // 4
    mixed = recipe(sparse=SPARSE[1], per_part={"llm": {"sparsity": {"method": "magnitude"}}})
    assert recipe_columns(mixed, alike(1_005_056, 16))["sparsity"] == "mixed"


def test_merged_is_told_of_each_layer() -> None:
    lora = {"method": "lora", "target": "llm"}
    words = [recipe_columns(recipe(quant=q, recover=lora, **c), alike(10**6, 16))["merged"] for q, c in (
        (QUANT[0], {}), (RTN, {}), (RTN, {"keep": "llm:0"}),
    )]  # fmt: skip
    assert words == [True, False, "mixed"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"step": "sparsity", "target": "vit:0", "ratio": 0.5}, "without a method; right: method: magnitude or wanda"),
        ({"step": "sparsity", "target": "vit:0", "method": "wanda", "ratio": 2}, "sparsity.ratio=2: right: a number"),
        ({"step": "sparsity", "target": "vit:0", "method": "wanda", "bits": 2}, "sparsity.bits: unknown option"),
        ({"step": "recover", "target": "vit:0", "method": "lora", "rank": 0}, "rank=0: right"),
        ({"step": "recover", "target": "vit:0"}, "no recovery"),
    ],
)
def test_entries_of_files_are_held_to_the_options(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"targets": [{"target": "llm:all:all", **RTN}, entry]}))
    with fails("r.yaml: targets[1]", told):
        resolve_recipe({"recipe_file": str(path)}, ANATOMY)


@pytest.mark.parametrize("key", ["sparsity=wanda", "recover=full"])
def test_a_step_is_in_the_file_or_beside_it(tmp_path: Path, key: str) -> None:
    kind, method = key.split("=")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"targets": [{"target": "vit:0", "step": kind, "method": method}]}))
    with fails(f"{key}: recipe_file=", "has this step too"):
        plan(f"recipe_file={path}", key)


def test_the_first_grid_of_the_issue() -> None:
    made = plan("drop_blocks=none,qformer:4-5,llm:4-5", "quant.bits=none,4", "recover=none,lora", "part=all")
    assert len({k for k in made.keys if k}) == 12
    assert not made.reasons
