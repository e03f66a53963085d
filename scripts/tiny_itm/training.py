"""Contrast (ITC) and matching (ITM) as BLIP-2 learns them: the hardest wrong partners in the batch are read together.

Li et al., BLIP-2, section 3.1. Image features are computed once, because the tower does not learn.
"""

from __future__ import annotations

import io
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import Blip2ForImageTextRetrieval, BlipProcessor

from blip2sweep.tasks import scenes
from blip2sweep.tasks.captions import caption_as_trained
from scripts.tiny.losses import to_pixels

LENGTH = 28  # tokens of a caption at most; none of the scenes' is longer


@dataclass(frozen=True)
class Spec:
    """n_scenes: that captions are drawn of. batch: pairs of contrast; the first `read` of them are also matched.

    hardness: how closely wrong partners are drawn by their contrast in the end; 0 draws any, as at first. Of the hardest
    many are right: "there is one circle" is true of many scenes.
    """

    seed: int = 0
    steps: int = 1400
    n_scenes: int = 12_000
    batch: int = 64
    read: int = 32
    lr: float = 2e-3
    temperature: float = 0.07
    hard_fraction: float = 0.75
    hardness: float = 0.6


class Data:
    """Features (scenes, tokens, width) of generated pictures, and five captions of each as token ids."""

    def __init__(self, model: Blip2ForImageTextRetrieval, processor: BlipProcessor, spec: Spec) -> None:
        rng, nrng = random.Random(f"itm-{spec.seed}"), np.random.default_rng([spec.seed, 77])
        features, texts = [], []
        for start in range(0, spec.n_scenes, 100):
            things = [scenes.scene(rng) for _ in range(min(100, spec.n_scenes - start))]
            looks = [scenes.HARD if rng.random() < spec.hard_fraction else scenes.EASY for _ in things]
            images = [as_jpeg(scenes.render(x, nrng, look)) for x, look in zip(things, looks, strict=True)]
            with torch.inference_mode():
                features.append(model.vision_model(to_pixels(torch.from_numpy(np.stack(images)))).last_hidden_state)
            texts += [caption_as_trained(text) for x in things for text in scenes.captions(x, rng)]
        self.features = torch.cat(features).half()
        tokens = processor.tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="pt")
        self.ids = tokens.input_ids.reshape(spec.n_scenes, -1, LENGTH)

    def batch(self, spec: Spec, step: int) -> tuple[Tensor, Tensor]:
        """(features, token ids) of scenes and one caption of each, without columns of padding alone."""
        generator = torch.Generator().manual_seed(1_000_003 * spec.seed + step)
        rows = torch.randperm(len(self.ids), generator=generator)[: spec.batch]
        ids = self.ids[rows, torch.randint(self.ids.shape[1], (spec.batch,), generator=generator)]
        return self.features[rows].float(), ids[:, : int((ids != 0).sum(1).max())]


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """What is left of a picture after a file of the scenes' quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=scenes.JPEG_QUALITY)
    return np.array(Image.open(file))


def contrast(model: Blip2ForImageTextRetrieval, features: Tensor, ids: Tensor) -> Tensor:
    """(pictures, texts): the largest cosine over the queries."""
    queries = model.query_tokens.expand(len(features), -1, -1)
    seen = model.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
    mask = (ids != 0).long()
    said = model.qformer(
        query_embeds=model.embeddings(input_ids=ids), query_length=0, attention_mask=mask
    ).last_hidden_state
    seen = F.normalize(model.vision_projection(seen), dim=-1)
    said = F.normalize(model.text_projection(said[:, 0]), dim=-1)
    return torch.einsum("iqd,td->itq", seen, said).max(-1).values


def match(model: Blip2ForImageTextRetrieval, features: Tensor, ids: Tensor) -> Tensor:
    """(pairs, 2) logits."""
    queries = model.query_tokens.expand(len(features), -1, -1)
    mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), (ids != 0).long()], 1)
    out = model.qformer(
        query_embeds=model.embeddings(input_ids=ids, query_embeds=queries), query_length=queries.shape[1],
        attention_mask=mask, encoder_hidden_states=features,
    )  # fmt: skip
    logits: Tensor = model.itm_head(out.last_hidden_state[:, : queries.shape[1]]).mean(1)
    return logits


def losses(
    model: Blip2ForImageTextRetrieval, spec: Spec, step: int, features: Tensor, ids: Tensor
) -> dict[str, Tensor]:
    similar = contrast(model, features, ids) / spec.temperature
    same = (ids[:, None] == ids[None]).all(-1)  # equal captions of other scenes are no wrong partners
    targets = same.float() / same.sum(1, keepdim=True)
    both = [F.cross_entropy(x, targets, label_smoothing=0.1) for x in (similar, similar.T)]
    generator, n = torch.Generator().manual_seed(7 * step + spec.seed), spec.read
    hardness = spec.hardness * step / spec.steps
    wrong = [_drawn(hardness * x[:n].detach(), same[:n], generator) for x in (similar, similar.T)]
    rows = torch.cat([torch.arange(n), torch.arange(n), wrong[1]])
    texts = torch.cat([torch.arange(n), wrong[0], torch.arange(n)])
    labels = torch.tensor([1] * n + [0] * 2 * n)
    return {"itc": sum(both) / 2, "itm": F.cross_entropy(match(model, features[rows], ids[texts]), labels)}  # type: ignore[dict-item]


def _drawn(similar: Tensor, same: Tensor, generator: torch.Generator) -> Tensor:
    chances = similar.softmax(1).masked_fill(same, 0) + 1e-4 * ~same
    return torch.multinomial(chances, 1, generator=generator)[:, 0]


def train(model: Blip2ForImageTextRetrieval, data: Data, spec: Spec, log: Path) -> None:
    """Train in place: linear warm-up over 100 steps, then a cosine to zero. The log gets a line every 50 steps."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if (p.ndim > 1) == wide], "weight_decay": 0.05 * wide} for wide in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, spec.steps))
    begin, cpu, means, lines = time.time(), time.process_time(), dict[str, float](), list[str]()
    for step in range(spec.steps):
        terms = losses(model, spec, step, *data.batch(spec, step))
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values(), start=torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        rate.step()
        means = {name: 0.97 * means.get(name, x.item()) + 0.03 * x.item() for name, x in terms.items()}
        if (step + 1) % 50 == 0 or step + 1 == spec.steps:
            told = {name: round(value, 4) for name, value in means.items()}
            lines.append(json.dumps({"step": step + 1, "cpu_seconds": round(time.process_time() - cpu), **told}))
            print(lines[-1], f"{time.time() - begin:.0f} s", flush=True)
            log.write_text("".join(f"{line}\n" for line in lines))


def _factor(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
