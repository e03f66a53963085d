"""What follows for recovery from the steps before it: which adapters are merged, and what is quantized again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.compression.quantize.scheme import Scheme
from blip2sweep.compression.recover.options import chosen
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.compression.recover.step import layers_of
from blip2sweep.compression.step import DROP, QUANTIZE, RECOVER, Entries, Pair, layers_in
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear, Part

Made = Mapping[str, Entries]  # {part: entries} of one step


def settled(
    parts: Mapping[str, Part], recovered: Made, before: Sequence[Made], merge: bool | None, again: bool
) -> tuple[dict[str, Entries], dict[str, Entries]]:
    """The entries of recovery with `merged`, and those of the second quantization; both empty where nothing is trained.

    An adapter is merged where its layer is otherwise as it was loaded: merged into codes it would be on no grid, and
    merged into a sparse weight it would leave no zeros. merge: what `recover.merge` says otherwise. again: merge all, and
    quantize the trained layers again as they were. Raises UserError where it cannot.
    """
    if not recovered:
        return {}, {}
    merge = True if again else merge
    made = {n: _settled(p, recovered[n], tuple(b[n] for b in before), merge, again) for n, p in parts.items()}
    return {n: first for n, (first, _) in made.items()}, {n: second for n, (_, second) in made.items()} if again else {}


def asked(section: object) -> tuple[bool | None, bool]:
    """(merge, requantize) of the section `recover`."""
    options = chosen(section) if isinstance(section, Mapping) else None
    return (options.merge, options.requantize) if options else (None, False)


@lru_cache(maxsize=65536)
def _settled(
    part: Part, recovered: Entries, before: tuple[Entries, ...], merge: bool | None, again: bool
) -> tuple[Entries, Entries]:
    """Of one part. Memoised, so that the cells of a grid share their parts."""
    steps = [s for s in before if s.kind != DROP]
    compressed = {x.path for s in steps for site, _ in s.pairs for x in layers_in(part, site)}
    layers = layers_of(recovered.pairs)
    pairs = tuple(
        (x, replace(s, merged=_merged(s, merge, x.path in compressed)) if s.has_adapters else s) for x, s in layers
    )
    second = tuple(_again(steps, {x.path for x, _ in layers})) if again else ()
    used = recovered.used | ({f"{RECOVER}.requantize"} if second else set())
    return Entries(RECOVER, pairs, used), Entries(QUANTIZE, second)


def _merged(spec: Recovery, merge: bool | None, compressed: bool) -> bool:
    """What is asked for; else what a recipe file says; else whether the layer is otherwise as it was loaded."""
    return next((known for known in (merge, spec.merged) if known is not None), not compressed)


def _again(before: Sequence[Entries], trained: set[str]) -> Iterator[Pair]:
    """The pairs of quantization whose layers are trained. Raises UserError where they cannot be quantized again."""
    where, sparse = (
        f"{RECOVER}.requantize=true",
        {site.path for s in before if s.kind != QUANTIZE for site, _ in s.pairs},
    )
    for x, scheme in (pair for s in before if s.kind == QUANTIZE for pair in s.pairs):
        if x.path in trained and isinstance(x, Linear) and isinstance(scheme, Scheme):
            if scheme.needs:
                raise UserError(
                    f"{where}: {scheme.weights.method} measures {x.path} on calibration samples, which are of the "
                    f"untrained model; right: a method that sees weights alone, such as rtn or mse, with dynamic inputs"
                )
            if x.path in sparse:
                raise UserError(
                    f"{where}: the adapter fills the zeros of {x.path}; right: {RECOVER}.requantize=null, or sparsity=none"
                )
            yield x, scheme
