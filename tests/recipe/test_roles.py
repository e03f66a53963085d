"""Roles beside names: one key for both spellings, everywhere a part is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from blip2sweep.errors import MissingRole, UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.dtypes import part_dtypes, stage_dtypes
from blip2sweep.models.shipped import model_anatomy, model_config, shipped_models
from blip2sweep.planning.costs import similarity_names
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.part_bits import Anatomies, RoleColumns, part_columns
from blip2sweep.recipe.size import alike

PLAIN: dict[str, Any] = {"part": "all", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": 4}}
ROLES = ("vision", "connector", "language")
OWN = {"vision": "vit", "connector": "qformer", "language": "llm"}


def resolved(model: Any, **said: Any) -> Recipe:
    return resolve_recipe({**PLAIN, **said}, model)


def in_own_names(said: Any) -> Any:
    """The same in the model's own names."""
    if isinstance(said, dict):
        return {OWN.get(k, k): in_own_names(v) for k, v in said.items()}
    if not isinstance(said, str):
        return said
    for role, name in OWN.items():
        said = said.replace(role, name)
    return said


def without_connector() -> dict[str, Any]:
    config = copy.deepcopy(model_config("tiny"))
    del config["parts"]["qformer"]
    return config


def two_language_parts() -> dict[str, Any]:
    """T5's encoder and decoder as parts of their own."""
    config = copy.deepcopy(model_config("blip2-flan-t5-xl"))
    llm = config["parts"].pop("llm")
    for stack in ("encoder", "decoder"):
        layers = {
            kind: {n: e for n, e in entries.items() if stack in e.get("stacks", [stack])}
            for kind, entries in llm["layers"].items()
        }
        config["parts"][stack] = {
            "stacks": {stack: llm["stacks"][stack]},
            "layers": {k: v for k, v in layers.items() if v},
        }
    return config


BLIP2 = [name for name in shipped_models() if name == "tiny" or (name.startswith("blip2-") and "itm" not in name)]


@pytest.mark.parametrize("model", shipped_models())
def test_every_part_of_every_model_has_a_role_written(model: str) -> None:
    roles = {name: part.get("role") for name, part in model_config(model)["parts"].items()}
    assert roles == {name: p.role for name, p in model_anatomy(model).parts.items()}
    assert {*roles.values()} <= {*ROLES}


@pytest.mark.parametrize("model", BLIP2)
def test_a_blip2_has_the_three_roles_and_derives_them_where_none_is_written(model: str) -> None:
    config = copy.deepcopy(model_config(model))
    assert {p.name: p.role for p in model_anatomy(model).parts.values()} == {v: k for k, v in OWN.items()}
    for part in config["parts"].values():
        part.pop("role")
    assert anatomy(config).parts == model_anatomy(model).parts


@pytest.mark.parametrize(
    "said",
    [
        {"part": "vision"},
        {"part": "language+vision", "blocks": "first"},
        {"per_part": {"vision": {"bits": 3, "blocks": "0-2"}, "language": {"bits": "none"}}},
        {"part": "vision+language", "per_part": {"language": {"layers": "mlp"}}},
        {"keep": "connector:0:mlp"},
        {"rules": {"a": {"target": "language:first:mlp", "bits": 8}, "b": {"target": "vision", "bits": "none"}}},
        {"part": "language", "per_part": {"language": {"encoder": {"bits": 8}, "bits": 3}}},
        {"part": "language.encoder"},
        {"part": "vision+language.decoder", "keep": "language.decoder:3", "per_part": {"language": {"bits": 2}}},
    ],
)
@pytest.mark.parametrize("model", ["tiny", "blip2-flan-t5-xl"])
def test_both_spellings_are_one_recipe(model: str, said: dict[str, Any]) -> None:
    shape = model_anatomy(model)
    if "coder" in str(said) and model == "tiny":
        with pytest.raises(UserError, match=r"language.(en|de)coder|encoder: unknown option"):
            resolved(shape, **said)
        return
    role, own = resolved(shape, **said), resolved(shape, **in_own_names(said))
    assert role.hash == own.hash
    assert not role.empty
    assert recipe_columns(role, alike(10**9, 16)) == recipe_columns(own, alike(10**9, 16))
    assert {in_own_names(k) for k in role.used} == own.used


def test_a_recipe_file_takes_both_and_never_both_for_one_part(tmp_path: Path) -> None:
    def file(*targets: str) -> str:
        entries = [{"target": t, "method": "rtn", "bits": 4} for t in targets]
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({"targets": entries}))
        return str(tmp_path / "r.yaml")

    shape = model_anatomy("tiny")
    role = resolved(shape, recipe_file=file("vision:all:all", "language:0-2:mlp"))
    assert role.hash == resolved(shape, recipe_file=file("vit:all:all", "llm:0-2:mlp")).hash
    with pytest.raises(UserError, match=r"targets\[0\] and .*targets\[1\]: vision and vit are one part of model tiny"):
        resolved(shape, recipe_file=file("vision:all:all", "vit:0:mlp"))


