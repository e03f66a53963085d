"""Config -> schemes: `part, blocks, layers, quant, per_part, rules, keep` or `recipe_file`, resolved against an anatomy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from blip2sweep.compression.quantize import METHODS, Method
from blip2sweep.compression.quantize.folds import traits
from blip2sweep.compression.quantize.options import Knob, Knobs, Resolved, knobs_of, merged, resolve_knobs
from blip2sweep.compression.quantize.per_part import Own, of_no_part, read_per_part
from blip2sweep.compression.quantize.scheme import Scheme, Weights
from blip2sweep.compression.step import QUANTIZE, Entries, parse_target
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear
from blip2sweep.models.roles import check_spelling


@dataclass(frozen=True)
class Step:
    """One stroke on a part: `knobs` for the layers a target names; None leaves them alone again.

    A refining step only changes layers that an earlier step selected, and must meet at least one.
    """

    name: str
    blocks: str
    layers: str
    knobs: Knobs | None
    where: str
    refines: bool = False
    origins: frozenset[str] = frozenset()
    runs: bool = True  # here, with the method's library; what others ran needs none


def resolve(config: Mapping[str, Any], anatomy: Anatomy, where: str = "quant", runs: bool = True) -> dict[str, Entries]:
    """{part: entries} of one cell. config: the whole cell's, since quantization is what its own keys are about.

    Raises UserError, one line, when any part of the config would be ignored. runs: see Step.
    """
    from_file = bool(config.get("recipe_file"))
    steps = list(_file_steps(config["recipe_file"], anatomy) if from_file else _config_steps(config, anatomy))
    steps = steps if runs else [replace(s, runs=False) for s in steps]
    own = {part: tuple(s for s in steps if s.name.partition(".")[0] == part) for part in anatomy.parts}
    return {part: _entries(anatomy, part, own[part]) for part in anatomy.parts}


def _config_steps(config: Mapping[str, Any], anatomy: Anatomy) -> Iterator[Step]:
    names = anatomy.part_names(config["part"])
    quant = knobs_of(config.get("quant") or {}, "quant")
    own = read_per_part(config.get("per_part") or {}, names, anatomy, str(config["part"]))
    nothing = frozenset(of_no_part(config.get("per_part") or {}, anatomy))
    for name in names:
        yield from (replace(s, origins=s.origins | nothing) for s in _base_steps(config, name, quant, own))
    for label, rule in (config.get("rules") or {}).items():
        yield from _rule_steps(label, rule, quant, own, names, anatomy)
    if config.get("keep") is not None:
        word, blocks, layers = parse_target(config["keep"], "keep")
        for name in _meant(word, f"keep={config['keep']}", names, anatomy):
            yield Step(name, blocks, layers, None, f"keep={config['keep']}", refines=True, origins=frozenset({"keep"}))


def _meant(word: str, where: str, names: Sequence[str], anatomy: Anatomy) -> Sequence[str]:
    """The names that a word means; of a role with several parts those that `part` has, if it has any."""
    meant = anatomy.own_names(word, where)
    chosen = {name.partition(".")[0] for name in names}
    return [n for n in meant if n.partition(".")[0] in chosen] or meant


def _base_steps(config: Mapping[str, Any], name: str, quant: Knobs, own: Mapping[str, Own]) -> Iterator[Step]:
    """The step that selects a part, and one for each of its stacks that `per_part` mentions."""
    parent, mine = own.get(name.partition(".")[0], Own()), own.get(name, Own())
    common = {"blocks": str(config["blocks"]), "layers": str(config["layers"])}
    target = common | {k.name: k.value for k in (*parent.target, *mine.target)}
    where = f"part={config['part']} " + " ".join(f"{k}={v}" for k, v in target.items())
    origins = {"part"} | {k.origin for k in merged(_written(common), parent.target, mine.target)}
    knobs = merged(quant, parent.knobs, mine.knobs)
    yield Step(name, target["blocks"], target["layers"], knobs, where, origins=frozenset(origins))
    for inner in (n for n in own if n.startswith(name + ".")):
        narrowed = {"blocks": "all", "layers": "all"} | {k.name: k.value for k in own[inner].target}
        origins = {k.origin for k in own[inner].target}
        stack_knobs = merged(quant, parent.knobs, own[inner].knobs)
        where = own[inner].where
        yield Step(inner, narrowed["blocks"], narrowed["layers"], stack_knobs, where, True, frozenset(origins))


def _written(target: Mapping[str, str]) -> Knobs:
    return tuple(Knob(key, value, key) for key, value in target.items())


def _rule_steps(
    label: str, rule: Any, quant: Knobs, own: Mapping[str, Own], names: Sequence[str], anatomy: Anatomy
) -> Iterator[Step]:
    where = f"rules.{label}"
    if not isinstance(rule, Mapping) or not rule.get("target"):
        raise UserError(f"{where}.target is not set; right: {where}.target=part:blocks:layers")
    word, blocks, layers = parse_target(rule["target"], f"{where}.target")
    knobs = knobs_of({k: v for k, v in rule.items() if k != "target"}, where)
    said = f"{where}.target={rule['target']}"
    for name in _meant(word, said, names, anatomy):
        base = merged(quant, own.get(name.partition(".")[0], Own()).knobs, own.get(name, Own()).knobs, knobs)
        yield Step(name, blocks, layers, base, said, True, frozenset({f"{where}.target"}))


# ---- recipe files


def _file_steps(path: str, anatomy: Anatomy) -> Iterator[Step]:
    """Steps of a recipe file: `targets: [{target: vision:all:all, method: rtn, bits: 4, …}, …]`, in order, last wins."""
    said: list[tuple[str, str]] = []
    for i, entry in enumerate(_read_recipe(path)):
        where = f"{path}: targets[{i}]"
        if not isinstance(entry, Mapping) or "target" not in entry:
            raise UserError(f"{where}: no target; right: target: part:blocks:layers, method: …, bits: …")
        word, blocks, layers = parse_target(entry["target"], where)
        check_spelling(anatomy, said := [*said, (where, word)])
        knobs = knobs_of(_settings(entry), where)
        for name in anatomy.own_names(word, where):
            yield Step(name, blocks, layers, knobs, where, origins=frozenset({"recipe_file"}))


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without the target, and without the digests that say what was measured: `calibration` makes them anew."""
    inner = {k: {f: x for f, x in v.items() if f != "calibration"} for k, v in entry.items() if isinstance(v, Mapping)}
    return {k: inner.get(k, v) for k, v in entry.items() if k not in ("target", "calibration")}


