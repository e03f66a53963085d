"""Sparsity as a step of a recipe: one mask for each linear layer. torch is imported only when it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.options import options_of
from blip2sweep.compression.quantize.per_part import SPARSE_OPTIONS
from blip2sweep.compression.sparsity import METHODS, UNSTRUCTURED
from blip2sweep.compression.sparsity.resolve import resolve, resolve_options
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import SPARSITY, Pair, Spec, SpecFields
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear, Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

__all__ = ["AFTER", "LEVEL", "SEMANTICS", "apply", "from_entry", "identity", "layers_of", "resolve", "text", "to_entry"]

LEVEL, AFTER, SEMANTICS = "layer", False, 1


def layers_of(pairs: Sequence[Pair]) -> tuple[tuple[Linear, Sparse], ...]:
    """The entries of a sparsity step, with their types."""
    return tuple((x, s) for x, s in pairs if isinstance(x, Linear) and isinstance(s, Sparse))


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    """{module path: spec}. Two ratios that leave as many zeros in a row are one, so the number stands in their place."""
    return {x.path: _with_zeros(s, x.in_features) for x, s in layers_of(pairs)}


def _with_zeros(sparse: Sparse, in_features: int) -> SpecFields:
    fields = sparse.as_dict()
    return {
        ("zeros" if k == "ratio" else k): sparse.zeros(in_features) if k == "ratio" else v for k, v in fields.items()
    }


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    """Put zeros into the layers' weights, which stay zero in later steps. made: {path: `Prepared`} of measured layers."""
    from blip2sweep.compression.sparsity.layer import exchange

    for x, sparse in layers_of(pairs):
        exchange(x.path, model.get_submodule(x.path), sparse, undo, made.get(x.path))


# ---- in words


def to_entry(spec: Spec) -> SpecFields:
    return spec.as_dict()


def from_entry(entry: Mapping[str, object]) -> Sparse:
    """The inverse of `to_entry`. Raises UserError, one line, for options that make no spec."""
    given = {k: v for k, v in entry.items() if k != "calibration"}
    try:
        spec = resolve_options(options_of(given, SPARSITY, SPARSE_OPTIONS)).spec
    except TypeError as error:  # a list
        raise UserError(f"step {SPARSITY}: {given}: {error}") from error
    if spec is None:
        raise UserError(
            f"step {SPARSITY}: nothing becomes sparse without a method; right: method: {' or '.join(METHODS)}"
        )
    return replace(spec, calibration=str(entry["calibration"])) if entry.get("calibration") else spec


def text(entry: Mapping[str, object]) -> str:
    """A spec in one word, such as `wanda0.5` or `magnitude2of4`."""
    unstructured = entry.get("pattern", UNSTRUCTURED) == UNSTRUCTURED
    word = f"{entry['method']}{entry['ratio'] if unstructured else entry['pattern']}"
    return f"{word}/packed" if entry.get("packed") else word
