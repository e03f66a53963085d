"""Roles on the command line: the same cells as names, one spelling a part, and what a model lacks is skipped."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.config.standalone import compose_cell
from blip2sweep.errors import MissingRole, UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.location import locate
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.results.ledger import Ledger
from tests.checkpoints import believe
from tests.composing import composer, jobs, plan, recipes
from tests.params import quick

ROLES = {"vision": "vit", "connector": "qformer", "language": "llm"}


def own(words: list[str]) -> list[str]:
    for role, name in ROLES.items():
        words = [w.replace(role, name) for w in words]
    return words


@pytest.mark.parametrize(
    "words",
    [
        ["part=vision,connector,language,vision+language", "quant.bits=3,4"],
        ["part=all", "per_part.vision.bits=3,none", "per_part.language.bits=4", "per_part.connector.bits=none"],
        ["part=language,vision", "blocks=each", "quant.bits=3"],
        ["part=all", "keep=vision:each,language:each,connector:2:mlp", "quant.bits=3"],
        ["part=language", "rules.a.target=language:all:fc2,language:first", "rules.a.bits=8", "quant.bits=2"],
        ["part=all", "model.dtype_per_part.vision=float16,bfloat16", "quant.bits=3"],
    ],
)
def test_both_spellings_are_the_same_cells(words: list[str]) -> None:
    role, name = plan(*words), plan(*own(words))
    assert role.keys == name.keys
    assert [c.identity for c in role.cells.values()] == [c.identity for c in name.cells.values()]
    assert not role.reasons


def test_each_block_keeps_the_word_that_was_typed() -> None:
    assert [j.overrides for j in jobs("part=vision", "blocks=each")][:2] == [
        ("part=vision", "blocks=0"),
        ("part=vision", "blocks=1"),
    ]
    assert [j.overrides[-1] for j in jobs("keep=language:each:mlp")][:2] == [
        "keep=language:0:mlp",
        "keep=language:1:mlp",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["part=vit,vision"], "part=vit and part=vision: vision and vit are one part of model tiny; right: one of the two words"),
        (["part=vit+vision"], "part=vit+vision: vision and vit are one"),
        (["part=vision", "per_part.vit.bits=3"], "part=vision and per_part.vit.bits=3: vision and vit are one"),
        (["part=all", "per_part.vision.bits=3,4", "per_part.vit.method=mse"], "per_part.vision.bits=3,4 and per_part.vit.method=mse"),
        (["part=language,qformer", "keep=llm:each,qformer:each"], "part=language and keep=llm:each"),
        (["keep=vision:0", "rules.a.target=vit:1", "rules.a.bits=8"], "keep=vision:0 and rules.a.target=vit:1"),
        (["part=connector", "model.dtype_per_part.qformer=float16"], "part=connector and model.dtype_per_part.qformer=float16"),
    ],
)  # fmt: skip
def test_a_name_and_a_role_of_one_part_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        jobs(*words, "quant.bits=3")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_names_and_roles_of_different_parts_may_stand_together() -> None:
    assert recipes("part=vision+llm", "per_part.llm.bits=3", "keep=vision:0") == [
        "vit:1-5:all=rtn4/channel; llm:all:all=rtn3/channel"
    ]


def test_one_cell_is_held_to_one_spelling_too() -> None:
    with pytest.raises(UserError, match=r"part=vit and keep=vision:0: vision and vit are one part"):
        compose_cell(["part=vit", "keep=vision:0"])


def test_a_study_speaks_in_roles_and_takes_both_words_beside_it() -> None:
    name, role = (recipes("+study=part_wise", f"rules.a.target={p}:0", "rules.a.bits=8") for p in ("llm", "language"))
    assert name == role
    for part in ("vit", "vision"):
        with pytest.raises(UserError, match=rf"per_part.{part}.bits=3: study=part_wise sets .* itself"):
            jobs("+study=part_wise", f"per_part.{part}.bits=3")


STUDIES = {
    "card": [["quant.bits=2,4,8", "part=vit,llm,qformer"]],
    "block_wise": [
        ["part=vit,qformer,llm", "blocks=each", "quant.bits=3"],
        ["part=all", "quant.bits=3", "keep=vit:each,qformer:each,llm:each"],
        ["part=all", "quant.bits=3"],
    ],
    "part_wise": [["part=all", "per_part.vit.bits=2,3,4,8,none", "per_part.qformer.bits=2,4,8,none", "per_part.llm.bits=2,3,4,8,none"]],
    "seed_grid": [
        [
            "quant=minmax", "quant.bits=16,8,6,5,4,3", "layers=mlp,attention+crossattention,all", f"part={parts},all",
            f"per_part.{part}.blocks=first,middle,last,first+middle,first+last,middle+last,all",
        ]
        for part, parts in (("vit", "vit,vit+qformer,vit+llm"), ("qformer", "qformer,vit+qformer,qformer+llm"), ("llm", "llm,vit+llm,qformer+llm"))
    ],
}  # fmt: skip


@pytest.mark.parametrize("study", quick(STUDIES))
def test_the_studies_are_the_cells_that_they_were(study: str) -> None:
    keys = [key for words in STUDIES[study] for key in plan(*words).keys]
    assert plan(f"+study={study}").keys == keys


# ---- a model that lacks a role


def without_connector(config: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    del changed["model"]["parts"]["qformer"]
    return changed


@pytest.fixture
def plan_without() -> Callable[..., Plan]:
    """A plan of a command's overrides for the tiny model, had it no connector."""
    config = without_connector(composer().config(()))["model"]
    believe(locate(config).folder, config)  # asking whether it loads takes a process of its own
    return _plan_without


