"""How much of a checkpoint's blocks its linear layers are: experts of a mixture may be in none. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.wire.model_section import ModelSection

LEAST = 0.5  # a sweep of fewer weights says little about the model
IN_A_BLOCK = re.compile(r"\.\d+\.")


def linear_share(tensors: Mapping[str, Tensor], anatomy: Anatomy) -> float:
    """The share of the weights inside blocks that are those of linear layers: 1 for a model without experts.

    tensors: of the files, by name. Weights are what has two dimensions or more; a block's name has a number. Embeddings
    and heads are in no block and do not count.
    """
    listed = {s.name for p in anatomy.parts.values() for s in p.stacks if not s.whole}
    linear = sum(x.weights for p in anatomy.parts.values() for x in (*p.linears, *p.unread) if x.stack in listed)
    inside = sum(math.prod(t.shape) for n, t in tensors.items() if len(t.shape) > 1 and IN_A_BLOCK.search(n))
    return min(1.0, linear / inside) if inside else 1.0


def partial_share(tensors: Mapping[str, Tensor], anatomy: Anatomy, model: ModelSection) -> float | None:
    """The share where it is less than LEAST, else None. Raises UserError unless `allow_partial` is set there."""
    share = linear_share(tensors, anatomy)
    if share >= LEAST:
        return None
    if not model.get("allow_partial"):
        raise UserError(
            f"model {model['name']}: {share:.1%} of the weights in its blocks are in linear layers, and all others (experts "
            f"of a mixture) would be left alone; right: model.allow_partial=true, which runs it and says so in column linear_share"
        )
    return share
