"""Config -> specs: the group `sparsity` and `per_part.<part>.sparsity`, for the layers that `part, blocks, layers, keep`
select."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.compression.quantize.options import Option, Options, options_of
from blip2sweep.compression.quantize.per_part import SPARSE_OPTIONS, read_per_part
from blip2sweep.compression.quantize.selection import Selection, hits, of_keep, of_parts, section
from blip2sweep.compression.sparsity import METHODS, PATTERNS, RATIO, UNSTRUCTURED
from blip2sweep.compression.sparsity.kernels import resolve_packed
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import SPARSITY, Entries
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy


class Resolved(NamedTuple):
    """A spec and the config keys that determined it. The spec is None where the layer stays dense."""

    spec: Sparse | None
    used: frozenset[str]


def resolve(
    config: Mapping[str, object], anatomy: Anatomy, where: str = SPARSITY, runs: bool = True
) -> dict[str, Entries]:
    """{part: entries} of the config of a cell, empty where no layer is made sparse.

    Raises UserError, one line, for options that are wrong, and for a layer that they cannot be applied to.
    """
    selections = tuple(_selections(config, options_of(section(config, where), where, SPARSE_OPTIONS), anatomy))
    by_part = {part: tuple(s for s in selections if s.name.partition(".")[0] == part) for part in anatomy.parts}
    found = {part: _entries(anatomy, part, own) for part, own in by_part.items()}
    return found if any(entries.pairs or entries.used for entries in found.values()) else {}


def _selections(config: Mapping[str, object], common: Options, anatomy: Anatomy) -> Iterator[Selection]:
    per_part = section(config, "per_part")
    if _given(common).get("method") or _mentioned(per_part):
        names, part = anatomy.part_names(str(config["part"])), str(config["part"])
        own = read_per_part(per_part, names, anatomy, part, _of_part)
        yield from of_parts(config, names, common, own)
        yield from of_keep(config, names, anatomy)


def _mentioned(values: object) -> bool:
    """Whether `sparsity` stands anywhere in `per_part`."""
    return isinstance(values, Mapping) and (SPARSITY in values or any(map(_mentioned, values.values())))


def _of_part(values: Mapping[str, object], where: str) -> Options:
    return options_of(section(values, SPARSITY), f"{where}.{SPARSITY}", SPARSE_OPTIONS)


# ---- options -> spec


@lru_cache(maxsize=4096)
def resolve_options(options: Options) -> Resolved:
    """The spec that these options mean. An option that it does not use is dropped, and its key is not among the used ones.

    Raises UserError naming the key that is wrong.
    """
    given = _given(options)
    method = given.get("method")
    if method is None or str(method.value).lower() == "none":
        return Resolved(None, _origins(given, ("method",)))
    if method.value not in METHODS:
        raise UserError(f"{_name(method)}: unknown method; {nearest(str(method.value), [*METHODS, 'none'])}")
    pattern = _pattern(given.get("pattern"))
    ratio, packed = _ratio(given.get("ratio")), resolve_packed(given.get("packed"), pattern)
    names = ("method", "pattern", "packed", *(["ratio"] if pattern == UNSTRUCTURED else []))
    own = ratio if pattern == UNSTRUCTURED else None
    return Resolved(Sparse(str(method.value), pattern, own, packed), _origins(given, names))


def _given(options: Options) -> dict[str, Option]:
    return {k.name: k for k in options}


def _origins(given: Mapping[str, Option], names: Iterable[str]) -> frozenset[str]:
    return frozenset(given[n].origin for n in names if n in given)


def _name(option: Option) -> str:
    return f"{option.origin}={option.value}"


def _pattern(option: Option | None) -> str:
    if option is not None and option.value not in PATTERNS:
        raise UserError(f"{_name(option)}: right: {' or '.join(PATTERNS)}")
    return UNSTRUCTURED if option is None else str(option.value)


def _ratio(option: Option | None) -> float:
    if option is None:
        return RATIO
    value = option.value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
        raise UserError(f"{_name(option)}: right: a number between 0 and 1, such as 0.5")
    return float(value)


# ---- selections -> entries


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, part: str, selections: tuple[Selection, ...]) -> Entries:
    layers = anatomy.parts[part].linears
    chosen: list[tuple[Selection, Resolved] | None] = [None] * len(layers)
    acting = list[Selection]()
    for selection in selections:
        met, resolved = hits(anatomy, selection, chosen), _resolved(selection)
        if selection.options is None and not any((r := chosen[i]) and r[1].spec for i in met):
            continue  # it keeps what is left alone anyway, so it is not used here
        acting.append(selection)
        for i in met:
            chosen[i] = (selection, resolved)
    made = [(x, *found) for x, found in zip(layers, chosen, strict=True) if found]
    for x, selection, resolved in made:
        if resolved.spec:
            resolved.spec.check_row(x, _of_row(selection, resolved.spec))
    pairs = tuple((x, resolved.spec) for x, _, resolved in made if resolved.spec)
    used = frozenset().union(*(resolved.used for _, _, resolved in made))
    return Entries(SPARSITY, pairs, used.union(*(s.origins for s in acting)) if pairs else used)


def _resolved(selection: Selection) -> Resolved:
    if selection.options is None:
        return Resolved(None, selection.origins)
    return resolve_options(selection.options)


def _of_row(selection: Selection, spec: Sparse) -> str:
    """What was typed for the number of zeros in a row."""
    option = _given(selection.options or ()).get("pattern" if spec.structured else "ratio")
    return _name(option) if option else f"{SPARSITY}.ratio (default)={RATIO}"
