"""The config language: what overrides mean, and that one meaning has one key."""

from __future__ import annotations

import pytest

from blip2sweep.config.overrides import normalise, parse
from blip2sweep.errors import UserError
from tests.composing import jobs, plan, recipes


def test_the_card() -> None:
    made = plan("quant.bits=2,4,8", "part=vit,llm,qformer")
    assert len(made.jobs) == 9
    assert len(made.cells) == 10
    assert next(iter(made.cells)) == made.baselines[0]
    assert [j.overrides for j in made.jobs][:2] == [("quant.bits=2", "part=vit"), ("quant.bits=2", "part=llm")]


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["part=none"], "none"),
        (["quant.bits=none"], "none"),
        (["quant.bits=16"], "none"),
        (["quant=none"], "none"),
        (["quant=minmax", "quant.bits=16", "part=vit"], "vit:all:all=minmax16/tensor"),
        (["part=vit+llm", "blocks=first"], "vit:first:all=rtn4/channel; llm:first:all=rtn4/channel"),
        (["part=vit", "blocks=0-1"], "vit:first:all=rtn4/channel"),
        (["part=vit", "blocks=0-2+4"], "vit:0-2+4:all=rtn4/channel"),
        (["part=llm", "layers=fc2"], "llm:all:fc2=rtn4/channel"),
        (["part=llm", "layers=attention+fc1"], "llm:all:attention+fc1=rtn4/channel"),
        (["part=qformer", "layers=crossattention"], "qformer:all:crossattention=rtn4/channel"),
        (["part=vit", "quant.strategy=tensor", "quant.symmetric=true"], "vit:all:all=rtn4/tensor/sym"),
        (
            ["part=vit", "quant.strategy=group", "quant.group_size=64"],
            "vit:all:attention+fc1=rtn4/channel; vit:all:fc2=rtn4/group64",
        ),
        (["part=all", "per_part.vit.bits=8", "per_part.llm.bits=none"], "vit:all:all=rtn8/channel; qformer:all:all=rtn4/channel"),
        (["part=vit", "per_part.vit.method=minmax"], "vit:all:all=minmax4/tensor"),
        (["part=vit+llm", "per_part.vit.blocks=first"], "vit:first:all=rtn4/channel; llm:all:all=rtn4/channel"),
        (["part=vit", "keep=vit:0"], "vit:1-5:all=rtn4/channel"),
        (["part=vit", "keep=vit:all:mlp"], "vit:all:attention=rtn4/channel"),
        (
            ["part=llm", "quant.bits=3", "rules.a.target=llm:all:mlp", "rules.a.bits=4", "rules.b.target=llm:all:fc2", "rules.b.bits=8"],
            "llm:all:attention=rtn3/channel; llm:all:fc1=rtn4/channel; llm:all:fc2=rtn8/channel",
        ),
    ],
)  # fmt: skip
def test_what_overrides_mean(words: list[str], recipe: str) -> None:
    assert recipes(*words) == [recipe]


def test_rules_keep_the_order_written() -> None:
    a, b = ["rules.a.target=llm:all:mlp", "rules.a.bits=4"], ["rules.b.target=llm:all:fc2", "rules.b.bits=8"]
    assert recipes("part=llm", *a, *b) == ["llm:all:attention+fc1=rtn4/channel; llm:all:fc2=rtn8/channel"]
    with pytest.raises(UserError, match=r"rules\.b\.bits=8: used by no cell"):
        plan("part=llm", *b, *a)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["part=vit+qformer+llm"], ["part=all"]),
        (["part=vit", "blocks=first"], ["part=vit", "blocks=0+1"]),
        (["part=vit", "blocks=first+middle+last"], ["part=vit"]),
        (["part=vit", "layers=attention+mlp"], ["part=vit", "layers=all"]),
        (["part=vit", "quant.strategy=channel"], ["part=vit"]),
        (["part=vit", "layers=qkv", "quant.strategy=group", "quant.group_size=64"], ["part=vit", "layers=qkv"]),
        (["part=all", "per_part.llm.bits=none"], ["part=vit+qformer"]),
        (["part=vit", "batch_size=7"], ["part=vit"]),
        (["part=vit", "output_dir=elsewhere"], ["part=vit"]),
    ],
)
def test_two_configs_that_mean_the_same_are_one_cell(one: list[str], other: list[str]) -> None:
    assert plan(*one).keys == plan(*other).keys