def test_a_role_with_two_parts_means_both() -> None:
    shape = anatomy(two_language_parts())
    assert [p.name for p in shape.role("language")] == ["encoder", "decoder"]
    assert resolved(shape, part="language").hash == resolved(shape, part="encoder+decoder").hash
    role = resolved(shape, part="language", keep="language:0", per_part={"language": {"bits": 3}})
    own = resolved(shape, part="encoder+decoder", quant={"method": "rtn", "bits": 3}, blocks="1-23")
    assert role.hash == own.hash
    columns = recipe_columns(
        resolved(shape, part="encoder+decoder", per_part={"encoder": {"bits": 2}, "decoder": {"bits": 6}}),
        alike(10**9, 16),
    )
    weights = [sum(x.weights for x in shape.parts[p].linears) for p in ("encoder", "decoder")]
    mean = (2 * weights[0] + 6 * weights[1]) / sum(weights)
    assert (columns["bits_encoder"], columns["bits_decoder"]) == (2, 6)
    assert columns["bits_language"] == pytest.approx(mean, rel=1e-12)
    older = {k: v for k, v in columns.items() if k not in ("bits_vision", "bits_connector", "bits_language")}
    again = RoleColumns(Anatomies(lambda: {"mine": two_language_parts()}))({"model": "mine", **older})
    assert {**again, "bits_vision": 0, "bits_connector": 0} == {
        "model": "mine",
        **columns,
        "bits_vision": 0,
        "bits_connector": 0,
    }
    assert again["bits_vision"] is None


def test_a_role_that_is_lacking_says_so() -> None:
    shape = anatomy(without_connector())
    for said in ({"part": "connector"}, {"keep": "connector:0"}, {"per_part": {"connector": {"bits": 3}}}):
        with pytest.raises(
            MissingRole, match=r"tiny has no part of the role connector; its parts: vit \(vision\), llm"
        ):
            resolved(shape, **said)
    left_alone = resolved(shape, per_part={"connector": {"bits": "none"}})
    assert left_alone.hash == resolved(shape).hash
    assert "per_part.connector.bits" in left_alone.used
    assert "bits_connector" not in recipe_columns(left_alone, alike(10**6, 16))


def test_dtypes_by_role_are_those_by_name() -> None:
    shape, config = model_anatomy("tiny"), model_config("tiny")
    role, own = ({**config, "dtype_per_part": {k: "float16"}} for k in ("vision", "vit"))
    assert part_dtypes(role, shape) == part_dtypes(own, shape)
    assert stage_dtypes(role, shape) == stage_dtypes(own, shape) != stage_dtypes(config, shape)
    with pytest.raises(
        UserError, match=r"model.dtype_per_part.vison: model tiny has no part 'vison'; did you mean 'vision'"
    ):
        part_dtypes({**config, "dtype_per_part": {"vison": "float16"}}, shape)
    with pytest.raises(UserError, match=r"model.dtype_per_part.vision=fp16: unknown dtype"):
        part_dtypes({**config, "dtype_per_part": {"vision": "fp16"}}, shape)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda parts: parts["vit"].update(role="eyes"), "parts.vit.role=eyes; right: vision, connector, language"),
        (lambda parts: parts.update(language=parts.pop("vit")), "parts.language: is the name of a role, which llm has"),
    ],
)
def test_roles_of_a_model_file_are_held_to_the_three(change: Any, said: str) -> None:
    config = copy.deepcopy(model_config("tiny"))
    change(config["parts"])
    with pytest.raises(UserError) as caught:
        anatomy(config)
    assert said in str(caught.value)


def test_a_part_may_be_called_as_its_role() -> None:
    config = copy.deepcopy(model_config("tiny"))
    config["parts"]["language"] = config["parts"].pop("llm")
    columns = recipe_columns(resolved(anatomy(config), part="vit+language"), alike(10**6, 16))
    assert part_columns(columns, [columns["recipe"]]) == ["bits_vit", "bits_qformer", "bits_language"]
    assert columns["bits_language"] == 4


def test_costs_and_parts_know_nothing_of_the_columns_of_roles() -> None:
    columns = recipe_columns(resolved(model_anatomy("tiny"), part="vit+llm"), alike(10**6, 16))
    head = {"model": "tiny", "dtype": "float32", "data": "d", "samples": 3}
    older = {k: v for k, v in columns.items() if k not in ("bits_vision", "bits_connector", "bits_language")}
    assert similarity_names({**head, **columns}) == similarity_names({**head, **older})
    assert similarity_names({**head, **columns})[0] == "tiny float32 d 3 vit+llm [4.0, None, 4.0]"
    filled = RoleColumns(Anatomies(dict))({"model": "tiny", **older})
    assert filled == RoleColumns(Anatomies(dict))({"model": "tiny", **columns})
    assert {k: v for k, v in filled.items() if v is not None} == {
        "model": "tiny",
        **{k: v for k, v in columns.items() if v is not None},
    }
    at = list(filled).index("bits_llm")
    assert list(filled)[at : at + 4] == ["bits_llm", "bits_vision", "bits_connector", "bits_language"]
    assert filled["bits_connector"] is None
    unknown = RoleColumns(Anatomies(dict))({"model": "of nobody", **older})
    assert [unknown[f"bits_{r}"] for r in ROLES] == [None] * 3


def test_a_row_of_a_model_whose_part_is_called_as_its_role_gets_the_others() -> None:
    config = copy.deepcopy(model_config("tiny"))
    config["parts"]["language"] = config["parts"].pop("llm")
    columns = recipe_columns(resolved(anatomy(config), part="vit"), alike(10**6, 16))
    assert columns["bits_language"] is None
    older = {k: v for k, v in columns.items() if k != "bits_vision"}
    for row in (columns, older):
        filled = RoleColumns(Anatomies(lambda: {"mine": config}))({"model": "mine", **row})
        assert (filled["bits_vision"], filled["bits_connector"], filled["bits_language"]) == (4, None, None)
