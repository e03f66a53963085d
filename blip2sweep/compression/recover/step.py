"""Recovery as a step of a recipe: the linear layers that are trained after compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from blip2sweep.compression.recover.options import Chosen, chosen
from blip2sweep.compression.recover.peft_here import lacking
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.compression.step import RECOVER, Entries, Pair, Spec, SpecFields, parse_target
from blip2sweep.errors import MissingExtra, UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import VISION, Linear, Part

if TYPE_CHECKING:
    from torch import nn

    from blip2sweep.compression.undo import Undo

LEVEL, AFTER, SEMANTICS = "layer", True, 1


def resolve(
    config: Mapping[str, object], anatomy: Anatomy, where: str = RECOVER, runs: bool = True
) -> dict[str, Entries]:
    """{part: entries} of the section `recover` of a cell's config; empty where it names no method.

    `merged` is decided later, where it is known what else is done to a layer (blip2sweep/recipe/recovered.py). Raises
    UserError for options that are wrong, and for a target that meets nothing or has layers narrower than the rank.
    """
    section = config.get(where) or {}
    if not isinstance(section, Mapping):
        raise UserError(f"{where}={section}: right: lora, qlora, full or none")
    options = chosen(section, where)
    if options is None:
        return {}
    if runs:
        _check_installed(options, where)
    target = section.get("target")
    return dict(_entries(anatomy, None if target is None else str(target), options, where))


def _check_installed(options: Chosen, where: str) -> None:
    if options.spec.has_adapters and (why := lacking()) is not None:
        raise MissingExtra(
            f"{where}={options.spec.method}: needs peft, which {why}; right: pip install "
            f"'blip2sweep[recover]', or {where}=full",
            options.used,
        )


@lru_cache(maxsize=4096)
def _entries(anatomy: Anatomy, target: str | None, options: Chosen, where: str) -> tuple[tuple[str, Entries], ...]:
    """(part, entries). Memoised, so that the cells of a grid share their parts."""
    hit = _layers(anatomy, target, f"{where}.target")
    _check_rank([x for own in hit.values() for x in own], options.spec.rank, where)
    return tuple((n, Entries(RECOVER, tuple((x, options.spec) for x in own), options.used)) for n, own in hit.items())


def _layers(anatomy: Anatomy, target: str | None, where: str) -> dict[str, tuple[Linear, ...]]:
    """{part: layers} of a target; by default all of every part whose role is not vision."""
    if target is None:
        return {p.name: p.linears for p in anatomy.parts.values() if p.role != VISION}
    words, blocks, layers = parse_target(target, where)
    found: dict[str, tuple[Linear, ...]] = {}
    for name in anatomy.part_names(words, where):
        part = anatomy.parts[name.partition(".")[0]]
        mask = anatomy.mask(name, blocks, layers, f"{where}={target}")
        own = (x for x, hit in zip(part.linears, mask, strict=True) if hit)
        chosen_there = {x.path for x in (*found.get(part.name, ()), *own)}
        found[part.name] = tuple(x for x in part.linears if x.path in chosen_there)
    if not found:
        raise UserError(f"{where}={target}: no part; right: parts joined with +, then :blocks:layers")
    return found


def _check_rank(layers: Sequence[Linear], rank: int | None, where: str) -> None:
    """Raise UserError where a layer is narrower than the rank: its adapter would be larger than the layer."""
    widths = {x.path: min(x.in_features, x.out_features) for x in layers}
    narrow = [path for path, width in widths.items() if rank is not None and width < rank]
    if narrow:
        raise UserError(
            f"{where}.rank={rank}: {len(narrow)} layers are narrower, such as {narrow[0]} with {widths[narrow[0]]}; "
            f"right: at most {min(widths.values())}, or another {where}.target"
        )


def layers_of(pairs: Sequence[Pair]) -> tuple[tuple[Linear, Recovery], ...]:
    """The entries of a recovery, with their types."""
    return tuple((x, s) for x, s in pairs if isinstance(x, Linear) and isinstance(s, Recovery))


def identity(part: Part, pairs: Sequence[Pair]) -> dict[str, SpecFields]:
    """{module path: spec}. Layers with one spec share its form."""
    known = {spec: spec.as_dict() for spec in dict.fromkeys(spec for _, spec in pairs)}
    return {site.path: known[spec] for site, spec in pairs}


def apply(model: nn.Module, pairs: Sequence[Pair], undo: Undo, made: Mapping[str, object]) -> None:
    """Put what training made into the layers. made: {path: what was trained for it}."""
    from blip2sweep.compression.recover.adapters import put

    put(model, layers_of(pairs), made, undo)


# ---- in words


def to_entry(spec: Spec) -> SpecFields:
    """A spec with the names of its fields, which are those of the config, but for `merged`."""
    assert isinstance(spec, Recovery)
    return spec.fields()


def from_entry(entry: Mapping[str, object]) -> Recovery:
    """The inverse of `to_entry`. Options that are left out have the method's defaults. Raises UserError."""
    fields = {k: v for k, v in entry.items() if k not in ("merged", "trained_on")}
    options = chosen(fields, "recipe entry recover")
    merged, digest = entry.get("merged"), entry.get("trained_on")
    if options is None or not isinstance(merged, bool | None) or not isinstance(digest, str | None):
        raise UserError(f"recipe entry {dict(entry)}: no recovery; right: method: lora, merged: true or false")
    return replace(options.spec, merged=merged if options.spec.has_adapters else None, trained_on=digest)


def text(entry: Mapping[str, object]) -> str:
    """A spec in words, for people: `lora r8 distill 150 steps merged`."""
    loss = [str(entry["loss"])] if entry.get("loss") not in (None, "task") else []
    rank = [f"r{entry['rank']}"] if "rank" in entry else []
    merged = ["merged"] if entry.get("merged") else []
    return " ".join([str(entry["method"]), *rank, *loss, f"{entry.get('steps')} steps", *merged])