@pytest.mark.parametrize(
    "words",
    [
        ["quant.bits=3"], ["quant.symmetric=true"], ["quant.strategy=tensor"], ["model.dtype=bfloat16"],
        ["model.dtype_per_part.vit=float16"], ["task.limit=7"], ["task=shapes_vqa"], ["generation.max_new_tokens=5"],
        ["generation.prompt=a photo of"], ["generation=paper"], ["task.nll_references=2"],
    ],
)  # fmt: skip
def test_what_changes_predictions_changes_the_key(words: list[str]) -> None:
    assert plan("part=vit", *words).keys != plan("part=vit").keys


def test_no_option_counts_where_nothing_is_quantized() -> None:
    assert recipes("quant=none,rtn", "quant.bits=3,4", "part=vit") == [
        "none",
        "none",
        "vit:all:all=rtn3/channel",
        "vit:all:all=rtn4/channel",
    ]


def test_each_is_one_cell_per_block() -> None:
    found = recipes("part=vit,llm", "blocks=each", "quant.bits=3")
    assert len(found) == 12
    assert found[3] == "vit:3:all=rtn3/channel"
    assert recipes("part=vit+llm", "blocks=each", "quant.bits=3") == found


def test_keep_each_leaves_one_block_out() -> None:
    found = recipes("part=all", "keep=vit:each,llm:each")
    assert len(found) == 12
    assert found[0].startswith("vit:1-5:all=rtn4/channel; qformer:all:all")


def test_a_grid_with_values_that_fit_only_some_cells() -> None:
    made = plan("part=vit", "quant.strategy=channel,group", "quant.group_size=32,128")
    assert len(set(made.keys)) == 3  # channel once, whatever the group size
    assert made.merged == 1
    skipped = plan("part=vit,qformer", "layers=mlp,crossattention")
    assert skipped.keys.count(None) == 1
    assert "vit of tiny has no layer 'crossattention'" in skipped.reasons[1]
    with pytest.raises(UserError, match=r"quant\.bits=9"):
        plan("part=vit", "quant.bits=4,9")


def test_a_width_of_one_method_only_is_skipped_for_the_other() -> None:
    made = plan("part=vit", "quant=rtn,minmax", "quant.bits=16,4")
    assert recipes("part=vit", "quant=rtn,minmax", "quant.bits=16,4")[0] == "none"
    assert len(made.cells) == 4


@pytest.mark.thorough
def test_studies_are_unions_and_part_of_the_language() -> None:
    assert len(plan("study=card").cells) == 10
    assert len(plan("study=part_wise").cells) == 100  # 5 × 4 × 5, the untouched one being the baseline
    blocks = plan("study=block_wise")
    assert len(blocks.jobs) == 37
    seed = plan("study=seed_grid")
    # 6 widths × 3 layer kinds × (7 subsets of thirds × 4 unions × 3 parts, the whole ones counted once) and a baseline
    assert len(seed.cells) == 6 * 3 * (3 * 6 * 4 + 7) + 1
    assert seed.merged == 6 * 3 * (3 * 7 * 4) - 6 * 3 * (3 * 6 * 4 + 7)
    assert not seed.reasons


