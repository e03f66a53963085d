"""Training of the tiny BLIP-2 in one run of two phases.

Cells: image encoder and Q-Former learn to name shape, colour and size of every grid cell, and query c is guided to look
at cell c. Text: captions and questions are added; the cell loss stays at a lower weight. Without the first phase and
the guidance the Q-Former never starts to use the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2sweep.tasks import scenes

from .batches import Batch, BatchSpec, Text
from .loop import Settings, Sides, Trainer
from .losses import CELLS, SIDE, STRIDE, CellHead, attention_mask, mean_of_cells, text_losses, to_pixels
from .model import HEADS, N_QUERIES, WORDING, make_model

GUIDANCE_STEPS = 100  # text steps that still guide the attention


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


def read_text(
    model: Blip2ForConditionalGeneration, queries: torch.Tensor, text: Text, n_captions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of caption tokens and of answer tokens, given Q-Former outputs (n, 12, width)."""
    ids, labels, positions, segments = map(torch.from_numpy, text)
    embeds = torch.cat([model.language_projection(queries), model.get_input_embeddings()(ids)], 1)
    image_positions = torch.arange(N_QUERIES).expand(len(ids), -1)
    hidden = model.language_model.model.decoder(
        inputs_embeds=embeds,
        attention_mask=attention_mask(segments, N_QUERIES),
        position_ids=torch.cat([image_positions, positions], 1),
        use_cache=False,
    ).last_hidden_state[:, N_QUERIES:]
    return text_losses(hidden, model.language_model.lm_head, labels, segments, n_captions)


class Blip2Trainer(Trainer):
    """The BLIP-2 with a head that names cells from patches, and one that names them from queries."""

    wording = WORDING

    def __init__(self, processor: Blip2Processor, spec: BatchSpec, settings: Settings) -> None:
        torch.manual_seed(spec.seed)
        model = make_model(processor).train()
        super().__init__(model, {"image_head": CellHead(), "query_head": CellHead()}, spec, settings)
        self.guidance = Guidance(model)

    def sides(self) -> Sides:
        model = self.model
        image = [model.vision_model, model.qformer, *self.heads.values()]
        text = [model.language_model, model.language_projection]
        image_side = [p for module in image for p in module.parameters()]
        return {
            "image": [*image_side, model.query_tokens],
            "text": [p for module in text for p in module.parameters()],
        }

    def cooling(self, text_step: int) -> float:
        """Cosine to 1 %."""
        progress = text_step / (self.spec.steps - self.spec.cell_steps)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    def losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        model, settings, text_step = self.model, self.settings, step - self.spec.cell_steps
        cells = torch.from_numpy(batch.cells)
        image = model.vision_model(to_pixels(torch.from_numpy(batch.images))).last_hidden_state
        start = model.query_tokens.expand(len(image), -1, -1)
        queries = model.qformer(query_embeds=start, encoder_hidden_states=image).last_hidden_state
        weight = 1.0 if text_step < 0 else settings.cell_weight
        terms = {
            "image_cells": weight * self.heads["image_head"](mean_of_cells(image[:, 1:]), cells),
            "query_cells": weight * self.heads["query_head"](queries[:, :CELLS], cells),
        }
        if text_step < GUIDANCE_STEPS:
            terms["guidance"] = self.guidance.loss()
        if batch.text is not None:
            caption, question = read_text(model, queries, batch.text, self.spec.n_captions)
            terms |= {"captions": caption, "questions": settings.question_weight * question}
        return terms
