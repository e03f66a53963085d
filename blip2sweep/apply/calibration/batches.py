"""The calibration samples as each part sees them in use: pixels, image features, and texts behind query features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blip2sweep.models.anatomy import Linear
from blip2sweep.models.architecture import BRIDGE, VISION
from blip2sweep.models.blip2.bridge import bridge
from blip2sweep.models.blip2.language import Ids, inputs, prompt_ids, reference_ids
from blip2sweep.models.blip2.vision import vision
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded
from blip2sweep.tasks.calibration import Calibration

READ_ENCODER = (".EncDecAttention.k", ".EncDecAttention.v")  # by path: what the config calls a stack or kind is its own


class Batch(NamedTuple):
    """run(): the part on one batch; weights: of the tokens of its stream of pictures and text, None where all count 1."""

    run: Callable[[], object]
    weights: Tensor | None = None


class Feed:
    """Batches by stage. Features are computed when first asked for, by the model as it is then."""

    def __init__(self, loaded: Loaded, calibration: Calibration, workers: int = 0) -> None:
        self.loaded, self.calibration, self.workers = loaded, calibration, workers
        self.size = calibration.batch

    @cached_property
    def _pixels(self) -> Tensor:
        features = load_pixels(self.loaded, self.calibration.data, batch_size=self.size, workers=self.workers)
        assert features.pixels is not None
        return features.pixels

    @cached_property
    def _image_features(self) -> list[Tensor]:
        return [vision(self.loaded, x).clone() for x in self._pixels.split(self.size)]

    @cached_property
    def _query_features(self) -> Tensor:
        """(images, num_query_tokens, width of the Q-Former)."""
        return torch.cat([bridge(self.loaded, x) for x in self._image_features]).clone()

    def batches(self, stage: str) -> list[Batch]:
        if stage == VISION:
            return [Batch(partial(vision, self.loaded, x)) for x in self._pixels.split(self.size)]
        if stage == BRIDGE:
            return [Batch(partial(bridge, self.loaded, x)) for x in self._image_features]
        return [self._language(group) for group in self._groups()]

    # ---- the language model

    @cached_property
    def _texts(self) -> tuple[list[Ids], list[Ids]]:
        """Prompts and first targets of the samples."""
        prompt, data = self.calibration.prompt or "", self.calibration.data
        prompts = prompt_ids(self.loaded, [data.rules.prompt(s, prompt) for s in data.samples])
        answers = [data.rules.targets(s, 1)[0] for s in data.samples]
        return prompts, reference_ids(self.loaded, answers, bool(prompt))

    def _groups(self) -> list[list[int]]:
        """Samples of like lengths, so that no batch has padding: it would be measured as well."""
        prompts, references = self._texts
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (p, r) in enumerate(zip(prompts, references, strict=True)):
            groups.setdefault((len(p), len(r)), []).append(i)
        return [g[k : k + self.size] for g in groups.values() for k in range(0, len(g), self.size)]

    def _language(self, group: Sequence[int]) -> Batch:
        prompts, references = ([x[i] for i in group] for x in self._texts)
        whole = prompts
        if self.loaded.family == "opt":  # the text as the model reads it: all but the end
            whole = [p + r[:-1] for p, r in zip(prompts, references, strict=True)]
        weight = self.calibration.image_token_weight
        pictures = 0 if self.calibration.text_only else self.loaded.model.config.num_query_tokens
        row = torch.tensor([weight] * pictures + [1.0] * len(whole[0]))
        weights = None if weight == 1 or not pictures else row.repeat(len(group))
        return Batch(lambda: self._read(group, whole, references), weights)

    @torch.inference_mode()
    def _read(self, group: Sequence[int], whole: Sequence[Ids], references: Sequence[Ids]) -> Any:
        model = self.loaded.model.language_model
        embeds = self._embeds(group, whole)
        seen = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        if self.loaded.family == "opt":
            return model.model(inputs_embeds=embeds, attention_mask=seen, use_cache=False)
        labels = torch.tensor(references, device=embeds.device)
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        return model(inputs_embeds=embeds, attention_mask=seen, decoder_input_ids=shifted, use_cache=False)

    def _embeds(self, group: Sequence[int], whole: Sequence[Ids]) -> Tensor:
        if self.calibration.text_only:
            embedding = self.loaded.model.language_model.get_input_embeddings()
            return embedding(torch.tensor(whole, device=embedding.weight.device))
        row = {image_id: i for i, image_id in enumerate(self.calibration.data.images)}
        rows = [row[self.calibration.data.samples[i].image_id] for i in group]
        return inputs(self.loaded, self._query_features[rows], whole)[0]


def token_weights(family: str, layer: Linear, batch: Batch) -> Tensor | None:
    """Those of a layer's inputs: pictures' and texts' tokens together, all but those of a T5 decoder's own stream."""
    in_decoder = family == "t5" and layer.path.startswith("language_model.decoder.")
    return None if in_decoder and not layer.path.endswith(READ_ENCODER) else batch.weights
