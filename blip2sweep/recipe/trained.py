"""A recipe whose layers are trained: what the training may not meet, the digest of what it depends on, and the control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.canonical import digest as digest_of
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.recover import LORA, QLORA
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.compression.recover.step import layers_of
from blip2sweep.compression.step import QUANTIZE, RECOVER, Entries
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.models.part import Linear, Part
from blip2sweep.recipe.recipe import PartRecipe, Recipe
from blip2sweep.wire.pack import Columns

NF4 = "nf4"
AGAIN, OFF_GRID = "requantized", "off the grid"


def recovery_of(recipe: Recipe) -> Recovery | None:
    """How the layers of a recipe are trained; None where none are. `merged` is that of the first."""
    return next((s for p in recipe.parts.values() for _, s in _trained(p)), None)


def has_adapters(recipe: Recipe) -> bool:
    """Whether adapters stay beside their layers."""
    return any(s.has_adapters and not s.merged for p in recipe.parts.values() for _, s in _trained(p))


@lru_cache(maxsize=65536)
def _trained(part: PartRecipe) -> tuple[tuple[Linear, Recovery], ...]:
    return tuple(pair for s in part.steps if s.kind == RECOVER for pair in layers_of(s.pairs))


def training_name(entries: Sequence[Mapping[str, object]], columns: Columns) -> str:
    """The name of what is trained for a cell: cells of one name share the trained tensors. Empty where nothing is.

    entries: its recipe in short form. columns: of its row.
    """
    spec = next((e for e in entries if e.get("step") == RECOVER), None)
    if spec is None:
        return ""
    own = {k: v for k, v in spec.items() if k not in ("step", "target", "merged")}
    own["method"] = LORA if own["method"] == QLORA else own["method"]
    stored = columns.get("stored", columns["dtype"])
    further = [] if stored == columns["dtype"] else [stored]
    return digest_of([columns["weights"], columns["dtype"], *further, own])[:12]


def on_grid(recipe: Recipe) -> str:
    """`requantized`, or OFF_GRID where trained weights have left the grid of a quantizer. Empty where neither is so."""
    found = [_on_grid(part) for part in recipe.parts.values()]
    return AGAIN if AGAIN in found else OFF_GRID if OFF_GRID in found else ""


@lru_cache(maxsize=65536)
def _on_grid(part: PartRecipe) -> str:
    return AGAIN if _quantized(part)[1] else OFF_GRID if off_grid(part) else ""


@lru_cache(maxsize=65536)
def off_grid(part: PartRecipe) -> frozenset[str]:
    """The paths of quantized layers whose weights training has changed, and which are not quantized again."""
    first, again = _quantized(part)
    return rewritten(part) & first - again


@lru_cache(maxsize=65536)
def rewritten(part: PartRecipe) -> frozenset[str]:
    """The paths of the layers whose weights training has changed: no weight of these is on a grid, and none is zero."""
    return frozenset(x.path for x, s in _trained(part) if s.merged or not s.has_adapters)


def _quantized(part: PartRecipe) -> tuple[frozenset[str], frozenset[str]]:
    """The paths of what is quantized, and of what is quantized again."""
    each = [frozenset(site.path for site, _ in s.pairs) for s in part.steps if s.kind == QUANTIZE]
    return each[0] if each else frozenset(), each[1] if len(each) > 1 else frozenset()


# ---- identity


def stamped(recipe: Recipe, digest: Callable[[object], str]) -> Recipe:
    """The recipe with `trained_on` in the specs of recovery.

    It is a digest of the samples, of the steps before, and of all layers that are trained with a layer. digest: of the
    samples and of what else is read, as JSON.
    """
    before = recipe.until(RECOVER)
    layers = sorted(x.path for p in recipe.parts.values() for x, _ in _trained(p))
    own = digest([None if before.empty else before.hash, layers])
    return Recipe({n: _stamped(p, own) for n, p in recipe.parts.items()}, recipe.chosen_by)


@lru_cache(maxsize=65536)
def _stamped(part: PartRecipe, digest: str) -> PartRecipe:
    return PartRecipe(part.part, tuple(_with_digest(s, digest) if s.kind == RECOVER else s for s in part.steps))


def _with_digest(entries: Entries, digest: str) -> Entries:
    layers = layers_of(entries.pairs)
    specs = {s: s.measured_on(digest) for s in dict.fromkeys(s for _, s in layers)}
    return Entries(entries.kind, tuple((x, specs[s]) for x, s in layers), entries.used)


# ---- the control


def control_of(recipe: Recipe) -> Recipe:
    """The same recovery of the uncompressed model, not stamped; a function of the recipe alone.

    Layers of dropped blocks are trained too where the recipe trains all others of that name in their stack. `qlora` is
    `lora` on layers that nothing quantizes, and adapters are merged.
    """
    return Recipe({name: _control(part) for name, part in recipe.parts.items()})


@lru_cache(maxsize=65536)
def _control(part: PartRecipe) -> PartRecipe:
    trained = _trained(part)
    wanted = set(_paths(part.part, trained, part.dropped))
    spec = _uncompressed(trained[0][1]) if trained else None
    pairs = tuple((x, spec) for x in part.part.linears if spec is not None and x.path in wanted)
    return PartRecipe(part.part, (Entries(RECOVER, pairs),))


def _uncompressed(spec: Recovery) -> Recovery:
    method = LORA if spec.method == QLORA else spec.method
    return replace(spec, method=method, merged=True if spec.has_adapters else None, trained_on=None)


def _paths(part: Part, trained: tuple[tuple[Linear, Recovery], ...], dropped: frozenset[int]) -> Iterator[str]:
    """The stacks of a part have blocks of their own, so the layers of a name are compared within one stack."""
    for name in {_name(x) for x, _ in trained}:
        own = {x.path for x, _ in trained if _name(x) == name}
        every = {x.path for x in part.linears if _name(x) == name}
        left = {x.path for x in part.linears if _name(x) == name and x.block not in dropped}
        yield from every if own == left else own


def _name(x: Linear) -> tuple[str, str]:
    return x.stack, x.name


# ---- what cannot be trained


def check_trainable(recipe: Recipe) -> None:
    """Raise UserError, a line for each reason, where the recipe trains what cannot be trained."""
    if recovery_of(recipe) is None:
        return
    first = next(i for i, p in enumerate(recipe.parts.values()) if _trained(p))
    behind = list(recipe.parts.values())[first:]
    found = [told for part in recipe.parts.values() for told in _packed(part)][:1]
    found += [told for part in recipe.parts.values() for told in _without_nf4(part)][:1]
    found += [told for part in behind for told in _rounded_inputs(part)][:1]
    found += _several_ways(recipe)
    if found:
        raise UserErrors(found) if len(found) > 1 else UserError(found[0])


def _several_ways(recipe: Recipe) -> list[str]:
    """Layers are trained together, so a recipe file may not train them by different options."""
    specs = dict.fromkeys(
        replace(s, merged=None, trained_on=None) for p in recipe.parts.values() for _, s in _trained(p)
    )
    ways = [" ".join(f"{k}={v}" for k, v in spec.fields().items()) for spec in specs]
    if len(ways) < 2:
        return []
    return [
        f"{RECOVER}: layers are trained in {len(ways)} ways ({ways[0]}; {ways[1]}); right: the same options for all"
    ]


def _packed(part: PartRecipe) -> Iterator[str]:
    packed = [site.path for s in part.steps for site, spec in s.pairs if _is_packed(spec)]
    if packed:
        yield f"{RECOVER}: {packed[0]} is packed, and packed kernels cannot be trained through; right: packed=null"


def _is_packed(spec: object) -> bool:
    return bool(spec.weights.packed if isinstance(spec, Scheme) else getattr(spec, "packed", None))


def _without_nf4(part: PartRecipe) -> Iterator[str]:
    first = next((s for s in part.steps if s.kind == QUANTIZE), Entries(QUANTIZE))
    nf4 = {x.path for x, s in first.pairs if isinstance(s, Scheme) and s.weights.method == NF4}
    others = [x.path for x, s in _trained(part) if s.method == QLORA and x.path not in nf4]
    if others:
        yield (
            f"{RECOVER}.method={QLORA}: nf4 does not quantize {len(others)} layers of the target, such as {others[0]}; "
            f"right: quant=nf4 with a part, blocks and layers that hold the target, a narrower {RECOVER}.target, or "
            f"{RECOVER}={LORA}"
        )


def _rounded_inputs(part: PartRecipe) -> Iterator[str]:
    rounded = [x.path for x, s in part.layers if s.input_activations is not None]
    if rounded:
        yield (
            f"quant.input.bits: the inputs of {rounded[0]} are rounded, which has no gradient to train what comes before; "
            f"right: input.bits=none with {RECOVER}"
        )
