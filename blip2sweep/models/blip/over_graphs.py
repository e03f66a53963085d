"""BLIP-1's last stage over sessions: captions go on after a prompt, answers follow a question that an encoder has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.bert import Captioner
from blip2sweep.models.blip import graphs as own
from blip2sweep.models.graphs import Graphs, Session, Stages
from blip2sweep.models.graphs.decoder import GraphDecoder, GraphPrefilled, Laid
from blip2sweep.models.graphs.stage import GraphStage
from blip2sweep.models.llama import positions
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids, padded

if TYPE_CHECKING:
    from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering


class Beside:
    """A `Session` of which some inputs stay while a text is written. given: these inputs, one row for each text."""

    def __init__(self, session: Session) -> None:
        self.session, self.given = session, dict[str, Tensor]()

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        return self.session(**inputs, **self.given)

    def start(self, rows: int) -> None:
        self.session.start(rows)

    def select(self, rows: Tensor) -> None:
        self.session.select(rows)
        self.given = {name: x[rows] for name, x in self.given.items()}

    def unchanged(self) -> AbstractContextManager[None]:
        return self.session.unchanged()


class GraphCaptioner(GraphDecoder):
    """A `Language` (models/language.py) over the sessions of a BLIP-1 model. captioner: the model's own last stage."""

    def __init__(self, captioner: Captioner, sessions: Mapping[str, Session]) -> None:
        self.beside, self.sessions, self.captioner = Beside(sessions[own.LANGUAGE]), sessions, captioner
        super().__init__(captioner, captioner.base, self.beside, self.laid)

    @torch.inference_mode()
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> GraphPrefilled:
        states, mask = self.states(pictures.values.float(), prompts)
        self.beside.given = self.sessions[own.CROSS](states=states) | mask
        return super().prefill(pictures, prompts)

    def states(self, features: Tensor, prompts: Sequence[Ids]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the cross-attention reads, (rows, tokens, width), and what the decoder gets besides its keys."""
        return features, {}

    def laid(self, pictures: Rows, prompts: Sequence[Ids]) -> Laid:
        """What the decoder reads before it writes. No token is a picture's."""
        ids, mask = padded([self.captioner.first(p) for p in prompts], self.base.pad, left=True)
        return Laid(ids, mask, torch.zeros_like(ids, dtype=torch.bool), torch.zeros(*ids.shape, 0))

    def run(self, laid: Laid, mask: Tensor, at: Tensor) -> Tensor:
        places = positions(mask)[:, -laid.ids.shape[1] :]
        return self.session(input_ids=laid.ids, attention_mask=mask, position_ids=places, at=at)["logits"]


class GraphAnswerer(GraphCaptioner):
    """The same of a model that answers questions, which its encoder reads."""

    one_stream = False

    def states(self, features: Tensor, prompts: Sequence[Ids]) -> tuple[Tensor, dict[str, Tensor]]:
        ids, mask = padded(prompts, self.base.pad, left=False)
        read = self.sessions[own.QUESTIONS](input_ids=ids, attention_mask=mask, features=features)
        return read["states"], {"states_mask": mask}


def captioning(model: BlipForConditionalGeneration, captioner: Captioner) -> Graphs:
    def stages(sessions: Mapping[str, Session]) -> Stages:
        return Stages(_images(sessions), GraphCaptioner(captioner, sessions))

    decoder = model.text_decoder
    return Graphs((own.vision(model), own.cross(decoder), own.language(decoder, masked=False)), stages)


def answering(model: BlipForQuestionAnswering, captioner: Captioner, features: tuple[int, int]) -> Graphs:
    """features: the number and the width of those of a picture."""

    def stages(sessions: Mapping[str, Session]) -> Stages:
        return Stages(_images(sessions), GraphAnswerer(captioner, sessions))

    decoder, before = model.text_decoder, (own.vision(model), own.questions(model, features))
    return Graphs((*before, own.cross(decoder), own.language(decoder, masked=True)), stages)


def _images(sessions: Mapping[str, Session]) -> tuple[GraphStage, ...]:
    return (GraphStage(own.VISION, sessions[own.VISION], "pixels", "features"),)
