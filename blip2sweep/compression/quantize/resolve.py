"""Config -> schemes: `part, blocks, layers, quant, per_part, rules, keep` or `recipe_file`, for an anatomy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from blip2sweep.compression.quantize import METHODS, Method
from blip2sweep.compression.quantize.folds import traits
from blip2sweep.compression.quantize.options import Option, Options, Resolved, merged, options_of, resolve_options
from blip2sweep.compression.quantize.per_part import PartOptions, of_no_part, read_per_part
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.recipe_file import read
from blip2sweep.compression.step import QUANTIZE, Entries, parse_target
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear
from blip2sweep.models.roles import check_spelling


@dataclass(frozen=True)
class Selection:
    """The layers of a part that one piece of the config names, and their options. options: None leaves them alone again.

    name: an addressable part or stack. blocks, layers: the other words of the target. where: what was typed, for
    messages. refines: whether it changes only layers of earlier selections, of which it must meet at least one.
    origins: the config keys that made it. runs: whether it is computed here, so that the method's library must be
    installed.
    """

    name: str
    blocks: str
    layers: str
    options: Options | None
    where: str
    refines: bool = False
    origins: frozenset[str] = frozenset()
    runs: bool = True


def resolve(
    config: Mapping[str, object], anatomy: Anatomy, where: str = "quant", runs: bool = True
) -> dict[str, Entries]:
    """{part: entries} of one cell. config: that of the whole cell. runs: see `Selection`.

    Raises UserError, one line, when any part of the config would be ignored.
    """
    from_file = bool(config.get("recipe_file"))
    named = _of_file(str(config["recipe_file"]), anatomy) if from_file else _of_config(config, anatomy)
    selections = [s if runs else replace(s, runs=False) for s in named]
    own = {part: tuple(s for s in selections if s.name.partition(".")[0] == part) for part in anatomy.parts}
    return {part: _entries(anatomy, part, own[part]) for part in anatomy.parts}


def _section(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    section = config.get(key) or {}
    if not isinstance(section, Mapping):
        raise UserError(f"{key}={section}: right: {key}.<name>=<value>")
    return section


def _of_config(config: Mapping[str, object], anatomy: Anatomy) -> Iterator[Selection]:
    names, per_part = anatomy.part_names(str(config["part"])), _section(config, "per_part")
    quant = options_of(_section(config, "quant"), "quant")
    own = read_per_part(per_part, names, anatomy, str(config["part"]))
    nothing = frozenset(of_no_part(per_part, anatomy))
    for name in names:
        yield from (replace(s, origins=s.origins | nothing) for s in _of_part(config, name, quant, own))
    for label, rule in _section(config, "rules").items():
        yield from _of_rule(label, rule, quant, own, names, anatomy)
    if config.get("keep") is not None:
        word, blocks, layers = parse_target(config["keep"], "keep")
        for name in _meant(word, f"keep={config['keep']}", names, anatomy):
            yield Selection(
                name, blocks, layers, None, f"keep={config['keep']}", refines=True, origins=frozenset({"keep"})
            )


def _meant(word: str, where: str, names: Sequence[str], anatomy: Anatomy) -> Sequence[str]:
    """The names that a word means. A role with several parts means those that `part` names, if it names any of them."""
    meant = anatomy.resolve_names(word, where)
    chosen = {name.partition(".")[0] for name in names}
    return [n for n in meant if n.partition(".")[0] in chosen] or meant


def _of_part(
    config: Mapping[str, object], name: str, quant: Options, own: Mapping[str, PartOptions]
) -> Iterator[Selection]:
    """The selection of a part, and one for each of its stacks that `per_part` mentions."""
    parent, mine = own.get(name.partition(".")[0], PartOptions()), own.get(name, PartOptions())
    common = {"blocks": str(config["blocks"]), "layers": str(config["layers"])}
    target = common | {k.name: str(k.value) for k in (*parent.target, *mine.target)}
    where = f"part={config['part']} " + " ".join(f"{k}={v}" for k, v in target.items())
    origins = {"part"} | {k.origin for k in merged(_written(common), parent.target, mine.target)}
    options = merged(quant, parent.options, mine.options)
    yield Selection(name, target["blocks"], target["layers"], options, where, origins=frozenset(origins))
    for inner in (n for n in own if n.startswith(name + ".")):
        narrowed = {"blocks": "all", "layers": "all"} | {k.name: str(k.value) for k in own[inner].target}
        origins = {k.origin for k in own[inner].target}
        stack_options = merged(quant, parent.options, own[inner].options)
        where = own[inner].where
        yield Selection(inner, narrowed["blocks"], narrowed["layers"], stack_options, where, True, frozenset(origins))


def _written(target: Mapping[str, str]) -> Options:
    return tuple(Option(key, value, key) for key, value in target.items())


def _of_rule(
    label: str, rule: object, quant: Options, own: Mapping[str, PartOptions], names: Sequence[str], anatomy: Anatomy
) -> Iterator[Selection]:
    where = f"rules.{label}"
    if not isinstance(rule, Mapping) or not rule.get("target"):
        raise UserError(f"{where}.target is not set; right: {where}.target=part:blocks:layers")
    word, blocks, layers = parse_target(rule["target"], f"{where}.target")
    options = options_of({k: v for k, v in rule.items() if k != "target"}, where)
    typed = f"{where}.target={rule['target']}"
    for name in _meant(word, typed, names, anatomy):
        base = merged(
            quant, own.get(name.partition(".")[0], PartOptions()).options, own.get(name, PartOptions()).options, options
        )
        yield Selection(name, blocks, layers, base, typed, True, frozenset({f"{where}.target"}))


# ---- recipe files


def _of_file(path: str, anatomy: Anatomy) -> Iterator[Selection]:
    """The selections of a recipe file, in order; of two that name one layer the last wins."""
    named: list[tuple[str, str]] = []
    for where, kind, target, given in read(path):
        word, blocks, layers = parse_target(target, where)
        check_spelling(anatomy, named := [*named, (where, word)])
        if kind == QUANTIZE:
            options = options_of(given, where)
            for name in anatomy.resolve_names(word, where):
                yield Selection(name, blocks, layers, options, where, origins=frozenset({"recipe_file"}))


# ---- selections -> schemes


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, part: str, selections: tuple[Selection, ...]) -> Entries:
    layers = anatomy.parts[part].linears
    chosen: list[Resolved | None] = [None] * len(layers)
    for selection in selections:
        hits = _hits(anatomy, selection, chosen)
        resolved = _resolved(selection)
        for i in hits:
            chosen[i] = resolved
        _check_group_size(selection, resolved, [layers[i] for i in hits])
    alike = {(id(r), x.bias, x.leaf, x.clip): (r, x) for r, x in zip(chosen, layers, strict=True) if r}
    used = frozenset().union(*(_used(r, x) for r, x in alike.values()), *(s.origins for s in selections))
    schemes = ((x, _scheme(r, x)) for r, x in zip(chosen, layers, strict=True))
    return Entries(QUANTIZE, tuple((x, s) for x, s in schemes if s is not None), used)


def _resolved(selection: Selection) -> Resolved:
    if selection.options is None:
        return Resolved(None, selection.origins)
    return resolve_options(selection.options, selection.runs)


def _hits(anatomy: Anatomy, selection: Selection, chosen: list[Resolved | None]) -> list[int]:
    mask = anatomy.mask(selection.name, selection.blocks, selection.layers, selection.where)
    hits = [i for i, m in enumerate(mask) if m and (chosen[i] is not None or not selection.refines)]
    if not hits:
        raise UserError(
            f"{selection.where}: meets no layer that part, blocks and layers select, so it would do nothing"
        )
    return hits


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
