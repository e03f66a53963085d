"""Where two captions part: how close the two tokens were in the reference's own logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks.reference import loaded, quantize, read

# Roundings of the largest logit, each machine epsilon of it: what two orders of summing may make of a logit in a model of
# some dozens of blocks, whose every output is rounded.
NEAR_TIE = 4.0
# Standard deviations of one logit from float32's: of two logits, in two ways of reading them and in the pass that looks them
# up, the worst of some 100,000 tokens.
DEVIATIONS = 10.0


@torch.inference_mode()
def gaps(given: Any, recipe: Mapping[str, tuple[str, int]], pairs: Sequence[tuple[Path, str, str]]) -> list[float]:
    """pairs: (image, reference's caption, ours). The difference of the two tokens' logits after what both begin with, in
    roundings of the largest one; in half precision a near-tie is a few of them, in float32 there should be no pair."""
    if not pairs:
        return []
    model, processor = loaded(given.folder, given.device, given.model["dtype"])
    quantize(model, recipe)
    return [gap(model, processor, given.text, *pair) for pair in pairs]


@torch.inference_mode()
def gap(model: Any, processor: Any, text: str, image: Path, theirs: str, ours: str) -> float:
    """The same of one pair, with the recipe already in the model."""
    return parting(model, None, processor, text, (image, theirs, ours))[0]


@torch.inference_mode()
def parting(
    model: Any, exact: Any | None, processor: Any, text: str, pair: tuple[Path, str, str]
) -> tuple[float, float]:
    """(gap, what rounding explains of a gap) of one pair, both in roundings of the largest logit.

    exact: the model in float32, with the recipe in it. Each logit differs from its own by some deviation, and the worst of
    thousands of tokens are looked at. None: NEAR_TIE is what rounding explains.
    """
    image, theirs, ours = pair
    end = [processor.tokenizer.eos_token_id]
    a, b = (processor.tokenizer(t, add_special_tokens=False).input_ids + end for t in (theirs, ours))
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if same is None:
        return 0.0, NEAR_TIE
    logits = _logits(model, processor, text, image, a[:same])
    rounding = torch.finfo(model.dtype).eps * logits.abs().max()
    explained = NEAR_TIE
    if exact is not None:
        moved = logits - _logits(exact, processor, text, image, a[:same])
        explained = max(NEAR_TIE, DEVIATIONS * float(moved.std() / rounding))
    return float((logits[a[same]] - logits[b[same]]) / rounding), explained


def _logits(model: Any, processor: Any, text: str, image: Path, written: Sequence[int]) -> torch.Tensor:
    """Of the token behind those that are written, (V,) float32."""
    inputs = read(model, processor, image, text)
    more = torch.tensor([list(written)], dtype=torch.long, device=model.device)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    found: torch.Tensor = model(**inputs).logits[0, -1].float()
    return found


def disagreement(dtype: str, agreement: dict[str, Any]) -> str | None:
    """What is wrong with the predictions: anything that differs in float32, in half precision what is no near-tie.

    agreement: `explained`, where it is there, has what rounding explains of each of the `gaps`; else that is NEAR_TIE.
    """
    differing, gaps = agreement["differing"], agreement["gaps"]
    explained = agreement.get("explained") or [NEAR_TIE] * len(gaps)
    apart = [g for g, limit in zip(gaps, explained, strict=True) if not abs(g) <= limit]
    if dtype == "float32" and differing:
        return f"{differing} of {agreement['captions']} captions differ in float32"
    if apart:
        return f"{len(apart)} captions part where tokens are up to {max(apart, key=abs):.1f} roundings apart"
    return None
