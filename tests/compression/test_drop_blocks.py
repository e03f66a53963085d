"""Blocks that are left out, as planning sees them: words, numbers, keys, what later steps meet, and sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2sweep.compression.drop_blocks import numbers
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.block_params import block_params
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.part import Part, Stack
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.recipe.chain import block_entries
from blip2sweep.recipe.columns import recipe_columns
from blip2sweep.recipe.compact import expand, targets, text
from blip2sweep.recipe.size import alike, size
from tests.checkpoints import build_meta, conf, fails, t5_config, tiny_config
from tests.command_line import blip2sweep, refused
from tests.composing import jobs, plan, recipes
from tests.image_text import small_config
from tests.params import quick

ANATOMY, T5, LLAVA = (anatomy(section) for section in (tiny_config(), t5_config(), small_config("llava-1.5-7b")))


def recipe(drop: str | None, own: Anatomy = ANATOMY, bits: Any = "none", **config: Any) -> Recipe:
    plain = {"part": "all", "blocks": "all", "layers": "all", "quant": {"method": "rtn", "bits": bits}}
    return resolve_recipe({**plain, "drop_blocks": drop, **config}, own)


def listed(text: str, own: Anatomy = ANATOMY, **more: Any) -> dict[str, list[int]]:
    return {part: sorted(blocks) for part, blocks in numbers(text, own, **more).items()}


# ---- words


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("vit:2", {"vit": [2]}),
        ("vision:2-4", {"vit": [2, 3, 4]}),
        ("vit:0-1+3+llm:5", {"vit": [0, 1, 3], "llm": [5]}),
        ("llm:5+vit:3+vit:0-1", {"vit": [0, 1, 3], "llm": [5]}),
        ("vit:first+last", {"vit": [0, 1, 4, 5]}),
        ("vit:2@first+5", {"vit": [0, 1, 5]}),
        ("vit:2@last+llm:1@middle", {"vit": [4, 5], "llm": [2]}),
        ("qformer:3@middle", {"qformer": [1, 2, 3]}),
    ],
)
def test_what_words_mean(words: str, found: dict[str, list[int]]) -> None:
    assert listed(words) == found


def test_a_part_of_two_stacks_drops_from_each_and_a_stack_counts_from_0() -> None:
    assert listed("language:1@last", T5) == {"llm": [1, 3]}
    assert listed("llm.decoder:0", T5) == listed("llm.decoder:1@first", T5) == {"llm": [2]}
    with fails("drops all 2 blocks of llm.decoder;"):
        numbers("llm:1-3", T5)


def test_influence_is_asked_for_each_stack() -> None:
    def order_of(part: Part, stack: Stack) -> list[int]:
        return [stack.first + i for i in (1, 0)]

    assert listed("llm:1@influence+vit:0", T5, order_of=order_of) == {"vit": [0], "llm": [1, 3]}
    with fails("influence is measured when a sweep is planned"):
        numbers("llm:1@influence", T5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("2", ("'2' names no blocks of a part",)),
        ("vit", ("'vit' names no blocks",)),
        ("vit:", ("'vit:' names no blocks",)),
        (":2", ("':2' names no blocks",)),
        ("vit:1++2", ("'' names no blocks",)),
        ("vit:1:mlp", ("'vit:1:mlp' names no blocks",)),
        ("all:1", ("'all:1' names no blocks",)),
        ("vit:6", ("'6' is outside vit, whose blocks are 0-5",)),
        ("vit:3-1", ("'3-1' is outside vit",)),
        ("vt:1", ("no part 'vt'", "did you mean 'vit'")),
        ("vit:2@lats", ("'lats' is no order of blocks", "did you mean 'last'")),
        ("vit:6@last", ("'6' of 6 blocks", "from 1 to 5")),
        ("vit:0@last", ("'0' of 6 blocks",)),
        ("vit:@last", ("'' of 6 blocks",)),
        ("vit:all", ("drops all 6 blocks of vit", "at least one")),
        ("vit:0-2+3-5+llm:all", ("all 6 blocks of vit and all 6 blocks of llm",)),
        ("vit:5@first+5", ("drops all 6 blocks of vit",)),
        ("vit:2+each", ("one cell per block",)),
    ],
)
def test_words_that_mean_nothing(words: str, told: tuple[str, ...]) -> None:
    with fails(f"drop_blocks={words}: ", *told):
        numbers(words, ANATOMY)


SETS = st.dictionaries(
    st.sampled_from(["vit", "qformer", "llm"]), st.sets(st.integers(0, 5), min_size=1, max_size=5), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_one_set_of_blocks_is_one_thing_however_it_is_written(blocks: dict[str, set[int]], random: Any) -> None:
    pieces = [f"{part}:{i}" for part, own in blocks.items() for i in own]
    random.shuffle(pieces)
    made, again = recipe("+".join(pieces), bits=4), recipe("+".join([*pieces, pieces[0]]), bits=4)
    assert {n: set(p.dropped) for n, p in made.parts.items() if p.dropped} == blocks
    assert made.hash == again.hash
    dropped = recipe_columns(made, alike(10**6, 16))["blocks_dropped"]
    assert recipe(str(dropped).replace(" ", "+"), bits=4).hash == made.hash  # the column is a text of the option


@settings(max_examples=60, deadline=None)
@given(SETS, st.sampled_from(["all", "attention", "fc1"]), st.sampled_from([None, "llm:0"]))
def test_the_short_form_means_the_same(blocks: dict[str, set[int]], layers: str, keep: str | None) -> None:
    dropped = "+".join(f"{part}:{i}" for part, own in blocks.items() for i in own)
    if keep and 0 in blocks.get("llm", ()):
        keep = None
    made = recipe(dropped, bits=4, layers=layers, part="vit+llm", keep=keep)
    short = json.loads(json.dumps(targets(made)))
    assert expand(short, ANATOMY).hash == made.hash
    assert targets(expand(short, ANATOMY)) == short


# ---- what the other steps meet


def test_nothing_of_a_dropped_block_is_quantized() -> None:
    made = recipe("vit:4-5+qformer:0", bits=4)
    assert made.kinds == ("drop_blocks", "quantize")
    assert not [p for p in made.schemes if p.startswith(("vision_model.encoder.layers.4.", "qformer.encoder.layer.0."))]
    assert text(targets(made)) == (
        "vit:4-5=dropped; qformer:0=dropped; vit:all:all=rtn4/channel; qformer:all:all=rtn4/channel; "
        "llm:all:all=rtn4/channel"
    )
    columns = recipe_columns(made, alike(10**6, 16))
    assert (columns["blocks"], columns["layers"], columns["part"]) == ("all", "all", "all")
    assert columns["blocks_dropped"] == "vit:4-5 qformer:0"


def test_rows_of_other_recipes_have_no_such_columns() -> None:
    columns = recipe_columns(recipe(None, bits=4), alike(10**6, 16))
    assert not {"blocks_dropped", "sparsity", "recover", "merged"} & columns.keys()


def test_numbers_stay_those_of_the_original() -> None:
    kept = recipe("vit:0", bits=4, part="vit", keep="vit:1")
    assert kept.hash == recipe("vit:0", bits=4, part="vit", blocks="2-5").hash
    assert recipe("vit:0", bits=4, part="vit", blocks="first").schemes.keys() == {
        p for p in recipe(None, bits=4, part="vit").schemes if ".layers.1." in p
    }


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"part": "vit", "blocks": "4"}, "part=vit blocks=4 layers=all: drop_blocks drops all of them"),
        ({"keep": "vit:last"}, "keep=vit:last: drop_blocks drops all of them"),
        ({"rules": {"a": {"target": "vision:5", "bits": 8}}}, "rules.a.target=vision:5: drop_blocks drops all of them"),
        ({"per_part": {"vit": {"blocks": "4-5"}}}, "drop_blocks drops all of them"),
        ({"steps": {"drop_blocks": {"target": "vit:1"}}}, "steps.drop_blocks: a built-in step has no options here"),
        ({"steps": {"sparsity": {"ratio": 0.5}}}, "right: sparsity=magnitude and sparsity.<option>"),
        ({"steps": {"recover": {"rank": 4}}}, "right: recover=lora and recover.<option>"),
    ],
)
def test_a_target_in_dropped_blocks_is_refused(config: dict[str, Any], told: str) -> None:
    with fails(told):
        recipe("vit:4-5", bits=4, **config)


def test_layers_that_only_dropped_blocks_had() -> None:
    with fails("has no layer 'crossattention' in the blocks that drop_blocks leaves"):
        recipe("qformer:0+2+4", bits=4, part="qformer", layers="crossattention")


def test_keys() -> None:
    assert recipe(None).hash == recipe("none").hash
    assert recipe("none").kinds == recipe(None).kinds
    hashes = {recipe(d, bits=b).hash for d in (None, "vit:1", "vit:2", "llm:1") for b in ("none", 4)}
    assert len(hashes) == 8


def test_blocks_before_the_first_dropped_one_are_shared() -> None:
    plain, dropped = (block_entries(recipe(d, bits=4).parts["vit"]) for d in (None, "vit:3"))
    assert [a == b for a, b in zip(plain, dropped, strict=True)] == [True] * 3 + [False] + [True] * 2


def test_a_block_that_nothing_reads_may_be_dropped_and_changes_no_output() -> None:
    name = LLAVA.role("vision")[0].name
    last = LLAVA.parts[name].n_blocks
    made = recipe(f"vision:{last}", LLAVA)
    assert made.hash != recipe(None, LLAVA).hash
    assert set(block_entries(made.parts[name])) == {""}
    assert expand(targets(made), LLAVA).hash == made.hash
    with fails(f"whose blocks are 0-{last}"):
        recipe(f"vision:{last + 1}", LLAVA)
    with fails(f"drops all {last} blocks"):
        recipe(f"vision:0-{last - 1}", LLAVA)


# ---- sweeps


def test_each_is_one_cell_per_block() -> None:
    assert recipes("part=none", "drop_blocks=vit:each") == [f"vit:{i}=dropped" for i in range(6)]
    assert recipes("part=none", "drop_blocks=llm:0+vision:2+each")[3:5] == [
        "vit:2-3=dropped; llm:0=dropped",
        "vit:2+4=dropped; llm:0=dropped",
    ]
    with fails("`each` stands there twice"):
        plan("drop_blocks=vit:each+llm:each")


def test_a_grid_with_and_without() -> None:
    made = plan("drop_blocks=none,qformer:4-5", "quant.bits=none,4", "part=all")
    assert (len(made.cells), made.merged) == (4, 0)
    assert [made.cells[k or ""].columns().get("blocks_dropped") for k in made.keys] == [None] * 2 + ["qformer:4-5"] * 2


def test_one_block_each_beside_dropped_ones_skips_those() -> None:
    made = plan("drop_blocks=vit:2-3", "part=vit", "blocks=each", "quant.bits=3")
    assert sorted(made.reasons) == [2, 3]
    assert all("drop_blocks drops all of them" in reason for reason in made.reasons.values())
    with fails("drop_blocks drops all of them"):
        plan("drop_blocks=vit:2-3", "part=vit", "blocks=2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["drop_blocks=vit:0+vision:1"], "vision and vit are one part"),
        (["drop_blocks=[vit:0]"], "a list, and a cell has one value"),
        (["drop_blocks.vit=0"], "unknown key 'drop_blocks.vit'"),
        (["sparsity=none", "sparsity.ratio=0.5"], "sparsity.ratio=0.5: used by no cell"),
        (["recover=none", "recover.rank=8"], "recover.rank=8: used by no cell"),
        (["drop_blocks=vit:9,vit:0"], "'9' is outside vit"),
    ],
)
def test_commands_that_are_refused(words: list[str], told: str) -> None:
    with fails(told):
        plan(*words)


@pytest.mark.parametrize("words", [["drop_blocks=null"], ["drop_blocks=none"], ["sparsity=none", "recover=none"]])
def test_no_such_step_is_said_in_words_too(words: list[str]) -> None:
    assert plan(*words).keys == plan("part=all").keys


def test_values_of_texts_reach_planning_as_typed() -> None:
    asked = [j.config["drop_blocks"] for j in jobs("drop_blocks=vit:2@first,language:28-31+vit:0,none")]
    assert asked == ["vit:2@first", "language:28-31+vit:0", "none"]


def test_a_shell_needs_no_quotes(tmp_path: Path) -> None:
    ran = blip2sweep("plan", "+drop_blocks=vision:2@middle+language:4-5,vision:each", "part=none", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "vit:2-3=dropped; llm:4-5=dropped" in ran.out
    assert "8 cells (1 baseline), 8 to run" in ran.out
    refused(blip2sweep("drop_blocks=vision:all", cwd=tmp_path), "drops all 6 blocks of vit")
    assert not list(tmp_path.iterdir())


# ---- recipe files


def written(path: Path, *entries: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump({"targets": list(entries)}))
    return str(path)


def test_a_recipe_file_holds_what_a_row_holds(tmp_path: Path) -> None:
    made = recipe("vit:4-5+qformer:0", bits=4)
    path = written(tmp_path / "r.yaml", *targets(made))
    assert resolve_recipe({"recipe_file": path}, ANATOMY).hash == made.hash
    reversed_file = written(tmp_path / "other.yaml", *reversed(targets(made)))
    again = resolve_recipe({"recipe_file": reversed_file}, ANATOMY)
    assert again.hash == made.hash
    assert "recipe_file" in again.used


def test_drop_blocks_stands_beside_a_recipe_file(tmp_path: Path) -> None:
    path = written(tmp_path / "r.yaml", {"target": "vit:all:all", "method": "rtn", "bits": 4})
    made = resolve_recipe({"recipe_file": path, "drop_blocks": "vit:4-5"}, ANATOMY)
    assert made.hash == recipe("vit:4-5", bits=4, part="vit").hash


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([{"step": "drop_blocks", "target": "vit:1:mlp"}], "targets[0]=vit:1:mlp: whole blocks are dropped"),
        ([{"step": "drop_blocks", "target": "vit:7"}], "targets[0]=vit:7: '7' is outside vit"),
        ([{"step": "drop_blocks", "target": "vit:1", "bits": 4}], "has no option bits"),
        ([{"step": "drop_blocks", "target": "vit:0-2"}, {"step": "drop_blocks", "target": "vit:last+middle"}], "drops all 6"),
        ([{"step": "prune", "target": "vit:1"}], "step prune has no place in a recipe file"),
        ([{"step": "drop_blocks", "target": "vit:1"}, {"target": "vision:2", "bits": 4, "method": "rtn"}], "are one part"),
        ([{"step": "drop_blocks", "target": "vit:1"}, {"target": "vit:1", "bits": 4, "method": "rtn"}], "drops all of them"),
    ],
)  # fmt: skip
def test_recipe_files_that_are_refused(tmp_path: Path, entries: list[dict[str, Any]], told: str) -> None:
    with fails(told, "r.yaml"):
        resolve_recipe({"recipe_file": written(tmp_path / "r.yaml", *entries)}, ANATOMY)


def test_a_step_is_in_the_file_or_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path / "r.yaml", {"step": "drop_blocks", "target": "vit:1"})
    with fails("drop_blocks=llm:1: recipe_file=", "has this step too"):
        resolve_recipe({"recipe_file": path, "drop_blocks": "llm:1"}, ANATOMY)
    assert resolve_recipe({"recipe_file": path, "drop_blocks": "none"}, ANATOMY).hash == recipe("vit:1").hash


# ---- sizes


def parameters(section: dict[str, Any]) -> tuple[int, dict[str, Tensor]]:
    """(all parameters, headers) of a model that is built without weights."""
    model = build_meta(section)
    headers = {n: Tensor("F32", tuple(p.shape), 0, 0) for n, p in model.named_parameters()}
    return sum(p.numel() for p in model.parameters()), headers


def with_blocks(section: dict[str, Any], **counts: int) -> dict[str, Any]:
    """counts: {part of the config, `__`, field: number of blocks}."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in section["config"].items()}
    for key, count in counts.items():
        inner, field = key.split("__")
        config[inner][field] = count
    return {**section, "config": config}


