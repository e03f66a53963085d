"""The real module tree against the anatomy, loading, and recipes put into a model and taken back."""

from __future__ import annotations

import copy as copying
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BlipImageProcessorPil

from blip2sweep.apply.patch import apply
from blip2sweep.compression.quantize import minmax, rtn
from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.tree import tree, verify
from tests.checkpoints import TINY, build_meta, conf, recipe, t5_config, tiny_config, write_t5

MODELS = ["tiny", "blip2-opt-2.7b", "blip2-opt-6.7b", "blip2-opt-2.7b-coco", "blip2-flan-t5-xl", "blip2-flan-t5-xxl"]
OPT_27B = {"vit": 156, "qformer": 96, "llm": 192}


@pytest.fixture(scope="session")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(t5_config(), write_t5(tmp_path_factory.mktemp("t5")))


@pytest.fixture(params=["opt", "t5"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """Both families in turn; whatever a test does, the weights are afterwards what they were."""
    model: Loaded = request.getfixturevalue(request.param)
    before = snapshot(model)
    yield model
    assert same(before, snapshot(model))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def snapshot(loaded: Loaded) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in loaded.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a)


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def fails(match: str) -> pytest.RaisesExc:
    return pytest.raises(UserError, match=match, check=lambda error: "\n" not in str(error))


# ---- the tree


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_conf_has_the_modules_that_conf_says(name: str) -> None:
    config = conf(f"model/{name}")
    parts, model = anatomy(config), build_meta(config)
    verify(model, parts)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    counts = {part: len(x.linears) for part, x in parts.parts.items()}
    assert counts == OPT_27B or name not in ("blip2-opt-2.7b", "blip2-opt-6.7b", "blip2-opt-2.7b-coco")
    assert sum(counts.values()) == len(tree(model, parts)[0])


def test_a_layer_that_conf_forgets_or_invents_is_an_error() -> None:
    config = copying.deepcopy(conf("model/tiny"))
    model = build_meta(config)
    config["parts"]["vit"]["folds"] = []
    fc1 = config["parts"]["vit"]["layers"]["mlp"].pop("mlp.fc1")
    with fails(r"mlp.fc1 is in the model but not in conf/model"):
        verify(model, anatomy(config))
    config["parts"]["vit"]["layers"]["mlp"] |= {"mlp.fc1": fc1, "mlp.fc3": fc1}
    with fails(r"mlp.fc3 is in conf/model but not in the model"):
        verify(model, anatomy(config))


def test_blocks_that_moved_are_an_error() -> None:
    config = copying.deepcopy(conf("model/tiny"))
    model = build_meta(config)
    config["parts"]["vit"]["stacks"]["blocks"]["path"] = "vision_model.encoder.blocks"
    with fails(
        r"vision_model.encoder.blocks is no list of blocks of family opt; right: one of vision_model.encoder.lay"
    ):
        anatomy(config)
    config["parts"]["vit"]["stacks"]["blocks"] = {"path": "vision_model.encoder.layers", "blocks": 7}
    with fails(r"vision_model.encoder.layers has 6 blocks, conf/model says 7"):
        verify(model, anatomy(config))


# ---- load


def test_loading_records_what_was_loaded(opt: Loaded) -> None:
    assert opt.dtypes == dict.fromkeys(("vision", "bridge", "language"), "float32")
    assert set(opt.attention) == {"vision", "bridge", "language"}
    assert opt.device == torch.device("cpu")
    assert (opt.family, opt.image_processor_backend) == ("opt", "pil")
    assert isinstance(opt.processor.image_processor, BlipImageProcessorPil)
    assert not opt.model.training
    assert not any(p.requires_grad for p in opt.model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_weight_has_the_dtype_asked_for_rounded_once(dtype: str) -> None:
    stored = load_file(TINY / "model.safetensors")
    found = dict(load(tiny_config(dtype=dtype), TINY).model.named_parameters())
    for name, parameter in found.items():
        assert parameter.dtype == getattr(torch, dtype), name
        assert torch.equal(parameter, stored[name].to(parameter.dtype)), name


def test_parts_may_differ_in_dtype() -> None:
    config = tiny_config(dtype="bfloat16", dtype_per_part={"vit": "float16", "qformer": "float32"})
    model = load(config, TINY).model
    assert {p.dtype for p in model.vision_model.parameters()} == {torch.float16}
    assert {model.query_tokens.dtype, *(p.dtype for p in model.qformer.parameters())} == {torch.float32}
    assert model.language_projection.weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
    stored = load_file(TINY / "model.safetensors")
    assert torch.equal(model.query_tokens, stored["query_tokens"].float())


def test_t5_in_half_precision_keeps_nothing_back(tmp_path: Path) -> None:
    model = load({**t5_config(), "dtype": "float16"}, write_t5(tmp_path)).model
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_t5_keeps_the_head_of_its_own_that_its_checkpoint_has(t5: Loaded) -> None:
    language_model = t5.model.language_model
    assert not torch.equal(language_model.lm_head.weight, language_model.shared.weight)
    assert not language_model.config.scale_decoder_outputs


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"dtype": "float8"}, "model.dtype=float8: unknown"),
        ({"dtype_per_part": {"llm": "fp16"}}, "model.dtype_per_part.llm=fp16: unknown"),
        (
            {"dtype_per_part": {"vlt": "float16"}},
            "model.dtype_per_part.vlt: model tiny has no part 'vlt'; did you mean 'vit'",
        ),
    ],
)
def test_an_unknown_dtype_is_refused(fields: dict[str, Any], match: str) -> None:
    with fails(match):
        load(tiny_config(**fields), TINY)


