"""What vLLM takes of a checkpoint of compressed-tensors, by its published source. No torch here.

Its classes fuse q, k and v, and gate and up, so these have one scheme. Layers that it makes as a plain `nn.Linear`, such
as all of BLIP-2's Q-Former, are never packed. Its kernels for packed weights (`mixed_precision/marlin.py`, `exllama.py`)
take few widths and shapes. It computes in 16 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.exporting import held
from blip2sweep.models.architecture import architecture
from blip2sweep.models.dtypes import HALF
from blip2sweep.models.part import CONNECTOR, Linear
from blip2sweep.recipe import Recipe
from blip2sweep.wire.model_section import ModelSection

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
MARLIN_GROUPS, MARLIN_ROW, MARLIN_OUT = (None, 32, 64, 128), 128, 64
WIDTHS = (4, 8)


class Served(NamedTuple):
    """A class of vLLM. text: kinds of its language model; None for any. patterns: {beginning of a name in our files: what
    vLLM's module has in its place}. published: pairs for `re.sub`, from our names to those of published checkpoints."""

    name: str
    text: tuple[str, ...] | None = None
    patterns: Mapping[str, str] = {}
    published: tuple[tuple[str, str], ...] = ()


SERVED: Mapping[str, Served] = {
    # It makes its vision tower without a prefix.
    "blip-2": Served("Blip2ForConditionalGeneration", ("opt",), {"vision_model.": r"(.*\.)?"}),
    "llava": Served(
        "LlavaForConditionalGeneration",
        None,
        {},
        ((r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),),
    ),
}


def served(model: ModelSection) -> Served | None:
    """The class of vLLM that serves a model; None where this was written for none."""
    config = model["config"]
    found = SERVED.get(str(architecture(model).MODEL_TYPE or config.get("model_type")))
    text = cast("Mapping[str, object]", config.get("text_config") or {}).get("model_type")
    return found if found is not None and (found.text is None or text in found.text) else None


def patterns(model: ModelSection) -> Mapping[str, str]:
    """See `Served`."""
    found = served(model)
    return found.patterns if found else {}


def published(model: ModelSection) -> Callable[[str], str]:
    """The name of a tensor in published checkpoints, from ours."""
    pairs = found.published if (found := served(model)) else ()

    def renamed(name: str) -> str:
        for wanted, new in pairs:
            name = re.sub(wanted, new, name)
        return name

    return renamed


def mistakes(recipe: Recipe, model: ModelSection) -> Iterator[str]:
    """Why vLLM cannot serve a recipe of a model."""
    if served(model) is None:
        yield f"--for vllm: {model['name']} is neither BLIP-2 with OPT nor LLaVA; right: without --for"
    if wide := sorted(held.stored_dtypes(model) - set(HALF)):
        yield f"--for vllm: it computes in 16 bits, and this is stored in {', '.join(wide)}; right: model.stored=float16"
    dense = [x for part in recipe.parts.values() if part.part.role == CONNECTOR for x, _ in part.layers]
    if dense:
        yield f"--for vllm: its connector has no packed layers ({dense[0].path}); right: a recipe that leaves it alone"
    half = "float16" in held.stored_dtypes(model)
    yield from held.each(((x, s) for x, s in recipe.touched() if x not in dense), lambda x, s: _kernel(x, s, half))
    yield from _fused(recipe)


def _kernel(layer: Linear, scheme: Scheme, half: bool) -> str | None:
    w = scheme.weights
    if w.num_bits not in WIDTHS or (w.num_bits, bool(w.symmetric)) == (8, False):
        told = f"{w.num_bits} bits {'symmetric' if w.symmetric else 'asymmetric'}"
        return f"--for vllm: no kernel for {told}; right: 4 bits, or 8 with quant.symmetric=true"
    if _marlin(layer, w) or (half and _exllama(layer, w)):
        return None
    size = f"groups of {w.group_size}" if w.group_size else "one scale a row"
    shape = f"{layer.out_features} x {layer.in_features}"
    return (
        f"--for vllm: no kernel for {size} of a layer of {shape}; right: groups of 32, 64 or 128 that divide the row, "
        f"with rows of a multiple of {MARLIN_ROW}, or symmetric in float16"
    )


def _marlin(layer: Linear, w: Weights) -> bool:
    shaped = layer.in_features % MARLIN_ROW == 0 and layer.out_features % MARLIN_OUT == 0
    return w.group_size in MARLIN_GROUPS and shaped


def _exllama(layer: Linear, w: Weights) -> bool:
    packs = layer.out_features % (32 // w.num_bits) == 0
    return bool(w.symmetric) and bool(w.group_size) and packs


def _fused(recipe: Recipe) -> Iterator[str]:
    """The layers of one fused one that have different schemes."""
    for part in recipe.parts.values():
        found = dict(part.layers)
        kinds: dict[tuple[str, str], set[tuple[object, ...] | None]] = {}
        for layer in part.left.linears:
            for fused in (f for f in FUSED if layer.leaf in f):
                parent = layer.path.rpartition(".")[0]
                kinds.setdefault((parent, ", ".join(fused)), set()).add(_stored_as(found.get(layer)))
        several = [f"{parent}: {names}" for (parent, names), own in kinds.items() if len(own) > 1]
        if several:
            yield (
                f"--for vllm: it fuses layers that have several schemes here ({len(several)} times, such as {several[0]}); "
                f"right: one scheme for each such set"
            )


def _stored_as(scheme: Scheme | None) -> tuple[object, ...] | None:
    if scheme is None:
        return None
    w = scheme.weights
    return w.num_bits, bool(w.symmetric), w.strategy, w.group_size


def serve_command(model: ModelSection) -> str:
    """What serves a folder."""
    dtype = next(iter(sorted(held.stored_dtypes(model))))
    return f"vllm serve . --dtype {dtype} --limit-mm-per-prompt '{{\"image\": 1}}'"
