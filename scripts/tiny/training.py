"""Training of the tiny BLIP-2 in one run of two phases.

Cells: image encoder and Q-Former learn to name shape, colour and size of every grid cell, and query c is guided to look
at cell c. Text: captions and questions are added; the cell loss stays at a lower weight. Without the first phase and
the guidance the Q-Former never starts to use the image.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2sweep.tasks import scenes

from .batches import LEFT_OUT, Batch, BatchSpec, Text, batches
from .model import HEADS, N_QUERIES, PATCH, WIDTH, make_model

CELLS = scenes.GRID**2
SIDE = scenes.IMAGE_SIZE // PATCH  # patches a side
STRIDE = scenes.CELL // PATCH  # patches a cell's side
CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)


@dataclass(frozen=True)
class Settings:
    """Optimisation settings; learning rates are peaks."""

    lr: float = 2e-3
    image_lr: float = 1e-3  # of image encoder and Q-Former once text begins
    weight_decay: float = 0.1
    question_weight: float = 2.0
    cell_weight: float = 0.3  # once text begins
    guidance_steps: int = 100  # text steps that still guide the attention
    save_every: int = 500
    log_every: int = 50


def patches_of_cells() -> torch.Tensor:
    """Boolean (9, 36): which patches belong to which grid cell."""
    patch = torch.arange(SIDE * SIDE)
    cell = (patch // SIDE // STRIDE) * scenes.GRID + patch % SIDE // STRIDE
    return cell[None] == torch.arange(CELLS)[:, None]


class Guidance:
    """Watches the Q-Former's cross-attention and pulls query c's attention onto the patches of cell c."""

    def __init__(self, model: Blip2ForConditionalGeneration) -> None:
        self.seen: dict[tuple[int, str], torch.Tensor] = {}
        self.layers = [i for i, layer in enumerate(model.qformer.encoder.layer) if layer.has_cross_attention]
        self.patches = patches_of_cells()
        for i in self.layers:
            attention = model.qformer.encoder.layer[i].crossattention.attention
            attention.query.register_forward_hook(self._keep(i, "query"))
            attention.key.register_forward_hook(self._keep(i, "key"))

    def _keep(self, layer: int, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            self.seen[layer, name] = output

        return hook

    def _attention(self, layer: int) -> torch.Tensor:
        """Attention of the first 9 queries, (batch, heads, 9, 36), without the class token's share."""
        query, key = (
            x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (self.seen[layer, "query"], self.seen[layer, "key"])
        )
        scores = query[:, :, :CELLS] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.softmax(-1)[..., 1:]

    def loss(self) -> torch.Tensor:
        shares = [(self._attention(i) * self.patches).sum(-1) for i in self.layers]
        return -torch.stack([share.clamp_min(1e-6).log().mean() for share in shares]).mean()


class CellHead(torch.nn.Module):
    """Names shape, colour and size of 9 cells from features (batch, 9, width); used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, sum(CLASSES))

    def forward(self, features: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """The summed cross-entropy against `cells` (batch, 9, 3)."""
        logits = self.linear(features).split(CLASSES, -1)
        losses = [F.cross_entropy(x.flatten(0, 1), cells[..., i].flatten()) for i, x in enumerate(logits)]
        return sum(losses, start=torch.zeros(()))


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 48, 48, 3) to the normalised fp32 (n, 3, 48, 48) that the processor makes."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25)


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """Additive (n, 1, T, T), T = queries + text: a segment sees the image and its own past, not the other segments."""
    n, length = segments.shape
    total = N_QUERIES + length
    seen = torch.zeros(n, total, total, dtype=torch.bool)
    seen[:, :, :N_QUERIES] = True
    seen[:, N_QUERIES:, N_QUERIES:] = segments[:, :, None] == segments[:, None]
    seen &= torch.ones(total, total, dtype=torch.bool).tril()
    return torch.zeros(n, 1, total, total).masked_fill_(~seen[:, None], -1e9)


def text_losses(
    model: Blip2ForConditionalGeneration, queries: torch.Tensor, text: Text, n_captions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of caption tokens and of answer tokens, given Q-Former outputs (n, 12, width)."""
    ids, labels, positions, segments = map(torch.from_numpy, text)
    embeds = torch.cat([model.language_projection(queries), model.get_input_embeddings()(ids)], 1)
    image_positions = torch.arange(N_QUERIES).expand(len(ids), -1)
    hidden = model.language_model.model.decoder(
        inputs_embeds=embeds,
        attention_mask=attention_mask(segments),
        position_ids=torch.cat([image_positions, positions], 1),
        use_cache=False,
    ).last_hidden_state[:, N_QUERIES:]
    wanted = labels != LEFT_OUT
    losses = F.cross_entropy(model.language_model.lm_head(hidden[wanted]), labels[wanted], reduction="none")
    is_caption = segments[wanted] < n_captions
    return losses[is_caption].mean(), losses[~is_caption].mean()


