"""A part is what its blocks are: not what the config calls it, and not where it stands there."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.cell_builder import CellBuilder
from tests.checkpoints import conf, t5_config, tiny_config
from tests.command_line import blip2sweep
from tests.composing import jobs
from tests.params import quick

ORDERS = list(itertools.permutations(("vit", "qformer", "llm")))
OTHER_NAMES = {"vit": "eye", "qformer": "bridge", "llm": "tongue"}


def permuted(config: dict[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    return {**config, "parts": {part: config["parts"][part] for part in order}}


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "parts": {OTHER_NAMES[part]: spec for part, spec in config["parts"].items()}}


def cells(model: dict[str, Any], *words: str) -> list[Cell]:
    make = CellBuilder()
    return [make({**job.config, "model": model}) for job in jobs(*words, "task.limit=6", "generation.max_new_tokens=6")]


def told(cell: Cell) -> dict[str, Any]:
    return {k: v for k, v in cell.columns().items() if k != "model"}


SHARING = ["part=none,vit,qformer,llm,vit+llm", "quant.bits=2"]
CALIBRATED = ["part=all", "quant=gptq,awq", "quant.bits=2", "calibration.n_samples=8"]


@pytest.mark.parametrize("words", quick([SHARING, CALIBRATED, [*CALIBRATED, "calibration.upstream=model"]]))
def test_the_order_of_the_parts_decides_nothing(words: list[str]) -> None:
    first = cells(tiny_config(), *words)
    for order in ORDERS:
        again = cells(permuted(tiny_config(), order), *words)
        assert [c.key for c in again] == [c.key for c in first]
        assert [told(c) for c in again] == [told(c) for c in first]


@pytest.mark.parametrize(
    "words", quick([SHARING, ["part=none,all", "quant=gptq", *CALIBRATED[2:], "calibration.upstream=model"]])
)
def test_cells_that_share_work_give_the_same_texts_in_every_order(words: list[str]) -> None:
    expected = texts(cells(tiny_config(), *words), "off")
    assert len({tuple(t) for t in expected.values()}) > 1
    for order in (ORDERS[3], ORDERS[5]):
        assert texts(cells(permuted(tiny_config(), order), *words), "memory") == expected


def texts(chosen: list[Cell], cache: str) -> dict[str, list[str]]:
    runner, made = TorchBackend({"device": "cpu", "cache": cache}), [c.job() for c in chosen]
    runner.expect(made)
    return {job["key"]: runner(job).predictions.text for job in made}


@pytest.mark.thorough
def test_parts_of_other_names_are_the_same_model() -> None:
    words = ["part=all", "quant=awq", "quant.bits=2", "calibration.n_samples=8", "calibration.image_token_weight=2"]
    plain, other = cells(tiny_config(), *words)[0], cells(renamed(tiny_config()), *words)[0]
    assert (plain.key, plain.recipe.hash) == (other.key, other.recipe.hash)
    assert texts([plain], "memory") == texts([other], "memory")


def test_stacks_are_in_the_order_of_computation() -> None:
    config = copy.deepcopy(t5_config())
    config["parts"]["llm"]["stacks"] = dict(reversed(config["parts"]["llm"]["stacks"].items()))
    assert anatomy(config).parts == anatomy(t5_config()).parts


def test_a_part_may_hold_one_stack_of_a_stage() -> None:
    """T5's encoder and decoder as parts of their own, the later one first; the bridge named by no part."""
    config = copy.deepcopy(t5_config())
    llm = config["parts"].pop("llm")
    del config["parts"]["qformer"]
    for stack in ("decoder", "encoder"):
        layers = {
            kind: {n: e for n, e in entries.items() if stack in e.get("stacks", [stack])}
            for kind, entries in llm["layers"].items()
        }
        config["parts"][stack] = {
            "stacks": {stack: llm["stacks"][stack]},
            "layers": {k: v for k, v in layers.items() if v},
        }
    found = anatomy(config)
    assert list(found.parts) == ["vit", "encoder", "decoder"]
    assert [p.stage for p in found.parts.values()] == ["vision", "language", "language"]


