"""The tensors of a checkpoint compared with the model's, by transformers' own rules of loading. No weights are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import nn

from blip2sweep.models.architecture import implementation
from blip2sweep.models.checkpoints import listed, shown
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.config_file import first_line
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FLOATING = ("F64", "F32", "F16", "BF16")
# Leftovers of quantizers and adapters: the ends of names that only their tensors have.
QUANTIZED = (
    ".SCB", ".weight_format", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".qweight", ".qzeros",
    ".scales", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_zero_point", ".weight_g_idx",
    ".weight_shape", ".input_scale", ".W_q", ":qdata", ":scale",
)  # fmt: skip
QUANTIZED_INSIDE = (".quant_state.", "_weight_qdata", "_weight_scale")
ADAPTER = ("lora_A", "lora_B", "lora_embedding_", "lora_magnitude_vector", ".base_layer.", "modules_to_save", "ia3_l")
# Counters that older transformers wrote; the model makes them itself.
COUNTERS = ("position_ids", "rotary_emb.inv_freq")


class LoadingReport(TypedDict):
    """What `from_pretrained` of transformers returns with `output_loading_info`, by the names of tensors."""

    missing_keys: Collection[str]
    unexpected_keys: Collection[str]
    mismatched_keys: Collection[
        tuple[str, Sequence[int], Sequence[int]]
    ]  # (name, shape in the file, shape in the model)


def tensor_mistakes(
    tensors: Mapping[str, Tensor], config: PreTrainedConfig, model_config: ModelSection
) -> tuple[list[str], nn.Module | None]:
    """(mistakes, the model on the meta device). The model is None where it cannot be built."""
    # Values do not matter, so integers are given as floats. Their dtype is checked here and not by transformers.
    given = {name: torch.empty(t.shape, dtype=torch.float32, device="meta") for name, t in tensors.items()}
    try:
        model, report = implementation(model_config).model_class.from_pretrained(
            None, config=config, state_dict=given, dtype=torch.float32, device_map={"": "meta"},
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # sizes that make no model, or names that no conversion knows
        return [f"transformers cannot build the model ({first_line(error)})"], None
    return report_mistakes(report, tensors, model, model_config), model


def report_mistakes(
    report: LoadingReport, tensors: Mapping[str, Tensor], model: nn.Module, model_config: ModelSection
) -> list[str]:
    """The mistakes in transformers' loading report. Empty where all is well.

    They include tensors that transformers copied from another one although conf/model gives both values of their own.
    tensors: of the files, by stored name.
    """
    copies: Mapping[str, str] = getattr(model, "all_tied_weights_keys", {})
    missing = set(report["missing_keys"])
    if _unties_words(model_config["config"]):
        groups = [set(group) for group in model_config.get("tied") or ()]
        together = {name: next((g for g in groups if name in g), {name}) for name in {*copies, *copies.values()}}
        missing |= {name for name, group in together.items() if not group & tensors.keys()}
        copies = {name: source for name, source in copies.items() if source in together[name]}
    once = {name for name in missing if copies.get(name) not in missing}
    return list(_sentences({**report, "missing_keys": once}, tensors))


def _unties_words(config: Mapping[str, object]) -> bool:
    """Whether conf/model says that the embedding of words and the output layer have values of their own."""
    text = config.get("text_config")
    return isinstance(text, Mapping) and text.get("tie_word_embeddings") is False


def _sentences(report: LoadingReport, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    unexpected = {n for n in report["unexpected_keys"] if not n.endswith(COUNTERS)}
    strange = sorted({n for n in tensors if n not in report["unexpected_keys"] and tensors[n].dtype not in FLOATING})
    adapter = sorted(n for n in unexpected if any(word in n for word in ADAPTER))
    leftovers = sorted(n for n in unexpected if n.endswith(QUANTIZED) or any(word in n for word in QUANTIZED_INSIDE))
    if adapter:
        yield f"{_count(adapter)} of an adapter, which would not be applied ({listed(adapter)}; merge it: merge_and_unload)"
    if leftovers:
        yield f"already quantized: it holds {listed(leftovers)}"
    if strange:
        kinds = ", ".join(sorted({tensors[n].dtype for n in strange}))
        yield f"{_count(strange)} stored as {kinds} where the model has 16 or 32 bits (already quantized?): {listed(strange)}"
    missing = sorted(report["missing_keys"])
    if missing:
        yield f"{_count(missing)} missing: {listed(missing)}"
    others = sorted(unexpected - set(adapter) - set(leftovers))
    if others:
        yield f"{_count(others)} that the model does not have: {listed(others)}"
    mismatched = sorted(report["mismatched_keys"])
    shapes = [f"{shown(n)} is {tuple(have)}, the model's is {tuple(want)}" for n, have, want in mismatched[:4]]
    if shapes:
        yield "; ".join(shapes) + (f" and {len(mismatched) - 4} more of other shapes" if len(mismatched) > 4 else "")


def _count(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
