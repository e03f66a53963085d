"""How a model's forward wants what others want otherwise: the section `adapter` of a model config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from blip2sweep.errors import UserError
from blip2sweep.wire.model_section import ModelSection

CHOICES: Mapping[str, tuple[object, ...]] = {
    "features": ("list", "stacked"),
    "first_position": (0, 1),
    "token_types": ("image", "prefix"),
}
TOKEN = "image_token"


class Adapter(NamedTuple):
    """features: whether the features of pictures are given as a list or as one tensor. first_position: the number of the
    first token. token_types: which tokens have type 1 where the forward takes `token_type_ids`: those of the picture,
    or those behind the prompt, which is a prefix that is read in both directions. image_token: what stands for a
    picture in a text; planning refuses questions that hold it.
    """

    features: str = "list"
    first_position: int = 0
    token_types: str = "image"
    image_token: str | None = None

    @classmethod
    def of(cls, model: ModelSection) -> Adapter:
        """The adapter of a model config. Raises UserError with all mistakes in one line."""
        given = model.get("adapter") or {}
        known = (*CHOICES, TOKEN)
        wrong = [f"{k}: unknown; right: {', '.join(known)}" for k in given if k not in known]
        if not isinstance(given.get(TOKEN, ""), str):
            wrong.append(f"{TOKEN}={given[TOKEN]}; right: a text")
        wrong += [
            f"{k}={given[k]}; right: {' or '.join(map(str, right))}"
            for k, right in CHOICES.items()
            if k in given and given[k] not in right
        ]
        if wrong:
            raise UserError("; ".join(f"model.adapter.{sentence}" for sentence in wrong))
        return cls(**cast("dict[str, Any]", given))
