"""LLaVA on transformers 5.17, whose forward pass takes no features of pictures: it is given them as embeddings."""

from __future__ import annotations

import inspect
from typing import Any

import torch

FEATURES = "mm_encoder_outputs"


def taking_features(model: Any) -> bool:
    """Let the forward pass of a model take `mm_encoder_outputs` where it does not. Returns whether it had to.

    The features then stand where the placeholders are, as in newer releases. A pass without them is as it was.
    """
    plain = type(model)
    signature = inspect.signature(plain.forward)
    if FEATURES in signature.parameters:
        return False

    def forward(self: Any, input_ids: Any = None, mm_encoder_outputs: Any = None, **others: Any) -> Any:
        if mm_encoder_outputs is None:
            return plain.forward(self, input_ids=input_ids, **others)
        embeds = self.get_input_embeddings()(input_ids)
        features = torch.cat(list(mm_encoder_outputs["image"].pooler_output)).to(embeds)
        places = (input_ids == self.config.image_token_id)[..., None].expand_as(embeds)
        return plain.forward(self, inputs_embeds=embeds.masked_scatter(places, features), **others)

    own, rest = list(signature.parameters.values()), inspect.Parameter.VAR_KEYWORD
    more = inspect.Parameter(FEATURES, inspect.Parameter.KEYWORD_ONLY, default=None)
    behind = [p for p in own if p.kind == rest]
    # `generate` and the back end read the names of its arguments.
    forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*(p for p in own if p.kind != rest), more, *behind]
    )
    model.__class__ = type(plain.__name__, (plain,), {"forward": forward})
    return True