@pytest.mark.thorough
def test_the_study_of_pruning_is_sets_and_a_recovery_and_its_twin_has_the_same_shares() -> None:
    real, tiny = jobs("study=rsicd_pruning"), jobs("study=shapes_pruning")
    assert {(j.config["model"]["name"], j.config["task"]["name"]) for j in real} == {
        ("blip2-opt-2.7b", "rsicd_caption")
    }
    assert [j.config["drop_blocks"] for j in real] == [
        "connector:6-11", "connector:8-11", "language:28-31", *["connector:8-11+language:28-31"] * 2
    ]  # fmt: skip
    assert [j.config["recover"]["method"] for j in real] == [j.config["recover"]["method"] for j in tiny]
    assert real[-1].config["recover"]["target"] == tiny[-1].config["recover"]["target"] == "language:all:attention"
    made = plan("study=shapes_pruning")
    assert len(made.cells) == 7  # a baseline and a control among them
    assert [made.cells[k].columns().get("blocks_dropped") for k in made.keys if k][:4] == [
        "qformer:3-5", "qformer:4-5", "llm:5", "qformer:4-5 llm:5"
    ]  # fmt: skip


@pytest.mark.thorough
def test_the_study_of_blip_on_openvino_is_the_guides_two_models() -> None:
    found = jobs("study=blip_openvino")
    assert [(j.config["model"]["name"], j.config["task"]["name"]) for j in found] == [
        ("blip-vqa-base", "vqav2"), ("blip-image-captioning-base", "coco_caption")
    ]  # fmt: skip
    for job in found:
        assert job.config["backend"]["name"] == "openvino"
        assert (job.config["quant"]["method"], job.config["calibration"]["n_samples"]) == ("nncf_ptq", 300)
        decoder = job.config["rules"].get("decoder") or job.config["per_part"]["language"]
        assert decoder["method"] == "nncf_int8_asym"


def test_a_study_takes_model_and_task_from_the_command() -> None:
    assert {j.config["task"]["name"] for j in jobs("study=card", "task=shapes_vqa")} == {"shapes_vqa"}


def test_swept_models_and_tasks_get_a_baseline_each() -> None:
    assert len(plan("part=vit", "task=shapes_caption,shapes_vqa", "model.dtype=float32,bfloat16").baselines) == 4


def test_every_key_of_a_recipe_is_marked_used() -> None:
    cell = next(c for c in plan("part=llm", "quant.bits=3", "keep=llm:0").cells.values() if not c.recipe.empty)
    assert {"part", "quant.bits", "keep"} <= cell.used
    assert "quant.group_size" not in cell.used


@pytest.mark.parametrize("words", ["quant.bits=none drop_blocks=llm:4-5", "sparsity=magnitude quant.bits=none per_part.llm.sparsity.method=none"])  # fmt: skip
def test_keep_of_what_is_left_alone_anyway_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"keep=llm.*:0: used by no cell, so it would be ignored"):
        plan("part=qformer+llm", "keep=llm:0", *words.split())
    assert len(plan("part=llm", "keep=llm:0", "quant.bits=none,4").keys) == 2  # one cell of the grid uses it
    plan("part=llm", "keep=llm:0", "sparsity=magnitude", "quant.bits=none")


def test_a_recipe_file_says_the_same_as_overrides(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "targets:\n- {target: 'vit:all:all', method: rtn, bits: 4}\n- {target: 'llm:first:mlp', method: rtn, bits: 8}\n"
    )
    assert recipes(f"recipe_file={path}") == ["vit:all:all=rtn4/channel; llm:first:mlp=rtn8/channel"]
    with pytest.raises(UserError, match="used by no cell"):
        plan(f"recipe_file={path}", "quant.bits=3")
    with pytest.raises(UserError, match="part=llm: used by no cell"):
        plan(f"recipe_file={path}", "part=llm")
    path.write_text("target: []")
    with pytest.raises(UserError, match="no list `targets`"):
        plan(f"recipe_file={path}")


@pytest.mark.parametrize("prompt", ["{}", "Question: {} Answer:"])
def test_the_place_of_a_question_needs_no_second_quotes(prompt: str) -> None:
    """As a shell leaves generation.prompt='{}', which Hydra alone reads as an empty dict."""
    (found,) = parse([normalise(f"generation.prompt={prompt}")])
    assert found.value() == prompt
