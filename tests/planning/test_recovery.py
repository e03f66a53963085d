"""Recovered cells as planned: what they are trained on, their keys, their control, sizes and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from blip2sweep.errors import UserError
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.costs import expected_seconds
from blip2sweep.planning.packs import make_packs
from blip2sweep.planning.plan import single_overrides
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand, targets
from blip2sweep.recipe.trained import control_of, recovery_of, training_name
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.tasks.training import MOST_DRAWN, batch, n_drawn, planned_training
from tests.composing import plan
from tests.results.test_scoring_process import jobs, run

LIMIT = "task.limit=8"


def cell(*words: str) -> Cell:
    """The cell of one job."""
    made = plan(LIMIT, *words)
    assert made.keys[0] is not None, made.reasons
    return made.cells[made.keys[0]]


def key(*words: str) -> str:
    return cell(*words).key


def refused(*words: str) -> str:
    with pytest.raises(UserError) as error:
        plan(LIMIT, *words)
    return str(error.value)


# ---- keys


SAME = [
    ("recover=lora quant.bits=none", "recover=lora part=none"),
    ("recover=lora quant.bits=none", "recover=lora quant.bits=none recover.rank=8 recover.alpha=16 recover.loss=task"),
    ("recover=lora quant.bits=none", "recover=lora quant.bits=none recover.target=qformer+llm:all:all"),
    ("recover=lora quant.bits=none", "recover=lora quant.bits=none recover.target=connector+language"),
    ("recover=lora quant.bits=none", "recover=lora quant.bits=none recover.n_samples=256 recover.split=train2014"),
    ("recover=lora quant=nf4", "recover=qlora quant=nf4"),
    ("recover=lora quant.bits=4", "recover=lora quant.bits=4 recover.merge=false"),
    ("recover=lora quant.bits=none", "recover=lora quant.bits=none recover.merge=true"),
]
OTHER = [
    *(f"recover.{told}" for told in (
        "rank=4", "alpha=8", "steps=100", "learning_rate=1e-3", "batch_size=16", "seed=1", "holdout=0.25", "loss=distill",
        "processes=2", "n_samples=64", "target=llm", "target=qformer+llm:all:attention", "merge=true", "method=full",
        "requantize=true",
    )),
    "calibration.n_samples=32 quant=gptq", "quant.bits=3", "drop_blocks=qformer:5", "dtype=bfloat16", "task=shapes_vqa",
    "generation.prompt=a",
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_thing_has_one_key(one: str, other: str) -> None:
    assert key(*one.split()) == key(*other.split())


@pytest.mark.thorough
def test_two_things_never_share_a_key() -> None:
    base = ("recover=lora", "quant.bits=4", "part=all")
    words = [other.replace("dtype=", "model.dtype=").split() for other in OTHER]
    keys = [key(*base), *(key(*base, *own) for own in words)]
    assert len(set(keys)) == len(keys)


def test_what_a_layer_is_trained_with_is_in_its_digest() -> None:
    """The features of a part are shared by cells whose entries there are equal, so these name the whole target."""
    both, alone = (cell("recover=lora", "part=none", f"recover.target={t}") for t in ("qformer+llm", "qformer"))
    digests = {recovery_of(c.recipe).trained_on for c in (both, alone)}  # type: ignore[union-attr]
    assert len(digests) == 2
    assert None not in digests


def test_the_teacher_is_one_more_loss_and_its_options_are_of_it_alone() -> None:
    spec = recovery_of(cell("recover=lora", "recover.loss=distill").recipe)
    assert spec is not None
    assert (spec.temperature, spec.distill_weight) == (2.0, 0.5)
    plain = recovery_of(cell("recover=full").recipe)
    assert plain is not None
    assert (plain.temperature, plain.distill_weight, plain.rank, plain.alpha, plain.merged) == (None,) * 5


# ---- what is trained


@pytest.mark.parametrize(
    ("words", "merged"),
    [("quant.bits=none", {True}), ("quant.bits=4", {False}), ("quant.bits=4 part=llm", {False, True}),
     ("quant.bits=4 recover.merge=true", {True}), ("quant.bits=4 recover.requantize=true", {True})],
)  # fmt: skip
def test_adapters_are_merged_where_nothing_else_is_done(words: str, merged: set[bool]) -> None:
    made = cell("recover=lora", *words.split()).recipe
    i = made.kinds.index("recover")
    assert {spec.merged for _, spec in made.step(i)} == merged  # type: ignore[attr-defined]


def test_merged_weights_are_quantized_again_where_they_are_trained() -> None:
    made = cell("recover=lora", "quant.bits=4", "recover.target=llm:0-1:mlp", "recover.requantize=true").recipe
    assert made.kinds == ("quantize", "recover", "quantize")
    assert [x.path for x, _ in made.step(2)] == [x.path for x, _ in made.step(1)]
    first = {site.path: spec for site, spec in made.step(0)}
    assert all(first[site.path] == spec for site, spec in made.step(2))
    assert len(list(made.touched())) == len(made.step(0))  # each layer once


@pytest.mark.parametrize(
    "words",
    ["recover=lora quant.bits=none", "recover=qlora quant=nf4", "recover=full quant.bits=4", "drop_blocks=llm:4-5 recover=lora",
     "recover=lora recover.requantize=true quant.bits=4", "recover=lora recover.loss=distill recover.target=llm:0:mlp"],
)  # fmt: skip
def test_rows_hold_the_whole_recipe(words: str) -> None:
    made = cell(*words.split())
    again = expand(json.loads(json.dumps(targets(made.recipe))), made.model.anatomy)
    assert again.hash == made.recipe.hash
    assert targets(again) == targets(made.recipe)


def test_sizes_count_adapters_as_they_are() -> None:
    """r (in + out) numbers of 32 bits beside codes; none where they are merged; 32 bits a weight where merged into codes."""
    lora = "recover=lora recover.target=llm"
    plain, beside, merged, again, alone = (
        cell("quant.bits=4", "part=llm", *words.split()).columns()["model_bytes"]
        for words in ("recover=none", lora, f"{lora} recover.merge=true", f"{lora} recover.requantize=true",
                      f"{lora} quant.bits=none")
    )  # fmt: skip
    made = cell("quant.bits=4", "part=llm", *lora.split())
    layers = [x for x, _ in made.recipe.touched()]
    assert beside - plain == sum(8 * (x.in_features + x.out_features) * 4 for x in layers)
    assert again == plain
    assert merged == alone == cell("part=none").columns()["model_bytes"]


# ---- the control


def test_every_recovered_cell_brings_its_control() -> None:
    made = plan(LIMIT, "drop_blocks=none,qformer:4-5,llm:4-5", "quant.bits=none,4", "recover=none,lora", "part=all")
    assert (len(made.cells), len(made.baselines), len(made.controls)) == (12, 1, 1)
    assert made.summary().startswith("12 cells (1 baseline, 1 control)")
    (control,) = (made.cells[k] for k in made.controls)
    assert control.key == key("recover=lora", "part=none")
    recovered = [c for c in made.cells.values() if "recovery" in c.job()]
    assert {c.job()["control"] for c in recovered} == {control.key}
    assert (len(recovered), control.job()["control"]) == (6, control.key)
    assert all("control" not in c.job() for c in made.cells.values() if c not in recovered)


@pytest.mark.parametrize(
    ("words", "control"),
    [("recover=qlora quant=nf4 part=all", "recover=lora"), ("recover=full quant.bits=4", "recover=full"),
     ("recover=lora recover.requantize=true quant.bits=3", "recover=lora"),
     ("recover=lora recover.target=llm:3-5:mlp drop_blocks=llm:4", "recover=lora recover.target=llm:3+5:mlp"),
     ("recover=lora recover.loss=distill recover.seed=3 keep=llm:0", "recover=lora recover.loss=distill recover.seed=3")],
)  # fmt: skip
def test_a_control_is_the_uncompressed_model_with_the_same_recovery(words: str, control: str) -> None:
    made = cell(*words.split())
    assert made.control is not None
    assert made.control.key == key("part=none", *control.split())
    assert made.control.control is not None
    assert made.control.control.key == made.control.key


def test_a_control_follows_from_the_recipe_alone() -> None:
    made = cell("recover=lora", "drop_blocks=qformer:1+llm:0-1", "quant.bits=4")
    again: Recipe = expand(targets(made.recipe), made.model.anatomy)
    assert control_of(again).hash == control_of(made.recipe).hash


def test_a_control_of_a_calibrated_cell_is_trained_on_the_same_samples() -> None:
    made = cell("recover=lora", "quant=gptq", "quant.bits=3", "calibration.n_samples=16")
    assert made.control is not None
    assert made.control.job()["recovery"] == made.job()["recovery"]
    assert len(made.job()["recovery"]["without"]) == 16
    assert made.control.key != key("recover=lora", "part=none")


def test_a_plan_says_which_cell_is_the_control(capsys: pytest.CaptureFixture[str]) -> None:
    from blip2sweep.commands.plan import describe

    describe(plan(LIMIT, "recover=lora", "quant.bits=4"))
    assert " control" in capsys.readouterr().out


# ---- the samples


def test_training_shares_no_image_with_what_is_measured_or_held_out() -> None:
    made = cell("recover=lora", "quant=gptq", "quant.bits=3", "calibration.n_samples=40", "task=shapes_vqa")
    training, measured = made.training, made.calibration
    assert training is not None
    assert measured is not None
    image = [s.image_id for s in training.data.samples]
    trained, held = ({image[row.sample] for row in rows} for rows in (training.rows, training.held_out_rows))
    assert not trained & held
    assert not (trained | held) & measured.data.images.keys()
    assert not (trained | held) & made.task.images.keys()
    assert len(held) == round(0.125 * len(trained | held))


def test_a_worker_chooses_the_same_samples_again() -> None:
    made = cell("recover=lora", "quant=gptq", "quant.bits=3", "calibration.n_samples=16", "recover.n_samples=50")
    section = json.loads(json.dumps(made.job()["recovery"]))
    again = planned_training(section)
    assert made.training is not None
    assert (again.rows, again.held_out_rows) == (made.training.rows, made.training.held_out_rows)
    assert again.identity == made.training.identity
    section["planned"]["samples"] = "0" * 64
    with pytest.raises(UserError, match="changed since the cell was planned"):
        planned_training(section)


def test_a_larger_draw_contains_the_smaller_one() -> None:
    small, large = (cell("recover=lora", "part=none", f"recover.n_samples={n}").training for n in (40, 80))
    assert small is not None
    assert large is not None
    assert large.data.samples[:40] == small.data.samples
    assert small.held_out_images < large.held_out_images


def test_cells_that_differ_in_steps_are_trained_on_one_set() -> None:
    words = ("recover.steps=2", "recover.steps=500", "recover.steps=2 recover.batch_size=8", "recover.loss=distill")
    made = [cell("recover=lora", "part=none", *w.split()) for w in words]
    assert len({m.key for m in made}) == len(words)
    assert len({m.columns()["recover_data"] for m in made}) == 1  # type: ignore[typeddict-item]
    assert {m.columns()["recover_samples"] for m in made} == {256}  # type: ignore[typeddict-item]


def test_a_large_split_is_not_drawn_whole() -> None:
    split = cell("recover=lora", "part=none").training.data  # type: ignore[union-attr]
    assert [n_drawn({}, split, left) for left in (100, 10**6)] == [100, MOST_DRAWN]
    assert n_drawn({"n_samples": 9000}, split, 10**6) == 9000


def test_batches_are_a_function_of_seed_and_step() -> None:
    rows, size = 10, 4
    read = [i for step in range(5) for i in batch(rows, size, 0, step)]
    assert sorted(read[:10]) == sorted(read[10:]) == list(range(10))
    assert read[:10] != read[10:]
    assert batch(rows, size, 0, 3) == read[12:16]
    assert batch(rows, size, 1, 0) != read[:4]
    assert len(batch(3, 8, 0, 0)) == 8  # rows come again within a batch


# ---- refused, one line each


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("recover=lora recover.target=llm:4-5 drop_blocks=llm:4-5", "drop_blocks drops"),
        ("recover=lora recover.rank=65", "recover.rank=65: 84 layers are narrower"),
        ("recover=lora task.train_split=null", "names no train_split; right: recover.split="),
        ("recover=lora recover.split=val2014", "recover.split=val2014: 8 of its images are evaluated"),
        ("recover=lora recover.n_samples=300", "recover.n_samples=300: shapes_caption has 256"),
        ("recover=lora quant=gptq quant.bits=3 calibration.n_samples=256", "no sample is left"),
        ("recover=lora recover.n_samples=1", "recover.holdout=0.125: holds out all 1 images"),
        ("recover=qlora quant.bits=4", "nf4 does not quantize"),
        ("recover=qlora quant=nf4 part=llm", "nf4 does not quantize 48 layers"),
        ("recover=lora recover.requantize=true quant=gptq quant.bits=3", "gptq measures"),
        ("recover=lora recover.requantize=true quant.bits=none", "recover.requantize=True: used by no cell"),
        ("recover=lora recover.requantize=true recover.merge=false", "cannot be quantized"),
        ("recover=lora recover.temperature=3", "recover.temperature=3: used by no cell"),
        ("recover=full recover.rank=4", "recover.rank=4: used by no cell"),
        ("recover.rank=4", "recover.rank=4: used by no cell"),
        ("recover=lora recover.batch_size=9 recover.processes=2", "a multiple of 2"),
        ("recover=lora recover.loss=kl", "recover.loss=kl: right: task or distill"),
        ("recover=lora recover.target=vit:7", "outside vit"),
        ("recover=lora recover.target=none", "no part"),
        ("recover=lora recover.target=llm:all:crossattention", "no layer 'crossattention'"),
        ("recover=lora quant.bits=4 quant.input.bits=8", "no gradient"),
        ("recover=lora quant=int8 quant.packed=cpu part=llm", "packed"),
        ("recover=lora task=shapes_retrieval model=tiny-itm", "no texts to learn"),
        ("recover.method=adapters", "recover.method=adapters: unknown method"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(words: str, told: str) -> None:
    found = refused(*words.split())
    assert told in found
    assert "\n" not in found


def test_all_mistakes_are_told_at_once() -> None:
    found = refused("recover=lora", "recover.steps=0", "recover.rank=0", "recover.holdout=0.9", "recover.seed=-1")
    for told in ("recover.steps=0", "recover.rank=0", "recover.holdout=0.9", "recover.seed=-1"):
        assert told in found


# ---- results


@pytest.mark.thorough
def test_rows_have_the_drop_against_both(tmp_path: Path) -> None:
    these: list[dict[str, Any]] = jobs("recover=none,lora", "quant.bits=none,4", "part=llm", "task=shapes_vqa")
    assert len(these) == 4
    assert run(these, tmp_path) == 0
    rows = collect(tmp_path).set_index("key")
    control = next(j["control"] for j in these if "control" in j)
    cell = next(j["key"] for j in these if j.get("control", j["key"]) != j["key"])
    for metric in ("vqa_accuracy", "nll"):
        sign = -1 if metric == "nll" else 1
        lost = sign * (rows.loc[control, metric] - rows.loc[cell, metric])
        assert rows.loc[cell, f"drop_control_{metric}"] == pytest.approx(lost)
        assert rows.loc[cell, f"control_{metric}"] == rows.loc[control, metric]
        low, high = (rows.loc[cell, f"drop_control_{metric}_{end}"] for end in ("low", "high"))
        assert low <= lost <= high
        assert rows.loc[control, f"drop_control_{metric}"] == 0
    assert rows.loc[cell, "control"] == control
    others = [j["key"] for j in these if "control" not in j]
    assert rows.loc[others, "drop_control_nll"].isna().all()
    lines = [json.loads(x) for p in (tmp_path / "journals").iterdir() for x in p.read_text().splitlines()]
    assert sum(x["event"] == "measured" for x in lines) == 4  # each once: whoever scored it, none was left to do
    again = collect(tmp_path).set_index("key")
    pd.testing.assert_frame_equal(rows, again)


# ---- packs


def test_what_cells_share_is_trained_in_one_pack_and_costs_once(tmp_path: Path) -> None:
    words = (
        "part=llm",
        "quant.bits=4,none",
        "recover=lora",
        "recover.merge=true,false",
        "recover.target=llm,qformer",
        LIMIT,
    )
    these = [c.job() for c in plan(*words).todo]
    names = {j["key"]: training_name(j["recipe"], j["columns"]) for j in these}
    assert len(set(names.values()) - {""}) == 4
    seconds = expected_seconds(these, Ledger(tmp_path))
    plain = min(seconds.values())
    for name in set(names.values()) - {""}:
        own = sorted(seconds[k] for k, n in names.items() if n == name)
        assert own[:-1] == pytest.approx([plain] * (len(own) - 1), rel=1e-4)
        assert own[-1] > 1.01 * plain
    packs = make_packs(these, 4, seconds)
    assert sum(map(len, packs)) == len(these)
    of_pack = [{names[j["key"]] for j in pack} - {""} for pack in packs]
    assert sum(map(len, of_pack)) == 4


def test_training_costs_what_it_took(tmp_path: Path) -> None:
    these = [c.job() for c in plan("part=llm", "quant.bits=4,3", "recover=lora", "recover.steps=50,100", LIMIT).todo]
    trained = [j for j in these if "recovery" in j]
    done = next(j for j in trained if _steps(j) == 50 and j["control"] != j["key"])
    journal = Journal(tmp_path)
    cost = {"seconds": 12.0, "seconds_trained": 10.0, "seconds_recover": 10.0, "recover_steps": 40}
    journal.write("result", key=done["key"], predictions=None, columns={**done["columns"], "baseline": ""}, cost=cost)
    journal.close()
    seconds = expected_seconds(these, Ledger(tmp_path).refresh())
    assert seconds[done["key"]] == 2.0
    assert {round(seconds[j["key"]], 6) for j in trained if _steps(j) == 100} == {22.0}
    for cache in ("memory", "off"):  # nothing was kept for this cell, so it is trained again
        assert expected_seconds(these, Ledger(tmp_path).refresh(), cache=cache)[done["key"]] == 12.0


def _steps(job: dict[str, Any]) -> int:
    return next(int(e["steps"]) for e in job["recipe"] if e.get("step") == "recover")


# ---- launchers of other packages


def test_a_launcher_of_others_gets_no_control_that_nobody_asked_for() -> None:
    """The job of a cell runs the control too, where nobody has (`run_one`)."""
    made = plan(LIMIT, "recover=lora", "recover.steps=2", "quant.bits=4")
    assert single_overrides(made) == [(LIMIT, "part=none"), (LIMIT, "recover=lora", "recover.steps=2", "quant.bits=4")]


# ---- recipe files


@pytest.mark.parametrize(
    "words", ["drop_blocks=llm:4 recover=lora quant.bits=4", "recover=lora recover.requantize=true quant.bits=4"]
)
def test_a_recipe_file_is_the_same_cell_with_the_same_control(words: str, tmp_path: Path) -> None:
    made = cell(*words.split(), "recover.n_samples=64")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"targets": targets(made.recipe)}))
    again = cell(f"recipe_file={tmp_path / 'mine.yaml'}", "recover.n_samples=64")
    assert again.key == made.key
    assert again.job()["control"] == made.job()["control"]


def test_layers_are_trained_together_so_by_the_same_options(tmp_path: Path) -> None:
    listed = [{"step": "recover", "target": f"{part}:all:all", "method": "lora", "rank": rank}
              for part, rank in (("qformer", 4), ("llm", 8))]  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"targets": listed}))
    assert "layers are trained in 2 ways" in refused(f"recipe_file={tmp_path / 'mine.yaml'}")


@pytest.mark.parametrize(
    ("words", "told"),
    [("recover=lora quant.bits=4", "lora r8 150 steps"), ("recover=lora quant.bits=none", "lora r8 150 steps"),
     ("recover=lora quant.bits=4 recover.merge=true", "lora r8 150 steps, off the grid"),
     ("recover=lora quant.bits=4 recover.requantize=true", "lora r8 150 steps, requantized"),
     ("recover=full quant.bits=4 recover.loss=distill", "full distill 150 steps, off the grid")],
)  # fmt: skip
def test_a_row_says_how_it_was_recovered(words: str, told: str) -> None:
    assert cell(*words.split()).columns()["recover"] == told  # type: ignore[typeddict-item]