def test_a_checkpoint_of_other_dimensions_is_refused_naming_the_field(copy: Path) -> None:
    text = json.loads((copy / "config.json").read_text())["text_config"]
    edit(copy / "config.json", text_config={**text, "ffn_dim": 128})
    with fails("text_config.ffn_dim is 128 in config.json, 256 in conf/model/tiny.yaml"):
        load(tiny_config(), copy)


def test_a_folder_that_is_no_blip2_checkpoint_is_refused(copy: Path) -> None:
    edit(copy / "config.json", model_type="opt")
    with fails("model_type is opt"):
        load(tiny_config(), copy)
    (copy / "config.json").unlink()
    with fails("config.json is missing"):
        load(tiny_config(), copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with fails("never pickles"):
        load(tiny_config(), copy)


def test_a_processor_that_would_leave_the_image_out_is_refused(copy: Path) -> None:
    edit(copy / "processor_config.json", num_query_tokens=None)
    with fails("num_query_tokens is None, the model has 12"):
        load(tiny_config(), copy)


def test_device_map_goes_through_accelerate() -> None:
    placed = load(tiny_config(device_map={"": "cpu"}, dtype="bfloat16"), TINY)
    assert {p.dtype for p in placed.model.parameters()} == {torch.bfloat16}
    with apply(placed, recipe(placed.anatomy)) as applied:
        assert applied.layers_changed == len(applied.layers) == 108


def test_a_touched_layer_that_is_not_on_the_device_is_an_error() -> None:
    offloaded = load(tiny_config(), TINY)
    fc1 = offloaded.model.language_model.model.decoder.layers[2].fc1
    fc1.weight = torch.nn.Parameter(fc1.weight.to("meta"), requires_grad=False)
    with fails("layers.2.fc1: left on meta or disk by model.device_map"):
        apply(offloaded, recipe(offloaded.anatomy, "llm"))
    apply(offloaded, recipe(offloaded.anatomy, "vit")).restore()


# ---- apply and restore

TARGETS = [
    {"part": "all"},
    {"part": "vit", "blocks": "first", "layers": "attention"},
    {"part": "qformer", "layers": "crossattention"},
    {"part": "llm", "blocks": "1", "layers": "mlp"},
    {"part": "vit+llm", "method": "minmax"},
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_exactly_the_recipes_layers_change(loaded: Loaded, target: dict[str, str]) -> None:
    wanted = recipe(loaded.anatomy, **target)
    before = snapshot(loaded)
    with apply(loaded, wanted) as applied:
        after = snapshot(loaded)
        different = {k.rpartition(".")[0] for k in before if not torch.equal(before[k], after[k])}
        assert different == set(wanted.schemes) == set(applied.layers)
        assert applied.layers_changed == len(wanted.schemes)
    assert same(before, snapshot(loaded))


def test_t5s_stacks_are_addressed_alone(t5: Loaded) -> None:
    with apply(t5, recipe(t5.anatomy, "llm.decoder", layers="crossattention")) as applied:
        assert len(applied.layers) == 8
        assert all("decoder" in path and "EncDecAttention" in path for path in applied.layers)


def test_a_layer_gets_what_its_method_computes_in_float32() -> None:
    half = load(tiny_config(dtype="bfloat16"), TINY)
    wanted = recipe(half.anatomy, "vit", "0", "mlp", strategy="group", group_size=16)
    path, scheme = next(iter(wanted.schemes.items()))
    module = half.model.get_submodule(path)
    expected = rtn.quantize_dequantize(module.weight.float(), scheme.weights, torch.bfloat16).bfloat16()
    with apply(half, wanted):
        assert torch.equal(module.weight, expected)


def test_an_empty_recipe_touches_nothing(loaded: Loaded) -> None:
    applied = apply(loaded, recipe(loaded.anatomy, "none"))
    assert (applied.layers, applied.layers_changed) == ((), 0)
    applied.restore()


def test_weights_already_on_the_grid_count_as_unchanged(opt: Loaded) -> None:
    wanted = recipe(opt.anatomy, "vit", "0", "mlp", method="minmax", bits=1)
    with apply(opt, wanted), apply(opt, wanted) as again:
        assert len(again.layers) == 2
        assert again.layers_changed == 0


def test_parameters_ties_and_hooks_stay(opt: Loaded) -> None:
    language_model = opt.model.language_model
    module = opt.model.get_submodule("language_model.model.decoder.layers.0.fc1")
    parameter, calls = module.weight, []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    with apply(opt, recipe(opt.anatomy)):
        assert module.weight is parameter
        assert language_model.lm_head.weight is language_model.get_input_embeddings().weight
        module(torch.zeros(1, 64))
    handle.remove()
    assert calls


class Boom(Exception):
    pass


@pytest.mark.parametrize("failure", ["raise", "nan", "overflow", "shape", "in place"])
def test_a_failure_in_the_middle_leaves_the_model_as_it_was(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    real, seen = rtn.codes, []
    error = {
        "raise": Boom,
        "in place": Boom,
        "nan": FloatingPointError,
        "overflow": FloatingPointError,
        "shape": RuntimeError,
    }

    def broken(weight: Tensor, scheme: Any, dtype: torch.dtype) -> Codes:
        seen.append(weight.shape)
        if len(seen) < 30:
            return real(weight, scheme, dtype)
        if failure in ("raise", "in place"):
            weight.zero_()
            raise Boom
        made = real(weight, scheme, dtype)
        scale = {"nan": made.scale / 0 * 0, "overflow": made.scale * 1e39 * 1e39}.get(failure, made.scale)
        return replace(made, scale=scale, values=made.values[:1, :1] if failure == "shape" else made.values)

    monkeypatch.setattr(rtn, "codes", broken)
    before, wanted = snapshot(loaded), recipe(loaded.anatomy)
    path = list(wanted.schemes)[29]
    with pytest.raises(error[failure], match=path if failure in ("nan", "overflow", "shape") else None):
        apply(loaded, wanted)
    assert len(seen) == 30
    assert same(before, snapshot(loaded))


def test_a_failure_inside_the_context_restores(loaded: Loaded) -> None:
    before = snapshot(loaded)
    with pytest.raises(Boom), apply(loaded, recipe(loaded.anatomy)) as applied:
        raise Boom
    assert same(before, snapshot(loaded))
    applied.restore()  # a second time: nothing left to do


def test_a_method_that_works_in_place_cannot_reach_the_original(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(opt)
    codes = rtn.codes
    monkeypatch.setattr(rtn, "codes", lambda weight, scheme, dtype: codes(weight.mul_(2), scheme, dtype))
    monkeypatch.setattr(
        minmax, "apply", lambda weight, bias, scheme: (weight.mul_(2), bias if bias is None else bias.mul_(2))
    )
    for method in ("rtn", "minmax"):
        with apply(opt, recipe(opt.anatomy, method=method)) as applied:
            assert applied.layers_changed == 108
        assert same(before, snapshot(opt))
