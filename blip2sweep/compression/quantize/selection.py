"""Which layers the config names: `part, blocks, layers`, `per_part` and `keep`, for quantization and sparsity alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from blip2sweep.compression.quantize.options import Option, Options, merged
from blip2sweep.compression.quantize.per_part import PartOptions
from blip2sweep.compression.step import parse_target
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy


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


def section(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A section of the config, empty where it is not set. Raises UserError where it is a single value."""
    found = config.get(key) or {}
    if not isinstance(found, Mapping):
        raise UserError(f"{key}={found}: right: {key}.<name>=<value>")
    return found


def meant(word: str, where: str, names: Sequence[str], anatomy: Anatomy) -> Sequence[str]:
    """The names that a word means. A role with several parts means those that `part` names, if it names any of them."""
    every = anatomy.resolve_names(word, where)
    chosen = {name.partition(".")[0] for name in names}
    return [n for n in every if n.partition(".")[0] in chosen] or every


def of_parts(
    config: Mapping[str, object], names: Sequence[str], common: Options, own: Mapping[str, PartOptions]
) -> Iterator[Selection]:
    """What `part, blocks, layers` and `per_part` select.

    names: those that `part` names. common: the options of all parts. own: those of single parts and stacks.
    """
    for name in names:
        yield from _of_part(config, name, common, own)


def of_keep(config: Mapping[str, object], names: Sequence[str], anatomy: Anatomy) -> Iterator[Selection]:
    """What `keep` leaves alone again."""
    if config.get("keep") is not None:
        where, origins = f"keep={config['keep']}", frozenset({"keep"})
        word, blocks, layers = parse_target(config["keep"], "keep")
        for name in meant(word, where, names, anatomy):
            yield Selection(name, blocks, layers, None, where, refines=True, origins=origins)


def _of_part(
    config: Mapping[str, object], name: str, common: Options, own: Mapping[str, PartOptions]
) -> Iterator[Selection]:
    """The selection of a part, and one for each of its stacks that `per_part` mentions."""
    parent, mine = own.get(name.partition(".")[0], PartOptions()), own.get(name, PartOptions())
    everywhere = {"blocks": str(config["blocks"]), "layers": str(config["layers"])}
    target = everywhere | {k.name: str(k.value) for k in (*parent.target, *mine.target)}
    where = f"part={config['part']} " + " ".join(f"{k}={v}" for k, v in target.items())
    origins = {"part"} | {k.origin for k in merged(_written(everywhere), parent.target, mine.target)}
    options = merged(common, parent.options, mine.options)
    yield Selection(name, target["blocks"], target["layers"], options, where, origins=frozenset(origins))
    for inner in (n for n in own if n.startswith(name + ".")):
        narrowed = {"blocks": "all", "layers": "all"} | {k.name: str(k.value) for k in own[inner].target}
        origins = {k.origin for k in own[inner].target}
        stack_options = merged(common, parent.options, own[inner].options)
        where = own[inner].where
        yield Selection(inner, narrowed["blocks"], narrowed["layers"], stack_options, where, True, frozenset(origins))


def _written(target: Mapping[str, str]) -> Options:
    return tuple(Option(key, value, key) for key, value in target.items())


def hits(anatomy: Anatomy, selection: Selection, chosen: Sequence[object | None]) -> list[int]:
    """The numbers of the part's layers that a selection names. chosen: what earlier selections made of each layer.

    Raises UserError where there are none.
    """
    mask = anatomy.mask(selection.name, selection.blocks, selection.layers, selection.where)
    met = [i for i, m in enumerate(mask) if m and (chosen[i] is not None or not selection.refines)]
    if not met:
        raise UserError(
            f"{selection.where}: meets no layer that part, blocks and layers select, so it would do nothing"
        )
    return met