def _plan_without(*words: str) -> Plan:
    return make_plan(
        [replace(j, config=without_connector(j.config)) for j in jobs(*words)], Ledger(Path("/no")).refresh()
    )


def test_a_role_that_is_lacking_is_skipped_with_the_reason(plan_without: Callable[..., Plan]) -> None:
    made = plan_without("part=vision,connector,language,all", "quant.bits=3,4")
    assert [i for i, key in enumerate(made.keys) if key is None] == list(made.reasons) != []
    assert {made.jobs[i].overrides[0] for i in made.reasons} == {"part=connector"}
    told = "part=connector: model tiny has no part of the role connector; its parts: vit (vision), llm (language)"
    assert set(made.reasons.values()) == {told}
    assert {c.columns()["part"] for c in made.cells.values()} == {"none", "vit", "llm", "all"}


def test_a_role_that_is_lacking_is_an_error_where_it_is_all(plan_without: Callable[..., Plan]) -> None:
    with pytest.raises(MissingRole, match="part=connector: model tiny has no part of the role connector"):
        plan_without("part=connector", "quant.bits=3,4")
    with pytest.raises(UserError, match=r"quant.bits=99"):  # nor does it hide what is wrong elsewhere
        plan_without("part=vision,connector", "quant.bits=99,3")
    with pytest.raises(UserError, match=r"quant.group_size=32: used by no cell"):
        plan_without("part=vision,connector", "quant.strategy=channel", "quant.group_size=32")


def test_the_widths_of_what_a_model_lacks_are_skipped_but_for_none(plan_without: Callable[..., Plan]) -> None:
    made = plan_without("+study=part_wise")
    assert len(made.cells) == 25
    assert len(made.reasons) == 75


class Lacking:
    """A composer whose model has no connector."""

    def __getattr__(self, name: str) -> Any:
        return getattr(composer(), name)

    def anatomy(self, job: Any) -> Anatomy:
        return anatomy(without_connector(composer().config(job))["model"])


def test_each_block_of_what_a_model_lacks_is_left_to_planning() -> None:
    from blip2sweep.config.grid import expand

    made = expand(["part=vision,connector", "blocks=each"], Lacking())
    assert made == [*(("part=vision", f"blocks={i}") for i in range(6)), ("part=connector", "blocks=each")]
    config = without_connector(composer().config(made[-1]))
    with pytest.raises(MissingRole):
        make_plan([PlannedJob(made[-1], config)], Ledger(Path("/no")).refresh())
