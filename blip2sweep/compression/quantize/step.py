"""Quantization as a step of a recipe: one scheme for each linear layer. torch is imported only when it is applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize import METHODS, Method
from blip2sweep.compression.quantize.folds import canonical_schemes
from blip2sweep.compression.quantize.resolve import resolve
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.step import Pair, Spec, SpecFields
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear, Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

__all__ = ["AFTER", "LEVEL", "SEMANTICS", "apply", "from_entry", "identity", "layers_of", "resolve", "text", "to_entry"]

LEVEL, AFTER, SEMANTICS = "layer", False, 1  # a method's own changes are counted by `Method.semantics`


def layers_of(pairs: Sequence[Pair]) -> tuple[tuple[Linear, Scheme], ...]:
    """The entries of a quantization, with their types."""
    return tuple((x, s) for x, s in pairs if isinstance(x, Linear) and isinstance(s, Scheme))


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    """{module path: scheme}. Options that decide nothing have one value (see `canonical_schemes`)."""
    return canonical_schemes(part, layers_of(pairs))


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    """Exchange the weights of the layers, and quantize their inputs. made: {path: `Prepared`}."""
    from blip2sweep.compression.quantize.layer import exchange
    from blip2sweep.compression.quantize.prepared import Prepared

    for x, scheme in layers_of(pairs):
        ready = made.get(x.path)
        exchange(x.path, model.get_submodule(x.path), scheme, undo, ready if isinstance(ready, Prepared) else None)


# ---- in words


def scheme_of(spec: Spec) -> Scheme:
    assert isinstance(spec, Scheme)
    return spec


def to_entry(spec: Spec) -> SpecFields:
    """A scheme in the words of the config: `bits` for num_bits, `input` for the activations, without types."""
    weights, *inputs = ({k: v for k, v in part.items() if k != "type"} for part in scheme_of(spec).fields().values())
    entry = {"method": weights.pop("method"), "bits": weights.pop("num_bits"), **weights}
    return {**entry, "input": {"bits": inputs[0].pop("num_bits"), **inputs[0]}} if inputs else entry


def from_entry(entry: Mapping[str, object]) -> Scheme:
    """The inverse of `to_entry`. Raises UserError for fields that make no scheme."""
    weights, inputs = dict(entry), entry.get("input") or {}
    weights.pop("input", None)
    try:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"input is {inputs}, no fields")
        numbered = {"num_bits" if k == "bits" else k: v for k, v in weights.items()}
        activations = {"num_bits" if k == "bits" else k: v for k, v in inputs.items()} if inputs else None
        typed = {"type": METHODS[str(entry["method"])].type, **numbered}
        return Scheme.from_dict({"weights": typed, "input_activations": activations})
    except KeyError as error:
        if error.args == (entry.get("method"),):
            right = "right: --config-dir with the folder it comes from"
            raise UserError(f"method {error.args[0]}: not known here; {right}") from error
        raise UserError(f"recipe entry {dict(entry)}: {error}") from error
    except TypeError as error:
        raise UserError(f"recipe entry {dict(entry)}: {error}") from error


def text(entry: Mapping[str, object]) -> str:
    """A scheme in words, for people: `rtn4/group32/sym`. Options are named where they are not the method's defaults."""
    method, inputs = METHODS.known(str(entry["method"])), entry.get("input")
    only_width = len(method.bits) == 1
    pieces = [
        f"{entry['method']}{'' if only_width else entry['bits']}",
        f"{entry.get('strategy', '')}{entry.get('group_size') or ''}",
    ]
    pieces += ["sym"] if entry.get("symmetric") else []
    pieces += [f"{k}={entry[k]}" for k, v in _further(method) if k in entry and entry[k] != v]
    if isinstance(inputs, Mapping) and inputs:
        pieces.append(
            f"a{inputs['bits']}{'' if inputs['symmetric'] else ' asym'}{'' if inputs['dynamic'] else ' static'}"
        )
    return "/".join([*pieces, *(["packed"] if entry.get("packed") else [])])


def _further(method: Method) -> Iterable[tuple[str, object]]:
    return ((k, v) for k, v in method.options.items() if k not in ("group_size", "symmetric"))
