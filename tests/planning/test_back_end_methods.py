"""Methods of a back end's library as planned: what their cells are, what decides their keys, and what is refused."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from blip2sweep.compression import quantize
from blip2sweep.errors import MissingExtra, UserError
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.back_end import left, without
from tests.composing import plan

WORDS = ("backend=openvino", "task.limit=8")
NNCF = [m for m in quantize.METHODS.values() if m.backend == "openvino"]
MEASURED = [m.name for m in NNCF if m.calibrates]


def cell(*words: str) -> Cell:
    made = plan(*WORDS, *words)
    assert made.keys[0] is not None, made.reasons
    return made.cells[made.keys[0]]


def refused(*words: str) -> str:
    with pytest.raises(UserError) as error:
        plan(*words)
    return str(error.value)


@pytest.mark.parametrize("method", [m.name for m in NNCF])
def test_each_has_a_yaml_and_is_planned(method: str) -> None:
    made = cell("part=llm", f"quant={method}")
    assert made.recipe.parts["llm"].methods == {method}
    assert len(left(made.recipe)) == 36
    assert without(made.recipe).empty
    assert (made.calibration is not None) == (method in MEASURED)
    assert made.identity["libraries"] == {"nncf": version("nncf")}
    assert "libraries" not in made.baseline().identity


def test_no_option_that_a_method_does_not_use_is_in_a_key() -> None:
    assert cell("part=llm", "quant=nncf_int8_sym").recipe.schemes["language_model.model.decoder.layers.0.fc1"].as_dict() == {
        "weights": {"method": "nncf_int8_sym", "num_bits": 8, "type": "int", "strategy": "channel"}
    }  # fmt: skip
    assert (
        cell("part=llm", "quant=nncf_int4_sym", "quant.group_size=32").key
        != cell("part=llm", "quant=nncf_int4_sym").key
    )
    assert "used by no cell" in refused(*WORDS, "part=llm", "quant=nncf_int8_sym", "quant.group_size=32")
    assert "used by no cell" in refused(*WORDS, "part=llm", "quant=nncf_int4_sym", "calibration.seed=1")


def test_they_calibrate_as_other_methods_do() -> None:
    words = ("part=vit,llm", "quant=nncf_gptq")
    one = cell(*words)
    assert one.calibration is not None
    assert one.key != cell(*words, "calibration.seed=1").key
    assert one.key != cell(*words, "calibration.n_samples=9").key
    digests = {s.weights.calibration for s in left(one.recipe).values()}
    assert len(digests) == 1
    assert None not in digests
    assert not {s.image_id for s in one.task.samples} & {s.image_id for s in one.calibration.data.samples}


def test_what_comes_before_decides_only_where_it_is_in_use() -> None:
    """The library measures all layers of a graph in full precision; only `model` has compressed graphs before it."""
    words = ("part=vit+llm", "quant=nncf_awq")
    by_upstream = {u: cell(*words, f"calibration.upstream={u}").key for u in ("part", "full", "model")}
    assert by_upstream["part"] == by_upstream["full"] != by_upstream["model"]
    assert "used by no cell" in refused(*WORDS, "part=llm", "quant=nncf_awq", "calibration.image_token_weight=0.5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quant=nncf_int8_sym"], "quant.method=nncf_int8_sym: backend=openvino rounds its layers, and this is backend=torch"),
        (["backend=dummy", "quant=nncf_ptq"], "and this is backend=dummy; right: backend=openvino, or a method of torch"),
        ([*WORDS, "quant=nncf_int4_asym", "quant.group_size=48"], "takes whole groups, "),
        ([*WORDS, "quant=nncf_int8_sym", "quant.bits=4"], "nncf_int8_sym has no such width; right: 8 or none"),
        ([*WORDS, "quant=nncf_ptq", "quant.alpha=2"], "quant.alpha=2.0: right: a number from 0 to 1"),
        ([*WORDS, "quant=nncf_int8_asym", "quant.input.bits=8"], "quant.input.bits=8: openvino computes the layers"),
        ([*WORDS, "quant=nncf_int8_asym", "quant.packed=true"], "quant.packed=True: no packed kernel"),
        ([*WORDS, "quant=nncf_awq", "calibration=text"], "has no images, which nncf_awq measures with every text"),
        ([*WORDS, "quant=nncf_int8_sym", "recover=full"], "recover: nncf_int8_sym rounds layers after all training"),
        ([*WORDS, "quant=nncf_int8_sym", "sparsity=magnitude"], "sparsity: nncf_int8_sym does not keep the zeros of "),
        (
            [*WORDS, "part=vit+llm", "quant=nncf_gptq", "per_part.vit.method=rtn"],
            "llm is measured behind parts that torch has quantized; right: calibration.upstream=model",
        ),
        (
            [*WORDS, "part=vit+llm", "quant=gptq", "per_part.vit.method=nncf_int4_sym", "calibration.upstream=model"],
            "llm is measured by torch behind layers that it does not round; right: calibration.upstream=full",
        ),
        (
            [*WORDS, "quant=nncf_gptq", "rules.a.target=llm:0", "rules.a.method=rtn", "calibration.upstream=full"],
            "llm is measured among layers that torch has quantized; right: calibration.upstream=part",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(words: list[str], said: str) -> None:
    found = refused(*(["part=llm", *words] if not any(w.startswith("part=") for w in words) else words))
    assert said in found
    assert "\n" not in found or "backend=openvino:" in found


def test_without_the_library_planning_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = quantize.installed
    monkeypatch.setattr(quantize, "installed", lambda name: name != "nncf" and real(name))
    from blip2sweep.compression.quantize.options import resolve_options

    resolve_options.cache_clear()
    with pytest.raises(
        MissingExtra, match=r"needs openvino, which is not installed; right: pip install 'blip2sweep\[openvino\]'"
    ):
        plan(*WORDS, "part=llm", "quant=nncf_int8_sym")  # fmt: skip
    resolve_options.cache_clear()


def test_torch_stands_beside(tmp_path: Path) -> None:
    """The key of torch's cell with the same recipe, or of its baseline where torch cannot have the recipe."""
    torch_baseline, torch_rtn = (
        plan("task.limit=8", "part=llm", "quant=rtn", f"quant.bits={b}").keys[0] for b in ("none", "4")
    )
    assert cell("part=llm", "quant=rtn").columns()["beside"] == torch_rtn
    assert cell("part=llm", "quant=nncf_int8_sym").columns()["beside"] == torch_baseline
    assert "beside" not in plan("task.limit=8", "part=none").cells[str(torch_baseline)].columns()


def test_the_recipe_of_a_row_is_read_again() -> None:
    made = cell("part=llm", "quant=nncf_ptq")
    assert made.columns()["recipe"] == "llm:all:all=nncf_ptq/channel"
    (entry,) = json.loads(made.columns()["recipe_json"])
    assert (entry["method"], entry["alpha"]) == ("nncf_ptq", 0.95)