class Trainer:
    """Model, helpers and optimizer of one run; `step` is a pure function of its state and the batch."""

    def __init__(self, processor: Blip2Processor, spec: BatchSpec, settings: Settings) -> None:
        torch.manual_seed(spec.seed)
        self.spec, self.settings = spec, settings
        self.model = make_model(processor).train()
        self.image_head, self.query_head = CellHead(), CellHead()
        self.guidance = Guidance(self.model)
        self.optimizer = torch.optim.AdamW(list(self._groups()), lr=settings.lr, betas=(0.9, 0.98), foreach=True)

    def _groups(self) -> Iterator[dict]:
        """Parameter groups: image side and language side, each with and without weight decay (vectors)."""
        model = self.model
        image = [model.vision_model, model.qformer, self.image_head, self.query_head]
        for side, modules in (("image", image), ("text", [model.language_model, model.language_projection])):
            parameters = [p for module in modules for p in module.parameters()]
            parameters += [model.query_tokens] if side == "image" else []
            for decay, rank in ((self.settings.weight_decay, True), (0.0, False)):
                yield {"params": [p for p in parameters if (p.ndim > 1) == rank], "weight_decay": decay, "side": side}

    def _set_rates(self, step: int) -> None:
        """Phase one: linear warm-up over 100 steps. Phase two: warm-up over 200, then cosine to 1 %."""
        s, text_step = self.settings, step - self.spec.cell_steps
        in_text = text_step >= 0
        scale = min(1.0, (text_step + 1) / 200 if in_text else (step + 1) / 100)
        if in_text:
            progress = text_step / (self.spec.steps - self.spec.cell_steps)
            scale *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = scale * (s.image_lr if in_text and group["side"] == "image" else s.lr)

    def losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """The weighted terms of the loss."""
        model, settings, text_step = self.model, self.settings, step - self.spec.cell_steps
        cells = torch.from_numpy(batch.cells)
        image = model.vision_model(to_pixels(torch.from_numpy(batch.images))).last_hidden_state
        start = model.query_tokens.expand(len(image), -1, -1)
        queries = model.qformer(query_embeds=start, encoder_hidden_states=image).last_hidden_state
        grid = image[:, 1:].view(len(image), scenes.GRID, STRIDE, scenes.GRID, STRIDE, WIDTH).mean((2, 4)).flatten(1, 2)
        weight = 1.0 if text_step < 0 else settings.cell_weight
        terms = {
            "image_cells": weight * self.image_head(grid, cells),
            "query_cells": weight * self.query_head(queries[:, :CELLS], cells),
        }
        if text_step < settings.guidance_steps:
            terms["guidance"] = self.guidance.loss()
        if batch.text is not None:
            caption, question = text_losses(model, queries, batch.text, self.spec.n_captions)
            terms |= {"captions": caption, "questions": settings.question_weight * question}
        return terms

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """One update; returns the weighted loss terms before it."""
        self._set_rates(step)
        terms = self.losses(batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values(), start=torch.zeros(())).backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        return {name: term.item() for name, term in terms.items()}

    def state(self) -> dict[str, dict]:
        modules = {"model": self.model, "image_head": self.image_head, "query_head": self.query_head}
        return {name: module.state_dict() for name, module in modules.items()} | {
            "optimizer": self.optimizer.state_dict()
        }

    def load(self, state: dict[str, dict]) -> None:
        for name in ("model", "image_head", "query_head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def _save(trainer: Trainer, processor: Blip2Processor, folder: Path, done: int, seconds: float) -> None:
    """Model and processor as Hugging Face folders, and the state to continue from; the rename commits it."""
    trainer.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    partial = folder / "training.pt.part"
    torch.save({"step": done, "seconds": seconds, **trainer.state()}, partial)
    partial.rename(folder / "training.pt")


def _resume(trainer: Trainer, folder: Path) -> tuple[int, float]:
    """Load `folder/training.pt` if there is one; steps done and seconds spent."""
    if not (folder / "training.pt").exists():
        return 0, 0.0
    state = torch.load(folder / "training.pt", weights_only=True)
    trainer.load(state)
    return state["step"], state["seconds"]


def _log(folder: Path, step: int, seconds: float, means: dict[str, float]) -> None:
    line = json.dumps({"step": step, "seconds": round(seconds), **{k: round(v, 4) for k, v in means.items()}})
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def train(
    processor: Blip2Processor, spec: BatchSpec, settings: Settings, folder: Path
) -> Blip2ForConditionalGeneration:
    """Train to the last step, continuing from `folder/training.pt` if it exists; save the fp32 model in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(processor, spec, settings)
    first, seconds = _resume(trainer, folder)
    begin, means = time.time() - seconds, dict[str, float]()
    for step, batch in batches(processor.tokenizer, spec, first):
        for name, value in trainer.step(batch, step).items():
            means[name] = 0.97 * means.get(name, value) + 0.03 * value
        done, seconds = step + 1, time.time() - begin
        if done % settings.log_every == 0 or done == spec.steps:
            _log(folder, done, seconds, means)
        if done % settings.save_every == 0 or done == spec.steps:
            _save(trainer, processor, folder, done, seconds)
    return trainer.model.eval()