def wrong(**parts: Any) -> dict[str, Any]:
    config = copy.deepcopy(conf("model/tiny"))
    config["parts"] |= parts
    return config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**conf("model/tiny"), "family": "gpt"}, "model.family=gpt: unknown; right: one of opt, t5|model.family=gpt"),
        (wrong(vit={"stacks": {"blocks": {"path": "vision.blocks", "blocks": 6}}, "layers": {}}), "vision.blocks is no list"),
        (wrong(vit={"stacks": {}, "layers": {}}), "parts.vit has no stacks"),
        (wrong(eye=conf("model/tiny")["parts"]["vit"]), "is the same list of blocks as parts.vit.stacks.blocks"),
        (wrong(none={"stacks": {}, "layers": {}}), "parts.none: no name for a part"),
        (wrong(**{"a+b": {"stacks": {}, "layers": {}}}), "parts.a+b: no name for a part"),
        (
            wrong(qformer={"stacks": {
                "a": {"path": "qformer.encoder.layer", "blocks": 6},
                "b": {"path": "language_model.model.decoder.layers", "blocks": 6},
            }, "layers": {}}),
            "has blocks in the stages bridge and language",
        ),
    ],
)  # fmt: skip
def test_parts_that_are_no_pieces_of_the_architecture_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        anatomy(config)
    assert any(words in str(caught.value) for words in said.split("|"))


