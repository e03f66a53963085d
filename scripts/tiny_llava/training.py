"""Training of the tiny LLaVA in one run of two phases.

Cells: the tower alone learns to name shape, colour and size of every grid cell. Text: captions and questions are added;
the cell loss stays at a lower weight. LLaVA reads the tower's features one block before the last: that block gets a cell
loss of its own in the first phase, so that its weights are like the others', and no gradient ever after.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.tiny.batches import Batch, BatchSpec, Text
from scripts.tiny.loop import Settings, Sides, Trainer
from scripts.tiny.losses import CellHead, attention_mask, mean_of_cells, text_losses, to_pixels

from .model import BEFORE, N_IMAGE, WORDING, make_model

COOL_STEPS = 1000  # the last steps, in which the rates fall
LAST_WEIGHT = 0.5  # of the cell loss of the block that nothing reads


def front_ids(processor: LlavaProcessor) -> Tensor:
    """What stands in front of every request, int64 (40,): <s>, 'USER: ' and the image's placeholders."""
    ids = processor.tokenizer(BEFORE + "<image>" * N_IMAGE).input_ids
    assert len(ids) == WORDING.first
    return torch.tensor(ids)


def read_text(
    model: LlavaForConditionalGeneration, front: Tensor, features: Tensor, text: Text, n_captions: int
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of caption tokens and of answer tokens, given the tower's patches (n, 36, width)."""
    ids, labels, positions, segments = map(torch.from_numpy, text)
    core, n, start = model.model, len(ids), len(front)
    embed = core.get_input_embeddings()
    before = embed(front).expand(n, -1, -1).clone()
    before[:, front == model.config.image_token_index] = core.multi_modal_projector(features)
    hidden = core.language_model(
        inputs_embeds=torch.cat([before, embed(ids)], 1),
        attention_mask=attention_mask(segments, start),
        position_ids=torch.cat([torch.arange(start).expand(n, -1), positions], 1),
        use_cache=False,
    ).last_hidden_state[:, start:]
    return text_losses(hidden, model.lm_head, labels, segments, n_captions)


class LlavaTrainer(Trainer):
    """The LLaVA with two heads that name cells: from the block that the projector reads, and from the last."""

    wording = WORDING

    def __init__(self, processor: LlavaProcessor, spec: BatchSpec, settings: Settings) -> None:
        torch.manual_seed(spec.seed)
        model = make_model(processor).train()
        super().__init__(model, {"head": CellHead(), "last_head": CellHead()}, spec, settings)
        self.front = front_ids(processor)

    def sides(self) -> Sides:
        core = self.model.model
        modules = {
            "image": [core.vision_tower, *self.heads.values()],
            "text": [core.multi_modal_projector, core.language_model, self.model.lm_head],
        }
        return {side: [p for module in found for p in module.parameters()] for side, found in modules.items()}

    def cooling(self, text_step: int) -> float:
        """One, then a straight line to zero."""
        left = self.spec.steps - self.spec.cell_steps - text_step
        return min(1.0, left / COOL_STEPS)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        tower, cells = self.model.model.vision_tower, torch.from_numpy(batch.cells)
        pixels = to_pixels(torch.from_numpy(batch.images))
        states = tower(pixels, output_hidden_states=True).hidden_states
        features = states[self.model.config.vision_feature_layer][:, 1:]
        cell_loss = self.heads["head"](mean_of_cells(features), cells)
        if batch.text is None:
            last = self.heads["last_head"](mean_of_cells(states[-1][:, 1:]), cells)
            return {"cells": cell_loss, "cells_last": LAST_WEIGHT * last}
        caption, question = read_text(self.model, self.front, features, batch.text, self.spec.n_captions)
        settings = self.settings
        return {
            "cells": settings.cell_weight * cell_loss,
            "captions": caption,
            "questions": settings.question_weight * question,
        }
