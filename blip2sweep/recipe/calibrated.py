"""Which layers of a recipe are measured. Their specs get the digest of what they are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from blip2sweep.compression.quantize import kernels
from blip2sweep.compression.quantize.folds import folds_read
from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.sparsity import kernels as sparse_kernels
from blip2sweep.compression.sparsity.step import layers_of
from blip2sweep.compression.step import DROP, RECOVER, SPARSITY
from blip2sweep.errors import UserError
from blip2sweep.models.part import Part
from blip2sweep.recipe.back_end import is_left, left_of, rounds_others
from blip2sweep.recipe.recipe import PartRecipe, Recipe


@lru_cache(maxsize=65536)
def calibrates(scheme: Scheme) -> bool:
    """Whether the method, or a static range of the inputs, needs calibration samples."""
    return bool(scheme.needs)


@lru_cache(maxsize=65536)
def part_calibrates(part: PartRecipe) -> bool:
    return any(calibrates(s) for s in {s for _, s in part.layers})


@lru_cache(maxsize=65536)
def part_norms(part: PartRecipe) -> bool:
    """Whether the norms of inputs decide which weights of the part stay."""
    return any(s.needs for s in {s for _, s in part.pairs_of(SPARSITY)})


@lru_cache(maxsize=65536)
def _measured_here(part: PartRecipe) -> bool:
    """Whether torch measures layers of the part, or norms: a back end's library measures its own."""
    return part_norms(part) or any(calibrates(s) and not is_left(s) for s in {s for _, s in part.layers})


def measured_parts(recipe: Recipe) -> tuple[Part, ...]:
    """The parts with layers that are measured, in the model's order."""
    return tuple(p.part for p in recipe.parts.values() if part_calibrates(p) or part_norms(p))


class Digest(Protocol):
    """The digest of what a part is measured on: `Calibration.digest`."""

    def __call__(self, tells_tokens_apart: bool, before: Sequence[str], deep: bool, reads: object) -> str: ...


def stamped(recipe: Recipe, digest: Digest) -> Recipe:
    """The recipe with `calibration` in the specs that are measured.

    It is a digest of the samples, of the recipes of touched parts that are computed before, of the steps that come
    first, and of what the methods read of the anatomy. What is trained afterwards is not in it. The config keys of
    calibration now choose the recipe too.
    """
    recipe, parts = _sparsity_stamped(recipe, digest), dict[str, PartRecipe]()
    for name, part in recipe.parts.items():
        before = [p.hash for p in map(_untrained, parts.values()) if beyond_sparsity(p)]
        parts[name] = _stamped(part, _digest(recipe, part, before, digest)) if part_calibrates(part) else part
    return Recipe(parts, recipe.chosen_by | _calibration_keys(recipe))


@lru_cache(maxsize=65536)
def _untrained(part: PartRecipe) -> PartRecipe:
    """A part as it is while calibration measures the parts behind it."""
    kinds = [s.kind for s in part.steps]
    return PartRecipe(part.part, part.steps[: kinds.index(RECOVER)]) if RECOVER in kinds else part


def beyond_sparsity(part: PartRecipe) -> bool:
    """Whether a part is changed by more than what is in the model while quantization is calibrated."""
    return any(s.pairs for s in part.steps if s.kind not in (DROP, SPARSITY))


def _sparsity_stamped(recipe: Recipe, digest: Digest) -> Recipe:
    """The recipe with `calibration` in the specs of sparsity: the norms are measured first, behind dropped blocks."""
    under, before, parts = recipe.until(SPARSITY), list[str](), dict[str, PartRecipe]()
    for name, part in recipe.parts.items():
        if part_norms(part):
            blocks = {site.block for site, _ in part.pairs_of(SPARSITY)}
            there = reaching(under, part.part)
            reads = None if there.empty else [there.hash]
            part = _norms_stamped(part, digest(part.part.reads_text, before, len(blocks) > 1, reads))
        own = part.only(SPARSITY.__eq__)
        before, parts[name] = [*before, *([] if own.empty else [own.hash])], part
    return Recipe(parts, recipe.chosen_by)


@lru_cache(maxsize=65536)
def _norms_stamped(part: PartRecipe, digest: str) -> PartRecipe:
    return part.measured_on(SPARSITY, digest)


def _calibration_keys(recipe: Recipe) -> frozenset[str]:
    """The config keys that calibration uses. The weight of image tokens is used only when torch measures a part that
    reads text."""
    names = ("n_samples", "seed", "upstream", "threads", "split", "data_dir")
    keys = {"calibration", *(f"calibration.{k}" for k in names)}
    reads_text = any(p.part.reads_text and _measured_here(p) for p in recipe.parts.values())
    return frozenset(keys | ({"calibration.image_token_weight"} if reads_text else set()))


def _digest(recipe: Recipe, part: PartRecipe, before: Sequence[str], digest: Digest) -> str:
    return digest(part.part.reads_text and _measured_here(part), before, _deep(part), _reads(recipe, part))