SHORTER: list[tuple[dict[str, Any], str, dict[str, int]]] = [
    (tiny_config(), "vit:3", {"vision_config__num_hidden_layers": 5}),
    (tiny_config(), "qformer:4-5", {"qformer_config__num_hidden_layers": 4}),
    (
        tiny_config(),
        "llm:0+3+vit:1",
        {"text_config__num_hidden_layers": 4, "vision_config__num_hidden_layers": 5},
    ),
    (t5_config(), "llm.decoder:1", {"text_config__num_decoder_layers": 1}),
    (conf("model/blip2-opt-2.7b"), "qformer:6-11", {"qformer_config__num_hidden_layers": 6}),
    (
        conf("model/blip2-opt-2.7b"),
        "llm:4@last+qformer:8-11",
        {"text_config__num_hidden_layers": 28, "qformer_config__num_hidden_layers": 8},
    ),
]


@pytest.mark.parametrize(
    ("section", "dropped", "counts"), quick(SHORTER), ids=lambda x: x if isinstance(x, str) else ""
)
def test_the_size_is_that_of_the_model_built_shorter(
    section: dict[str, Any], dropped: str, counts: dict[str, int]
) -> None:
    own = anatomy(section)
    whole, headers = parameters(section)
    shorter, _ = parameters(with_blocks(section, **counts))
    found = size(recipe(dropped, own), alike(whole, 16, block_params(headers, own)))
    assert found.model_bytes == shorter * 2
    assert found.compression_ratio == pytest.approx(whole / shorter)


def test_a_dropped_block_costs_nothing_whatever_its_layers_were() -> None:
    params = {p: dict.fromkeys(range(6), 50_000) for p in ("vit", "qformer", "llm")}
    plain, dropped = (size(recipe(d, bits=4), alike(10**6, 16, params)) for d in (None, "vit:5"))
    block = [x for x in ANATOMY.parts["vit"].linears if x.block == 5]
    weights = sum(x.weights for x in block)
    others = 50_000 - weights - sum(x.out_features for x in block)
    scales = sum(x.out_features for x in block) * (16 + 4)
    biases = sum(x.out_features for x in block) * 16
    assert (plain.model_bytes - dropped.model_bytes) * 8 == pytest.approx(
        weights * 4 + scales + biases + others * 16, abs=8
    )


def test_sizes_without_headers_count_the_linear_layers() -> None:
    block = [x for x in ANATOMY.parts["vit"].linears if x.block == 5]
    gone = sum(x.weights + x.out_features for x in block)
    assert size(recipe("vit:5"), alike(10**6, 16)).model_bytes == (10**6 - gone) * 2