@pytest.mark.thorough
def test_a_users_model_with_other_names_runs(tmp_path: Path) -> None:
    config = renamed(permuted(tiny_config(), ("llm", "vit", "qformer")))
    (tmp_path / "site" / "model").mkdir(parents=True)
    (tmp_path / "site" / "model" / "mine.yaml").write_text(yaml.safe_dump({**config, "name": "mine"}, sort_keys=False))
    words = ["--config-dir", "site", "-m", "model=mine", "task.limit=6", "part=eye,tongue,all", "quant.bits=3"]
    ran = blip2sweep(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    assert "tongue" in ran.out
    refused = blip2sweep("--config-dir", "site", "model=mine", "part=vit", cwd=tmp_path)
    assert refused.code == 2
    assert "no part 'vit'" in refused.err


# ---- what a method reads of the anatomy


def with_folds(part: str, change: Any) -> dict[str, Any]:
    config = copy.deepcopy(tiny_config())
    config["parts"][part]["folds"] = change(config["parts"][part]["folds"])
    return config


AWQ = ["quant=awq", "quant.bits=3", "calibration.n_samples=8"]


def key(model: dict[str, Any], *words: str) -> str:
    return cells(model, *words)[0].key


def test_folds_are_part_of_what_awq_is() -> None:
    less = with_folds("llm", lambda folds: folds[1:])
    judged = with_folds("llm", lambda folds: [{k: v for k, v in f.items() if k != "output_of"} for f in folds])
    for changed in (less, judged):
        assert key(changed, "part=llm", *AWQ) != key(tiny_config(), "part=llm", *AWQ)
        assert key(changed, "part=llm", "quant=gptq", *AWQ[1:]) == key(
            tiny_config(), "part=llm", "quant=gptq", *AWQ[1:]
        )


def test_folds_that_the_cell_does_not_read_are_no_part_of_it() -> None:
    turned = with_folds("llm", lambda folds: folds[::-1])
    assert key(turned, "part=llm", *AWQ) == key(tiny_config(), "part=llm", *AWQ)
    elsewhere = with_folds("vit", lambda folds: folds[:1])
    assert key(elsewhere, "part=llm", *AWQ) == key(tiny_config(), "part=llm", *AWQ)
    of_attention = with_folds("llm", lambda folds: folds[1:])
    assert key(of_attention, "part=llm", "layers=mlp", *AWQ) == key(tiny_config(), "part=llm", "layers=mlp", *AWQ)


@pytest.mark.thorough
def test_folds_decide_which_finished_blocks_are_taken() -> None:
    """One store, two anatomies: the second is not given what the first made."""
    less = with_folds("llm", lambda folds: [])
    alone, after = (
        texts([cells(m, "part=llm", *AWQ)[0] for m in models], "memory") for models in ([less], [tiny_config(), less])
    )
    assert after[key(less, "part=llm", *AWQ)] == alone[key(less, "part=llm", *AWQ)]


# ---- one thing, one key


@pytest.mark.parametrize(
    "words",
    [
        ["quant=gptq", "quant.block_size=256,1000", "part=qformer"],
        ["quant=gptq", "quant.block_size=64,1000", "layers=fc1", "part=llm"],
        ["quant=gptq", "quant.strategy=group", "quant.group_size=48", "quant.static_groups=false", "quant.block_size=50,96", "layers=fc2", "part=llm"],
        ["quant=rtn,mse", "+quant.grid=1"],
        ["quant=rtn,awq,awq_prescale", "+quant.grid=1", "+quant.clip=false"],
        ["quant=awq", "quant.clip=true,false", "part=llm", "layers=q_proj+k_proj"],
        ["quant=awq,rtn", "part=qformer", "layers=query+key", "+quant.grid=10"],
        ["quant=awq", "quant.grid=10,20", "part=qformer", "layers=mlp"],
    ],
)  # fmt: skip
def test_knobs_that_change_nothing_make_no_cells(words: list[str]) -> None:
    spelled = [w.replace("+quant.grid", "quant.grid").replace("+quant.clip", "quant.clip") for w in words]
    found = cells(tiny_config(), *(["part=llm"] if not any("part=" in w for w in words) else []), *spelled)
    assert len(found) > 1
    assert len({c.key for c in found}) == 1


def test_biases_that_are_not_there_cannot_be_quantized() -> None:
    model = {**t5_config(), "path": tiny_config()["path"]}
    both = [anatomy(model).parts["llm"].linears[0], anatomy(tiny_config()).parts["llm"].linears[0]]
    assert [x.bias for x in both] == [False, True]
    schemes = [{"method": "minmax", "bits": 4, "quantize_bias": q} for q in (True, False)]
    from tests.checkpoints import recipe

    without = {recipe(anatomy(model), "llm", **s).hash for s in schemes}
    having = {recipe(anatomy(tiny_config()), "llm", **s).hash for s in schemes}
    assert (len(without), len(having)) == (1, 2)


def test_mse_of_one_candidate_is_recorded_as_what_it_is() -> None:
    found = cells(tiny_config(), "quant=mse", "quant.grid=1", "part=vit")[0]
    assert found.columns()["method"] == "rtn"
    assert "quant.norm" not in found.used
    assert "quant.grid" in found.used


# ---- a model config that is not what it should be


def edited(change: Any) -> dict[str, Any]:
    config = copy.deepcopy(tiny_config())
    change(config["parts"]["llm"])
    return config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part: part.update(stacks=None), "parts.llm lacks stacks or layers"),
        (lambda part: part["stacks"]["blocks"].pop("path"), "parts.llm.stacks.blocks lacks path"),
        (lambda part: part["stacks"]["blocks"].update(blocks="text_config.nope"), "text_config.nope is None"),
        (lambda part: part["stacks"].update({"a:b": part["stacks"].pop("blocks")}), "a:b: no name for a stack"),
        (lambda part: part["layers"].update(feed={}), "parts.llm.layers.feed"),
        (lambda part: part["layers"]["mlp"]["fc1"].update(shape=[64]), "fc1.shape=[64]; right"),
        (lambda part: part["layers"]["mlp"]["fc1"].update(shpe=1), "fc1.shpe: unknown"),
        (lambda part: part["folds"].append({"before": "fc1", "into": "fc2"}), "into=fc2; right: a list"),
        (lambda part: part["folds"].append({"before": "fc1", "into": ["fc9"]}), "into names fc9, which is not there"),
        (lambda part: part["folds"][0].update(stacks=["decodr"]), "folds[0].stacks names decodr"),
        (lambda part: part["folds"][0].update(outputof="x"), "folds[0].outputof: unknown"),
        (lambda part: part["folds"][0].pop("before"), "folds[0] lacks before"),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_read_are_one_line(change: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        anatomy(edited(change))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_is_nothing_and_parts_that_are_none() -> None:
    for parts in (None, {}, {"vit": None}, {"vit": 3}):
        with pytest.raises(UserError):
            anatomy({**tiny_config(), "parts": parts})


def test_rows_say_what_was_asked_for() -> None:
    """What an identity says once is no reason for two entries of one setting."""
    for words in (["quant=awq", "quant.clip=false"], ["quant=gptq", "quant.block_size=512"], ["quant=minmax"]):
        recipe = cells(tiny_config(), "part=llm", "quant.bits=4", *words)[0].columns()["recipe"]
        assert recipe.startswith("llm:all:all=")
        assert ";" not in recipe