def _reads(recipe: Recipe, part: PartRecipe) -> object:
    """What else decides the measurements: the folds that are read, and the steps before quantization."""
    read, there = _folds_read(part), reaching(recipe.before, part.part)
    return read if there.empty else [read, there.hash]


def reaching(under: Recipe, part: Part) -> Recipe:
    """What of the steps before a measurement changes the inputs of a part: that in itself and in the parts before it.

    A step from outside may do anything anywhere, so all steps count where there is one.
    """
    names = list(under.parts)
    there = names if under.outside else names[: names.index(part.name) + 1]
    return Recipe({name: under.parts[name] for name in there})


@lru_cache(maxsize=65536)
def _folds_read(part: PartRecipe) -> object:
    return folds_read(part.part, part.layers)


@lru_cache(maxsize=65536)
def _deep(part: PartRecipe) -> bool:
    """Whether layers of more than one block are touched. Layers of one block are measured together, and so are all that a
    back end's library measures, unless torch quantizes others of the part."""
    alone = not _measured_here(part) and not rounds_others(part)
    return not alone and len({x.block for x, _ in part.touched()}) > 1


@lru_cache(maxsize=65536)
def _packs(part: PartRecipe) -> bool:
    return any(s.weights.packed for _, s in part.touched())


@lru_cache(maxsize=65536)
def _behind_packed(part: PartRecipe) -> bool:
    """Whether a layer is measured in a later block than a packed one."""
    packed = [x.block for x, s in part.touched() if s.weights.packed]
    measured = [x.block for x, s in part.touched() if calibrates(s)]
    return bool(packed and measured) and min(packed) < max(measured)


def _check_upstream(recipe: Recipe, upstream: str) -> None:
    """Raise UserError where a packed layer comes before one that is measured: calibration cannot run packed layers. So it
    is with what a back end's library rounds."""
    _check_left(recipe, upstream)
    before = False
    for part in recipe.parts.values():
        across = before and upstream == "model" and part_calibrates(part)
        if across or (upstream != "full" and _behind_packed(part)):
            raise UserError(
                f"calibration.upstream={upstream}: {part.part.name} is measured behind packed layers, which stay in full "
                f"precision while it is; right: calibration.upstream=full, or quant.packed=false"
            )
        before = before or _packs(part)


@lru_cache(maxsize=65536)
def _behind_left(part: PartRecipe) -> bool:
    """Whether torch measures a layer in a later block than one that a back end's library rounds."""
    blocks = [x.block for x, s in part.touched() if is_left(s)]
    measured = [x.block for x, s in part.touched() if calibrates(s) and not is_left(s)]
    return bool(blocks and measured) and min(blocks) < max(measured)


def _check_left(recipe: Recipe, upstream: str) -> None:
    """Raise UserError where layers are measured behind others that are not as `upstream` says: torch has those of the back
    end's library in full precision, and the library has those of torch quantized."""
    lefts, others = False, False  # in the parts before
    for part in recipe.parts.values():
        if (lefts and upstream == "model" and _measured_here(part)) or (upstream != "full" and _behind_left(part)):
            _refuse(upstream, f"{part.part.name} is measured by torch behind layers that it does not round", "full")
        if any(s.needs for s in left_of(part).values()):
            if upstream != "model" and others:
                _refuse(upstream, f"{part.part.name} is measured behind parts that torch has quantized", "model")
            if upstream == "full" and rounds_others(part):
                _refuse(upstream, f"{part.part.name} is measured among layers that torch has quantized", "part")
        lefts, others = lefts or bool(left_of(part)), others or rounds_others(part)


def _refuse(upstream: str, why: str, right: str) -> None:
    raise UserError(f"calibration.upstream={upstream}: {why}; right: calibration.upstream={right}")


@lru_cache(maxsize=65536)
def _stamped(part: PartRecipe, digest: str) -> PartRecipe:
    return part.requantized(lambda _, scheme: _scheme(scheme, digest))


@lru_cache(maxsize=65536)
def _scheme(scheme: Scheme, digest: str) -> Scheme:
    return scheme.measured_on(digest)


# ---- packed layers


def check_packed(recipe: Recipe, dtypes: Mapping[str, str], upstream: str = "full") -> None:
    """Compare packed and sparse layers with the model, and packed ones with what is measured.

    dtypes: {part: name}. upstream: of calibration. Raises UserError for a layer that no kernel can run, and for one
    that calibration would have to run.
    """
    _check_upstream(recipe, upstream)
    for name, part in recipe.parts.items():
        _check_packed(part, dtypes[name])


@lru_cache(maxsize=65536)
def _check_packed(part: PartRecipe, dtype: str) -> None:
    sparse = layers_of(part.pairs_of(SPARSITY))
    for x, s in sparse:
        s.check_row(x, f"{SPARSITY} {s.pattern if s.structured else s.ratio}")
    quantized = {x.path: s for x, s in part.layers}
    kernels.check_packed(part.part.name, part.layers, dtype)
    sparse_kernels.check_packed(part.part.name, sparse, quantized, dtype)
