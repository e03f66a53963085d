"""A small checkpoint of an image-text model, loaded, and what transformers' own processor and forward make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from blip2sweep.models.image_text.chat import TEMPLATE
from blip2sweep.models.load import Loaded
from blip2sweep.models.ragged import Rows, joined
from tests.ragged_pictures import pictures

# One model of each model_type; the other ones have the same classes.
FIRST = (
    "llava-1.5-7b", "llava-v1.6-mistral-7b", "llava-onevision-0.5b", "smolvlm-256m", "paligemma-3b-224", "internvl3-1b",
    "gemma-3-4b", "qwen2.5-vl-3b", "qwen3-vl-2b",
)  # fmt: skip
USERS = ("what is this?", "a", "how many cats are there, one or two?", "yes or no")


class Made(NamedTuple):
    """name: of the YAML. section: its composed `model` section. images, features: one row for each of USERS."""

    name: str
    section: dict[str, Any]
    loaded: Loaded
    images: list[Image.Image]
    features: Rows


def made(name: str, section: dict[str, Any], loaded: Loaded) -> Made:
    images = pictures(len(USERS))
    alone = [features(loaded, loaded.pixels(image)) for image in images]
    return Made(name, section, loaded, images, joined(alone))


def features(loaded: Loaded, rows: Rows) -> Rows:
    for stage in loaded.images:
        rows = stage.run(rows)
    return rows


def own_batch(m: Made, rows: Sequence[int]) -> dict[str, Tensor]:
    """What transformers' documentation says: the processor's own batch of texts and pictures."""
    processor, images = m.loaded.processor, [m.images[i] for i in rows]
    texts = [USERS[i] for i in rows]
    if m.section["chat"] == TEMPLATE:
        turns = [[{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
                 for image, text in zip(images, texts, strict=True)]  # fmt: skip
        batch = processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True},
        )  # fmt: skip
        return dict(batch)
    if m.name.startswith("paligemma"):  # its processor puts BOS and a newline around
        texts = ["<image>" + text for text in texts]
    else:
        texts = [m.section["chat"].replace("{image}", processor.image_token).replace("{}", text) for text in texts]
    batch = dict(processor(text=texts, images=[[image] for image in images], padding=True, return_tensors="pt"))
    batch.pop("labels", None)
    return batch


def plain_nll(m: Made, row: int, reference: list[int]) -> float:
    """-log p of a reference by one forward pass over one row, from pixels, without a cache."""
    batch, model = own_batch(m, [row]), m.loaded.model
    prompt, n = batch["input_ids"].shape[1], len(reference)
    both = {**batch, "input_ids": torch.cat([batch["input_ids"], torch.tensor([reference])], 1)}
    both["attention_mask"] = torch.ones_like(both["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in batch:
            behind = int(m.name.startswith("paligemma") and name == "token_type_ids")  # 1 is PaliGemma's suffix
            both[name] = torch.cat([batch[name], torch.full((1, n), behind)], 1)
    with torch.inference_mode():
        logits = model(**both, use_cache=False).logits[0, prompt - 1 : prompt - 1 + n]
    return float(-logits.double().log_softmax(-1)[range(n), reference].sum())
