"""Sparsity in a plan: what the command line means, keys, columns, sizes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.compression.sparsity import kernels
from blip2sweep.models.anatomy import anatomy
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.chain import block_entries
from blip2sweep.recipe.compact import expand, targets, text
from blip2sweep.recipe.size import alike, size
from tests.checkpoints import fails, t5_config, tiny_config
from tests.composing import plan, recipes
from tests.compression.sparsity.making import sparse

ANATOMY = anatomy(tiny_config())


def cell(*words: str) -> Cell:
    made = plan(*words)
    (key,) = made.keys
    assert key
    return made.cells[key]


def keys(*words: str) -> list[str | None]:
    return plan(*words).keys


# ---- what a command means


@pytest.mark.thorough
def test_a_grid_of_methods_ratios_and_patterns() -> None:
    words = ["part=vit", "quant.bits=none", "sparsity=none,magnitude,wanda", "sparsity.ratio=0.3,0.5"]
    assert recipes(*words) == [
        "none", "none", "vit:all:all=magnitude0.3", "vit:all:all=magnitude0.5", "vit:all:all=wanda0.3", "vit:all:all=wanda0.5",
    ]  # fmt: skip
    both = plan(*words, "sparsity.pattern=unstructured,2of4")
    assert len(set(both.keys)) == 1 + 2 * 3  # 2:4 has one ratio, and without sparsity there is none
    assert recipes("part=vit", "quant.bits=none", "sparsity=wanda", "sparsity.pattern=2of4") == [
        "vit:all:all=wanda2of4"
    ]


def test_part_blocks_layers_and_keep_select_both() -> None:
    words = ["part=vit", "blocks=0-2", "layers=mlp", "keep=vit:1", "sparsity=magnitude", "quant.bits=4"]
    assert recipes(*words) == ["vit:0+2:mlp=magnitude0.5; vit:0+2:mlp=rtn4/channel"]


def test_parts_have_options_of_their_own() -> None:
    words = [
        "part=vit+llm",
        "quant.bits=4",
        "per_part.vit.bits=none",
        "sparsity=wanda",
        "per_part.llm.sparsity.ratio=0.25",
    ]
    assert recipes(*words) == ["vit:all:all=wanda0.5; llm:all:all=wanda0.25; llm:all:all=rtn4/channel"]
    words = ["part=vision+language", "quant.bits=none", "per_part.vision.sparsity.method=magnitude"]
    assert recipes(*words) == ["vit:all:all=magnitude0.5"]
    words = ["part=all", "quant.bits=none", "sparsity=magnitude", "per_part.language.sparsity.method=none,magnitude"]
    assert recipes(*words)[0] == "vit:all:all=magnitude0.5; qformer:all:all=magnitude0.5"
    dense = sparse(anatomy(t5_config()), "llm", per_part={"llm": {"encoder": {"sparsity": {"method": "none"}}}})
    assert {site.block for site, _ in dense.step(0)} == {2, 3}


def test_a_recipe_file_says_what_becomes_sparse(tmp_path: Path) -> None:
    made = cell("part=vit", "quant.bits=4", "sparsity=wanda", "sparsity.ratio=0.3", "calibration.n_samples=4")
    path = written(tmp_path, targets(made.recipe))
    again = cell(f"recipe_file={path}", "calibration.n_samples=4")
    assert (again.key, again.recipe.hash) == (made.key, made.recipe.hash)
    with fails("sparsity=magnitude", "has this step too"):
        plan(f"recipe_file={path}", "sparsity=magnitude")
    dense = written(tmp_path, [e for e in targets(made.recipe) if "step" not in e])
    assert recipes(f"recipe_file={dense}", "sparsity=magnitude", "layers=mlp", "keep=llm:all") == [
        "vit:all:mlp=magnitude0.5; qformer:all:mlp=magnitude0.5; vit:all:all=rtn4/channel"
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"method": "wanda", "ratio": 2}, ("targets[0]: sparsity.ratio=2", "between 0 and 1")),
        ({"method": "wand"}, ("targets[0]: sparsity.method=wand: unknown method", "wanda")),
        ({"ratio": 0.5}, ("targets[0]: step sparsity: nothing becomes sparse without a method", "magnitude or wanda")),
        ({"method": "wanda", "bits": 4}, ("targets[0]: sparsity.bits: unknown option",)),
        ({"method": "wanda", "ratio": [0.5]}, ("targets[0]: step sparsity", "unhashable")),
        ({"method": "wanda", "ratio": 0.001}, ("sparsity 0.001: leaves all 64 weights",)),
        ({"method": "wanda", "pattern": "2of4", "packed": "cpu"}, ("targets[0]: sparsity.packed=cpu",)),
    ],
)
def test_what_is_wrong_in_a_recipe_file_is_one_line(
    tmp_path: Path, entry: dict[str, Any], said: tuple[str, ...]
) -> None:
    with fails(*said):
        plan(f"recipe_file={written(tmp_path, [{'step': 'sparsity', 'target': 'vit:0', **entry}])}")


def written(folder: Path, entries: list[dict[str, Any]]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"targets": entries}))
    return path


# ---- keys


def test_cells_that_mean_the_same_have_one_key() -> None:
    words = ["part=vit", "quant.bits=none", "layers=attention"]  # rows of 64
    assert len(set(keys(*words, "sparsity=magnitude", "sparsity.ratio=0.5,0.501,0.51"))) == 1
    assert len(set(keys(*words, "sparsity=magnitude", "sparsity.ratio=0.5,0.52"))) == 2
    assert len(set(keys(*words, "sparsity=wanda", "calibration.seed=0,1"))) == 2
    assert keys(*words, "sparsity=none") == keys("part=none")


@pytest.mark.parametrize(
    ("words", "equal"),
    [
        (["part=vit", "calibration.upstream=part,model"], True),
        (["part=vit", "calibration.upstream=part,full"], False),
        (["part=vit", "blocks=3", "calibration.upstream=part,full,model"], True),
        (["part=vit+llm", "calibration.upstream=part,model"], False),
        (["part=vit+llm", "quant=rtn", "quant.bits=4", "sparsity=magnitude", "quant.input.bits=8"], True),
    ],
)
def test_norms_that_are_measured_alike_are_one(words: list[str], equal: bool) -> None:
    assert (len(set(keys("quant.bits=none", "sparsity=wanda", *words))) == 1) is equal


@pytest.mark.thorough
def test_quantizers_are_keyed_by_what_is_sparse_while_they_are_calibrated() -> None:
    words = ["part=llm", "quant=gptq", "calibration.n_samples=4"]
    schemes = [
        next(iter(cell(*words, *more).recipe.schemes.values())).weights.calibration
        for more in ([], ["sparsity=magnitude"], ["sparsity=wanda"], ["sparsity=wanda", "sparsity.ratio=0.25"])
    ]
    assert len(set(schemes)) == 4
    sparse_only = ["part=vit+llm", "per_part.vit.bits=none", "quant=gptq", "sparsity=magnitude"]
    upstream = keys(*sparse_only, "calibration.upstream=part,model")
    assert upstream[0] == upstream[1]  # the sparse vit is in the model either way


def test_blocks_before_the_first_sparse_one_are_shared() -> None:
    plain, made = (sparse(ANATOMY, "vit", 4, blocks=b, ratio=0.5) for b in ("3", "3-5"))
    first, second = (block_entries(r.parts["vit"]) for r in (plain, made))
    assert first[:4] == second[:4]
    assert [bool(x) for x in second] == [False] * 3 + [True] * 3


def test_the_short_form_means_the_same() -> None:
    made = cell(
        "part=vit+llm", "quant.bits=3", "sparsity=wanda", "sparsity.pattern=2of4", "calibration.n_samples=4"
    ).recipe
    listed = targets(made)
    assert expand(listed, ANATOMY).hash == made.hash
    assert targets(expand(listed, ANATOMY)) == listed
    assert text(listed).startswith("vit:all:all=wanda2of4; llm:all:all=wanda2of4; vit:all:all=rtn3")


# ---- columns and sizes


def test_columns_say_what_is_sparse() -> None:
    made = cell("part=vit", "blocks=first", "quant.bits=none", "sparsity=wanda", "calibration.n_samples=4").columns()
    assert (made["sparsity"], made["part"], made["blocks"], made["layers"]) == ("wanda0.5", "vit", "first", "all")
    assert (made["bits_vit"], made["method"], made["calibration_samples"]) == (None, None, 4)
    mixed = ["part=vit+llm", "quant.bits=4", "sparsity=magnitude", "per_part.llm.sparsity.ratio=0.25"]
    assert cell(*mixed).columns()["sparsity"] == "mixed"
    assert "sparsity" not in cell("part=vit", "quant.bits=4").columns()


@pytest.mark.parametrize(
    ("fields", "bits"),
    [
        ({"ratio": 0.5}, 16 / 2 + 1),
        ({"ratio": 0.25}, 16 * 0.75 + 1),
        ({"pattern": "2of4"}, (2 * 16 + 4) / 4),
        ({"ratio": 0.5, "bits": 4}, 4 / 2 + 1),
        ({"pattern": "2of4", "bits": 4}, (2 * 4 + 4) / 4),
    ],
)
def test_bits_of_a_weight(fields: dict[str, Any], bits: float) -> None:
    """b bits: of the weights that stay, one for each weight of the mask, or two for each that 2:4 keeps."""
    made = sparse(ANATOMY, "vit", fields.pop("bits", "none"), method="magnitude", quant_symmetric=True, **fields)
    scales = sum(16 * x.out_features for x, _ in made.touched())
    whole = size(made, alike(10**6, 16))
    assert whole.bits_per_weight_touched * whole.params_touched - scales == pytest.approx(bits * whole.params_touched)


# ---- refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sparsity=wand"], ("sparsity=wand: no such sparsity", "wanda")),
        (["sparsity.method=wand"], ("sparsity.method=wand: unknown method", "wanda")),
        (["sparsity=wanda", "sparsity.ratio=0"], ("sparsity.ratio=0", "between 0 and 1")),
        (["sparsity=wanda", "sparsity.ratio=1.0"], ("sparsity.ratio=1.0", "between 0 and 1")),
        (["sparsity=wanda", "sparsity.ratio=-0.5"], ("sparsity.ratio=-0.5", "between 0 and 1")),
        (["sparsity=wanda", "sparsity.ratio=half"], ("sparsity.ratio=half",)),
        (
            ["sparsity=wanda", "sparsity.ratio=0.001"],
            ("sparsity.ratio=0.001: leaves all 64 weights in a row of", "0.016"),
        ),
        (["sparsity=wanda", "sparsity.pattern=1of4"], ("sparsity.pattern=1of4", "unstructured or 2of4")),
        (["sparsity=wanda", "sparsity.pattern=2of4", "sparsity.ratio=0.3"], ("sparsity.ratio=0.3: used by no cell",)),
        (["sparsity.ratio=0.3"], ("sparsity.ratio=0.3: used by no cell",)),
        (["sparsity=magnitude", "sparsity.amount=0.3"], ("sparsity.amount=0.3: unknown key",)),
        (["sparsity=magnitude", "per_part.llm.sparsity.ratio=0.3"], ("per_part.llm", "outside part=vit")),
        (["per_part.vit.sparsity.amount=0.3"], ("per_part.vit.sparsity.amount: unknown option",)),
        (["per_part.vit.sparsity=0.3"], ("sparsity=0.3",)),
        (["per_part.vit.sparsity.method=wand"], ("per_part.vit.sparsity.method=wand: unknown method",)),
        (["sparsity=wanda", "calibration=text"], ("calibration=text: has no images, which vit needs",)),
        (["sparsity=wanda", "calibration.split=val2014"], ("calibration.split=val2014", "evaluated")),
        (["sparsity=wanda", "task.train_split=null"], ("names no train_split",)),
        (["sparsity=magnitude", "calibration.seed=1"], ("calibration.seed=1: used by no cell",)),
        (["sparsity=magnitude,wanda", "sparsity.method=wanda"], ()),
        (["steps.sparsity.ratio=0.5"], ("steps.sparsity", "right: sparsity=")),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], said: tuple[str, ...]) -> None:
    if not said:
        assert len(set(keys("part=vit", "quant.bits=none", *words))) == 1
        return
    with fails(*said):
        plan("part=vit", "quant.bits=none", *words)


def test_pairs_of_pairs_need_rows_that_four_divides() -> None:
    config = tiny_config()
    sizes = {**config["config"]["vision_config"], "intermediate_size": 130}
    odd = anatomy({**config, "config": {**config["config"], "vision_config": sizes}})
    with fails("sparsity.pattern=2of4", "rows of 130, which 4 does not divide", "keep= the layers fc2"):
        sparse(odd, "vit", pattern="2of4")
    assert sparse(odd, "vit", pattern="2of4", keep="vit:all:fc2")
    assert sparse(odd, "vit", ratio=0.5)


PAIRS = ["part=vit", "quant.bits=none", "sparsity=wanda", "sparsity.pattern=2of4", "sparsity.packed=cuda"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sparsity.packed=cpu"], ("sparsity.packed=cpu: 2:4 kernels run on cuda alone", "packed=false")),
        (["sparsity.packed=gpu"], ("sparsity.packed=gpu: right: true, false or cuda",)),
        (["sparsity.pattern=unstructured"], ("sparsity.packed=cuda: no kernel skips unstructured zeros", "2of4")),
        ([], ("sparsity.packed=cuda: computes in float16 or bfloat16", "float32", "model.dtype=bfloat16")),
        (["model.dtype=bfloat16", "quant.bits=4"], ("no 2:4 kernel runs quantized weights", "quant.bits=none")),
    ],
)
def test_what_no_kernel_runs_is_refused(words: list[str], said: tuple[str, ...]) -> None:
    with fails(*said):
        plan(*[w for w in PAIRS if w.split("=")[0] not in {x.split("=")[0] for x in words}], *words)


def test_packed_pairs_are_planned_for_a_node_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made, simulated = cell(*PAIRS, "model.dtype=bfloat16"), cell(*PAIRS[:-1], "model.dtype=bfloat16")
    assert made.columns()["sparsity"] == "wanda2of4/packed"
    assert made.key != simulated.key
    monkeypatch.setattr(kernels, "this_device", lambda: "cuda")
    assert cell(*PAIRS[:-1], "model.dtype=bfloat16", "sparsity.packed=true").key == made.key
    monkeypatch.setattr(kernels, "COLUMNS", 128)
    with fails("takes whole multiples of 32 × 128", "× 64", "keep=vit:all:qkv"):
        plan(*PAIRS, "model.dtype=bfloat16")


def test_packed_kernels_of_quantizers_skip_no_zeros() -> None:
    pytest.importorskip("bitsandbytes")
    words = ["part=vit+llm", "quant.bits=4", "per_part.llm.method=nf4", "per_part.llm.packed=cpu", "sparsity=magnitude"]
    with fails("quant.packed=cpu: no packed kernel of nf4 skips zeros"):
        plan(*words)
    assert plan(*words, "per_part.llm.sparsity.method=none").todo
