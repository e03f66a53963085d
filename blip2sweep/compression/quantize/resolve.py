"""Config -> schemes: `part, blocks, layers, quant, per_part, rules, keep` or `recipe_file`, for an anatomy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from blip2sweep.compression.quantize import METHODS, Method
from blip2sweep.compression.quantize.folds import traits
from blip2sweep.compression.quantize.kernels import groups_alone
from blip2sweep.compression.quantize.options import Options, Resolved, merged, options_of, resolve_options
from blip2sweep.compression.quantize.per_part import PartOptions, of_no_part, read_per_part
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.quantize.selection import Selection, hits, meant, of_keep, of_parts, section
from blip2sweep.compression.recipe_file import read
from blip2sweep.compression.step import QUANTIZE, Entries, parse_target
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear
from blip2sweep.models.roles import check_spelling


def resolve(
    config: Mapping[str, object], anatomy: Anatomy, where: str = "quant", runs: bool = True
) -> dict[str, Entries]:
    """{part: entries} of one cell. config: that of the whole cell. runs: see `Selection`.

    Raises UserError, one line, when any part of the config would be ignored.
    """
    from_file = bool(config.get("recipe_file"))
    named = _of_file(str(config["recipe_file"]), anatomy, again=False) if from_file else _of_config(config, anatomy)
    return _resolve(named, anatomy, runs)


def resolve_again(path: str, anatomy: Anatomy, runs: bool = True) -> dict[str, Entries]:
    """{part: entries} of the second quantization of a recipe file."""
    return _resolve(_of_file(path, anatomy, again=True), anatomy, runs)


def _resolve(named: Iterable[Selection], anatomy: Anatomy, runs: bool) -> dict[str, Entries]:
    selections = [s if runs else replace(s, runs=False) for s in named]
    own = {part: tuple(s for s in selections if s.name.partition(".")[0] == part) for part in anatomy.parts}
    return {part: _entries(anatomy, part, own[part]) for part in anatomy.parts}


def _of_config(config: Mapping[str, object], anatomy: Anatomy) -> Iterator[Selection]:
    names, per_part = anatomy.part_names(str(config["part"])), section(config, "per_part")
    quant = options_of(section(config, "quant"), "quant")
    own = read_per_part(per_part, names, anatomy, str(config["part"]))
    nothing = frozenset(of_no_part(per_part, anatomy))
    selected = of_parts(config, names, quant, own)
    yield from (replace(s, origins=s.origins | nothing) for s in selected)
    for label, rule in section(config, "rules").items():
        yield from _of_rule(label, rule, quant, own, names, anatomy)
    yield from of_keep(config, names, anatomy)


def _of_rule(
    label: str, rule: object, quant: Options, own: Mapping[str, PartOptions], names: Sequence[str], anatomy: Anatomy
) -> Iterator[Selection]:
    where = f"rules.{label}"
    if not isinstance(rule, Mapping) or not rule.get("target"):
        raise UserError(f"{where}.target is not set; right: {where}.target=part:blocks:layers")
    word, blocks, layers = parse_target(rule["target"], f"{where}.target")
    options = options_of({k: v for k, v in rule.items() if k != "target"}, where)
    typed = f"{where}.target={rule['target']}"
    for name in meant(word, typed, names, anatomy):
        base = merged(
            quant, own.get(name.partition(".")[0], PartOptions()).options, own.get(name, PartOptions()).options, options
        )
        yield Selection(name, blocks, layers, base, typed, True, frozenset({f"{where}.target"}))


# ---- recipe files


def _of_file(path: str, anatomy: Anatomy, again: bool) -> Iterator[Selection]:
    """The selections of a recipe file, in order; of two that name one layer the last wins."""
    named: list[tuple[str, str]] = []
    for entry in read(path):
        where = entry.where
        word, blocks, layers = parse_target(entry.target, where)
        check_spelling(anatomy, named := [*named, (where, word)])
        if (entry.kind, entry.again) == (QUANTIZE, again):
            options = options_of(entry.options, where)
            for name in anatomy.resolve_names(word, where):
                own = _in_groups(options, _longest(anatomy, name, blocks, layers, where), where)
                yield Selection(name, blocks, layers, own, where, origins=frozenset({"recipe_file"}))


def _longest(anatomy: Anatomy, name: str, blocks: str, layers: str, where: str) -> int:
    """The longest row of a target; 0 where it meets nothing."""
    linears, mask = anatomy.parts[name.partition(".")[0]].linears, anatomy.mask(name, blocks, layers, where)
    return max((x.in_features for x, hit in zip(linears, mask, strict=True) if hit), default=0)


def _in_groups(options: Options, row: int, where: str) -> Options:
    """The options of an entry; `channel` is one group for each row where the method, or its kernel, has groups alone.

    Recipes say `channel` of every group that is as long as the row (`Weights.for_row`). row: the longest of the target.
    """
    given = {k.name: k.value for k in options}
    method = METHODS.known(str(given.get("method")))
    alone = "channel" not in method.strategies or (given.get("packed") and groups_alone(method.name, given.get("bits")))
    if given.get("strategy") != "channel" or "group" not in method.strategies or not alone or not row:
        return options
    return merged(options, options_of({"strategy": "group", "group_size": row}, where))


# ---- selections -> schemes


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, part: str, selections: tuple[Selection, ...]) -> Entries:
    layers = anatomy.parts[part].linears
    chosen: list[Resolved | None] = [None] * len(layers)
    acting = list[Selection]()
    for selection in selections:
        met = hits(anatomy, selection, chosen)
        if selection.options is None and not any((r := chosen[i]) and r.scheme for i in met):
            continue  # it keeps what is left alone anyway, so it is not used here
        acting.append(selection)
        resolved = _resolved(selection)
        for i in met:
            chosen[i] = resolved
        _check_group_size(selection, resolved, [layers[i] for i in met])
    alike = {(id(r), x.bias, x.leaf, x.clip): (r, x) for r, x in zip(chosen, layers, strict=True) if r}
    used = frozenset().union(*(_used(r, x) for r, x in alike.values()), *(s.origins for s in acting))
    schemes = ((x, _scheme(r, x)) for r, x in zip(chosen, layers, strict=True))
    return Entries(QUANTIZE, tuple((x, s) for x, s in schemes if s is not None), used)


def _resolved(selection: Selection) -> Resolved:
    if selection.options is None:
        return Resolved(None, selection.origins)
    return resolve_options(selection.options, selection.runs)


def _check_group_size(selection: Selection, resolved: Resolved, layers: Sequence[Linear]) -> None:
    """Raise UserError for a group that is longer than every row, unless that is the method's own choice.

    For some methods it must also divide every row.
    """
    if resolved.scheme is None or not layers:
        return
    weights = resolved.scheme.weights
    size, method = weights.group_size, METHODS[weights.method]
    given = next((k.origin for k in selection.options or () if k.name == "group_size"), None)
    longest = max(x.in_features for x in layers)
    if size is not None and size > longest and not (given is None and method.divides):
        raise UserError(
            f"{given or 'quant.group_size (default)'}={size}: larger than every row of {selection.where}; right: at most "
            f"{longest}, the longest row"
        )
    bad = next((x for x in layers if not _fits(weights, method, x.in_features)), None)
    if bad is not None:
        own = method.row_sizes or "a divisor of the row"
        raise UserError(
            f"{given or 'quant.group_size (default)'}={size}: {method.name} takes whole groups, {bad.path} has rows of "
            f"{bad.in_features}; right: {own}, such as 64"
        )


def _fits(weights: Weights, method: Method, row: int) -> bool:
    length = min(weights.group_size or row, row)
    return not method.divides or (row % length == 0 and (not method.row_sizes or length in method.row_sizes))


@lru_cache(maxsize=65536)
def _row_scheme(scheme: Scheme, in_features: int) -> Scheme:
    return replace(scheme, weights=scheme.weights.for_row(in_features))


def _scheme(resolved: Resolved | None, x: Linear) -> Scheme | None:
    return _row_scheme(resolved.scheme, x.in_features) if resolved and resolved.scheme else None


def _used(resolved: Resolved, x: Linear) -> frozenset[str]:
    """The config keys that determined a layer's scheme, without those of options that the layer cannot use."""
    idle = resolved.scheme.weights.idle(traits(x)) if resolved.scheme else ()
    return frozenset(origin for origin in resolved.used if origin.rsplit(".", 1)[-1] not in idle)