def _read_recipe(path: str) -> list[Any]:
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(
            f"recipe_file={path}: cannot be read ({error.strerror}); right: an existing YAML file"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"recipe_file={path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, Mapping) or not isinstance(data.get("targets"), list):
        keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise UserError(f"recipe_file={path}: no list `targets` (found: {keys}); {nearest('targets', ['targets'])}")
    return data["targets"]


# ---- steps -> schemes


@lru_cache(maxsize=65536)
def _entries(anatomy: Anatomy, part: str, steps: tuple[Step, ...]) -> Entries:
    layers = anatomy.parts[part].linears
    chosen: list[Resolved | None] = [None] * len(layers)
    for step in steps:
        hits = _hits(anatomy, step, chosen)
        resolved = _resolved(step)
        for i in hits:
            chosen[i] = resolved
        _check_group_size(step, resolved, [layers[i] for i in hits])
    alike = {(id(r), x.bias, x.leaf, x.clip): (r, x) for r, x in zip(chosen, layers, strict=True) if r}
    used = frozenset().union(*(_used(r, x) for r, x in alike.values()), *(s.origins for s in steps))
    schemes = ((x, _scheme(r, x)) for r, x in zip(chosen, layers, strict=True))
    return Entries(QUANTIZE, tuple((x, s) for x, s in schemes if s is not None), used)


def _resolved(step: Step) -> Resolved:
    return Resolved(None, step.origins) if step.knobs is None else resolve_knobs(step.knobs, step.runs)


def _hits(anatomy: Anatomy, step: Step, chosen: list[Resolved | None]) -> list[int]:
    mask = anatomy.mask(step.name, step.blocks, step.layers, step.where)
    hits = [i for i, m in enumerate(mask) if m and (chosen[i] is not None or not step.refines)]
    if not hits:
        raise UserError(f"{step.where}: meets no layer that part, blocks and layers select, so it would do nothing")
    return hits


def _check_group_size(step: Step, resolved: Resolved, layers: Sequence[Linear]) -> None:
    """A group must be shorter than some row, unless it is the method's own choice; of some methods, divide every row."""
    if resolved.scheme is None or not layers:
        return
    weights = resolved.scheme.weights
    size, method = weights.group_size, METHODS[weights.method]
    given = next((k.origin for k in step.knobs or () if k.name == "group_size"), None)
    longest = max(x.in_features for x in layers)
    if size is not None and size > longest and not (given is None and method.divides):
        raise UserError(
            f"{given or 'quant.group_size (default)'}={size}: larger than every row of {step.where}; right: at most "
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
    """The config keys that determined a layer's scheme: not those of knobs that it has no use for."""
    idle = resolved.scheme.weights.idle(traits(x)) if resolved.scheme else ()
    return frozenset(origin for origin in resolved.used if origin.rsplit(".", 1)[-1] not in idle)
