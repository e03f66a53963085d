"""The procedure of the published study (gautomdas/blip2-coco), plainly: what blip2sweep is measured against.

Per cell: load the checkpoint, quantize the layers named, caption one image after another with the whole model's
`generate`, score in a fresh process. Nothing of blip2sweep runs here; imports are not timed, loading is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

CLASSES: dict[str, tuple[Any, Any, Any]] = {
    "blip-2": (Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil),
    "llava": (LlavaForConditionalGeneration, LlavaProcessor, CLIPImageProcessorPil),
}

SCORE = """
import json, sys
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
texts, references = json.load(sys.stdin)
as_records = lambda lists: {i: [{"caption": t} for t in x] for i, x in enumerate(lists)}
res = PTBTokenizer().tokenize(as_records([[t] for t in texts]))
gts = PTBTokenizer().tokenize(as_records(references))
print(json.dumps({"cider": Cider().compute_score(gts, res)[0], "meteor": Meteor().compute_score(gts, res)[0]}))
"""


def minmax(x: Tensor, bits: int) -> Tensor:
    """The study's quantizer, over a whole tensor; a constant one, of which it makes NaN, stays as it is."""
    a, b = x.min(), x.max() - x.min()
    if b == 0:
        return x
    return ((2**bits - 1) * (x - a) / b).round() / (2**bits - 1) * b + a


def rtn(weight: Tensor, bits: int) -> Tensor:
    """Round to nearest, asymmetric, one scale an output channel."""
    low, high = weight.amin(1, keepdim=True).clamp(max=0), weight.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).eps)
    zero = (-(low / scale).round()).clamp(0, 2**bits - 1)
    return (((weight * (1 / scale)).round() + zero).clamp(0, 2**bits - 1) - zero) * scale


@torch.no_grad()
def quantize(model: Any, recipe: Mapping[str, tuple[str, int]]) -> None:
    """recipe: {module path: (method, bits)}."""
    for path, (method, bits) in recipe.items():
        module = model.get_submodule(path)
        weight = module.weight.float()
        module.weight.copy_(rtn(weight, bits) if method == "rtn" else minmax(weight, bits))
        if method == "minmax" and module.bias is not None:
            module.bias.copy_(minmax(module.bias.float(), bits))


def loaded(folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """(model, processor) of a checkpoint."""
    model_class, processor_class, images = CLASSES[AutoConfig.from_pretrained(folder).model_type]
    model = model_class.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    processor = processor_class.from_pretrained(folder, local_files_only=True)
    processor.image_processor = images.from_pretrained(folder)  # the same pixels as ours
    return model.to(device).eval(), processor


def read(model: Any, processor: Any, image: Path, text: str) -> Any:
    """What the model gets of an image and a text."""
    inputs = processor(images=Image.open(image).convert("RGB"), text=text, return_tensors="pt")
    return inputs.to(model.device, model.dtype)


@torch.inference_mode()
def caption(model: Any, processor: Any, image: Path, text: str, new_tokens: int) -> str:
    """One image through the documented path of transformers. text: before the caption, with the image's token."""
    inputs = read(model, processor, image, text)
    ids = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return str(processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]).strip()


def cell(
    folder: Path, recipe: Mapping[str, tuple[str, int]], images: Sequence[Path], references: Sequence[Sequence[str]],
    device: str, dtype: str, new_tokens: int, score: bool, text: str = "",
) -> tuple[list[str], dict[str, float]]:  # fmt: skip
    """(captions, seconds by step) of one cell."""
    clock = [time.perf_counter()]
    model, processor = loaded(folder, device, dtype)
    clock.append(time.perf_counter())
    quantize(model, recipe)
    clock.append(time.perf_counter())
    texts = [caption(model, processor, image, text, new_tokens) for image in images]
    clock.append(time.perf_counter())
    if score:
        data = json.dumps([texts, references])
        subprocess.run([sys.executable, "-c", SCORE], input=data, text=True, check=True, capture_output=True)
    clock.append(time.perf_counter())
    steps = ("load", "quantize", "generate", "score")
    return texts, {s: b - a for s, a, b in zip(steps, clock, clock[1:], strict=False)}
