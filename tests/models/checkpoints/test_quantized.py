"""Checkpoints that are quantized already: their integers mean what the programs that wrote them meant, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.cache import disk as cache
from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.checkpoints.headers import Tensor as Entry
from blip2sweep.models.checkpoints.packed import Packed
from blip2sweep.models.checkpoints.quantized import Quantized, Scheme, quantized
from blip2sweep.models.load import load
from blip2sweep.models.unpack import weight
from tests.checkpoints import TINY, edit, edit_tensors, fails, tiny_config
from tests.quantized_folders import (
    LLM,
    Layer,
    awq,
    awq_config,
    compressed,
    compressed_config,
    gptq,
    gptq_config,
    write,
)

FC1 = f"{LLM}0.fc1"
UNDERSTOOD = "understood: gptq (checkpoint_format gptq or gptq_v2), awq (version gemm) and compressed-tensors"


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))


def layer(method: str, form: str, bits: int, size: int, **shapes: tuple[int, ...]) -> Packed:
    entries = {end: Entry("I32", shape, 0, 0) for end, shape in shapes.items()}
    return Packed("x", Quantized(method, form, ()), Scheme(bits, size, "group", False), 8, 8, entries)


def test_words_of_gptq_are_read_as_autogptq_packs_them() -> None:
    """Hand-made: a word is eight rows of one column, the first in the lowest nibble; a zero point is stored less 1."""
    own = {
        "qweight": torch.tensor([[0x76543210] * 8], dtype=torch.int32),
        "qzeros": torch.tensor([[-1985229329]], dtype=torch.int32),  # 0x89ABCDEF: column 0 stores 15, so it means 0
        "scales": torch.full((1, 8), 2.0),
        "g_idx": torch.zeros(8, dtype=torch.int32),
    }
    found = weight(layer("gptq", "gptq", 4, 8), own)
    zeros = torch.tensor([0, 15, 14, 13, 12, 11, 10, 9])
    assert torch.equal(found, 2.0 * (torch.arange(8)[None] - zeros[:, None]))
    plain = weight(layer("gptq", "gptq_v2", 4, 8), own)
    zeros = torch.tensor([15, 14, 13, 12, 11, 10, 9, 8])
    assert torch.equal(plain, 2.0 * (torch.arange(8)[None] - zeros[:, None]))


def test_words_of_awq_are_read_as_autoawq_packs_them() -> None:
    """Nibbles 0 … 7 of a word are the columns 0 2 4 6 1 3 5 7, and zero points are stored as they are."""
    own = {
        "qweight": torch.tensor([[0x76543210]] * 8, dtype=torch.int32),
        "qzeros": torch.tensor([[0x11111111]], dtype=torch.int32),
        "scales": torch.ones(1, 8),
    }
    found = weight(layer("awq", "gemm", 4, 8), own)
    assert found[:, 0].tolist() == [-1, 3, 0, 4, 1, 5, 2, 6]


CASES: dict[str, tuple[Layer, dict[str, Any]]] = {
    "gptq": (gptq(), gptq_config()),
    "gptq 3 bits": (gptq(3, 32, False), gptq_config(3, 32, sym=False)),
    "gptq 2 bits in another order": (gptq(2, 16, False, act_order=True), gptq_config(2, 16, desc_act=True)),
    "gptq_v2 8 bits": (gptq(8, 16, False, v2=True), gptq_config(8, 16, checkpoint_format="gptq_v2")),
    "awq": (awq(), awq_config()),
    "packed": (compressed(), compressed_config()),
    "packed 5 bits": (compressed(5, 16, False), compressed_config(5, 16, False)),
    "packed rows": (compressed(3, None, False), compressed_config(3, None, False)),
    "int8": (compressed(8, None, int8=True), compressed_config(8, None, form="int-quantized")),
    "naive": (compressed(4, 16, False, int8=True), compressed_config(4, 16, False, form="naive-quantized")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_loads_as_what_it_means(name: str, tmp_path: Path) -> None:
    meant = write(tmp_path / "model", *CASES[name], f"{LLM}0.")
    found = inspect(tmp_path / "model", tiny_config()["tied"])
    assert mistakes(found, tiny_config()) == []
    assert (found.params, found.packed.keys()) == (inspect(TINY, tiny_config()["tied"]).params, meant.keys())
    loaded = load(tiny_config(), tmp_path / "model").model
    assert all(torch.equal(loaded.get_submodule(module).weight, x) for module, x in meant.items())
    plain = load(tiny_config(), TINY).model
    others = {n: p for n, p in plain.named_parameters() if n.removesuffix(".weight") not in meant}
    assert all(torch.equal(loaded.get_parameter(n), p) for n, p in others.items())
    assert loaded.generation_config.eos_token_id == plain.generation_config.eos_token_id


def test_compressed_tensors_own_loader_means_the_same(tmp_path: Path) -> None:
    """In bfloat16, as it computes where scales are bfloat16."""
    from transformers import Blip2ForConditionalGeneration, CompressedTensorsConfig

    config = compressed_config(3, 16)
    meant = write(tmp_path / "model", compressed(3, 16), config, f"{LLM}1.")
    config["config_groups"]["group_0"]["targets"] = [f"re:.*{m.partition('.')[2]}$" for m in meant]
    edit(tmp_path / "model" / "config.json", quantization_config=config)
    told = CompressedTensorsConfig(**config, dequantize=True)
    dtype = torch.bfloat16
    other = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "model", quantization_config=told, dtype=dtype)
    assert all(torch.equal(other.get_submodule(module).weight, x.to(dtype)) for module, x in meant.items())


# ---- what is refused


def change(name: str, end: str, to: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], object]:
    def one(tensors: dict[str, torch.Tensor]) -> None:
        new = to(tensors.pop(f"{name}.{end}"))
        if new is not None:
            tensors[f"{name}.{end}"] = new.contiguous()

    return lambda folder: edit_tensors(folder, one)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no zero points": (change(FC1, "qzeros", lambda _: None), f"{FC1} has no qzeros"),
    "another shape": (change(FC1, "scales", lambda t: t[1:]), f"{FC1}.scales is (3, 256), not (4, 256)"),
    "another type": (change(FC1, "qweight", lambda t: t.long()), f"{FC1}.qweight is I64, not I32"),
    "other bits": (lambda f: edit(f / "config.json", quantization_config=gptq_config(8)), "fc1.qweight is (8, 256), not"),
    "plain weights": (lambda f: edit(f / "config.json", quantization_config=awq_config(16)), "awq checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_checkpoint_that_is_not_whole_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path / "model", *CASES["gptq"], f"{LLM}0.")
    damage, said = BROKEN[name]
    damage(tmp_path / "model")
    with fails(said):
        inspect(tmp_path / "model")


def test_values_are_checked_as_those_of_plain_checkpoints(tmp_path: Path) -> None:
    write(tmp_path / "model", *CASES["gptq"], f"{LLM}0.")
    change(FC1, "g_idx", lambda t: t * 0)(tmp_path / "model")
    said = mistakes(inspect(tmp_path / "model"), tiny_config())
    assert said == [f"{FC1}: g_idx does not give each of 4 groups its 16 columns"]
    change(FC1, "g_idx", lambda _: torch.arange(64, dtype=torch.int32) // 16)(tmp_path / "model")
    change(FC1, "scales", lambda t: t * float("inf"))(tmp_path / "model")
    assert [c.not_finite for c in inspect(tmp_path / "model").contents()] == [(f"{FC1}.scales",)]
    with fails("NaN or Inf", "fc1.weight"):
        load(tiny_config(), tmp_path / "model")


def group(**more: Any) -> dict[str, Any]:
    found = compressed_config()
    found["config_groups"]["group_0"] |= more
    return found


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method is bitsandbytes"),
    "fp8": ({"quant_method": "fp8"}, "quant_method is fp8"),
    "exl2": ({"quant_method": "exl2"}, "quant_method is exl2"),
    "marlin": (gptq_config(checkpoint_format="marlin"), "checkpoint_format is marlin"),
    "gptq bits": (gptq_config(5), "bits is 5, not 2 or 3 or 4 or 8"),
    "gptq dynamic": (gptq_config(dynamic={"fc1": {"bits": 8}}), "dynamic gives fc1 other widths"),
    "gptq group": (gptq_config(size=0), "group_size is 0"),
    "awq gemv": (awq_config(version="gemv"), "version is gemv"),
    "awq symmetric": (awq_config(zero_point=False), "zero_point is false"),
    "activations": (group(input_activations={"num_bits": 8}), "input_activations are quantized"),
    "nvfp4": (compressed_config(form="nvfp4-pack-quantized"), "format is nvfp4-pack-quantized"),
    "float": (compressed_config(type="float"), "weights.type is float"),
    "block": (compressed_config(strategy="block"), "weights.strategy is block"),
    "no groups": ({**compressed_config(), "config_groups": {}}, "config_groups has no groups"),
    "sparse": ({**compressed_config(), "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
    "no object": ("gptq", "quantization_config is no object"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_understood_is_refused_and_says_what_is(name: str, tmp_path: Path) -> None:
    config, said = OTHERS[name]
    write(tmp_path / "model", *CASES["gptq"], f"{LLM}0.")
    edit(tmp_path / "model" / "config.json", quantization_config=config)
    assert quantized({"quantization_config": config}) is None
    with fails("already quantized", said, UNDERSTOOD):
        load(tiny_config(), tmp_path / "model")
