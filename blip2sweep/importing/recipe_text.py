"""The recipe of a text such as `vit:all:all=rtn4/channel; llm:0-3:mlp=nf4/group64`, or of JSON.

It is the inverse of the table's columns `recipe` and `recipe_json`.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace

from blip2sweep.compression.quantize import METHODS, Method
from blip2sweep.compression.quantize.options import VALUES
from blip2sweep.compression.quantize.scheme import Activations, Weights
from blip2sweep.compression.step import parse_target
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.rows import Entry, Recipes
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe import PartRecipe, Recipe

INPUT = re.compile(r"a(\d)( asym)?( static)?")
RIGHT = "right: part:blocks:layers=method<bits>/strategy, as the table's column recipe has it"
OWN_FIELDS = {f.name for f in fields(Weights)} - {"num_bits", "type"} | {"bits", "input", "target"}


def recipe_of_text(text: str, recipes: Recipes, device: str = "cpu") -> Recipe:
    """The recipe of a text. device: the one whose packed kernels `packed` means.

    Raises UserError for any other text.
    """
    pieces = [piece.strip() for piece in text.split(";") if piece.strip()]
    return _canonical(recipes([e for piece in pieces for e in _entries(piece, recipes.anatomy, device)]))


def recipe_of_json(text: str, recipes: Recipes) -> Recipe:
    """The recipe of a cell in the column `recipe_json`. Raises UserError for any other text."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise UserError(f"recipe_json: no JSON ({error}); right: the table's own column") from error
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("target"), str) for e in entries
    ):
        raise UserError("recipe_json: no list of targets; right: the table's own column")
    return _canonical(recipes([own for entry in entries for own in _checked(entry, recipes.anatomy)]))


def _entries(piece: str, anatomy: Anatomy, device: str) -> list[Entry]:
    """`vit:all:all=gptq4/group64/sym/damp=0.05/a8 static/packed` -> an entry; of a role one for each of its parts."""
    target, _, words = piece.partition("=")
    head, *rest = [w.strip() for w in words.split("/")]
    method, bits = _method(head, piece)
    found = re.fullmatch(r"(channel|tensor|group)(\d*)", rest[0] if rest else "")
    if not found or (found[1] == "group") != bool(found[2]):
        raise UserError(f"'{piece}' is no recipe; {RIGHT}")
    defaults = {k: v for k, v in method.options.items() if k not in ("group_size", "static_groups")}
    defaults |= {"symmetric": False} if "symmetric" in method.options else {}
    entry: Entry = {"target": target, "method": method.name, "bits": bits, "strategy": found[1], **defaults}
    if found[2]:
        entry |= {"group_size": int(found[2])}
        entry |= {"static_groups": method.options["static_groups"]} if "static_groups" in method.options else {}
    for word in rest[1:]:
        entry |= _setting(word, method, piece, device)
    return _checked(entry, anatomy)


def _method(head: str, piece: str) -> tuple[Method, int]:
    """Method and bits: of `rtn4`, or of `nf4`, which has one width only."""
    if head in METHODS and len(METHODS[head].bits) == 1:
        return METHODS[head], METHODS[head].bits[0]
    found = re.fullmatch(r"([a-z_]+?)(\d+)", head)
    if not found:
        raise UserError(f"'{piece}' is no recipe; {RIGHT}")
    if found[1] not in METHODS:
        raise UserError(f"method '{found[1]}'; {nearest(found[1], list(METHODS))}")
    return METHODS[found[1]], int(found[2])


def _setting(word: str, method: Method, piece: str, device: str) -> Entry:
    """The part of an entry that one word gives, such as `damp=0.05` or `a8 static`."""
    name, given, value = word.partition("=")
    if found := INPUT.fullmatch(word):
        strategy, dynamic = ("tensor", False) if found[3] else ("token", True)
        return {"input": {"bits": int(found[1]), "strategy": strategy, "symmetric": not found[2], "dynamic": dynamic}}
    if word == "sym" and "symmetric" in method.options:
        return {"symmetric": True}
    if name == "packed" and value in ("", "cpu", "cuda"):
        return {"packed": value or device}
    if given and name in method.options and name in VALUES:
        try:
            read = {"True": True, "False": False}.get(value, json.loads(value.lower()))
        except ValueError:
            read = value
        if VALUES[name][1](read):
            return {name: float(read) if isinstance(method.options[name], float) else read}
    raise UserError(f"'{piece}': {method.name} has no '{word}'; {RIGHT}")


def _checked(entry: Entry, anatomy: Anatomy) -> list[Entry]:
    """The entry in the model's own names. Raises UserError for a target or method that does not exist."""
    word, blocks, layers = parse_target(str(entry["target"]), "target")
    names = anatomy.resolve_names(word, f"target {entry['target']}")
    for name in names:
        anatomy.mask(name, blocks, layers, f"target {entry['target']}")
    method = METHODS.get(str(entry.get("method")))
    if method is None:
        raise UserError(f"method '{entry.get('method')}'; {nearest(str(entry.get('method')), list(METHODS))}")
    bits, strategy, size = entry.get("bits"), entry.get("strategy"), entry.get("group_size")
    # A group as long as the row is a channel.
    strategies = {*method.strategies, *(["channel"] if "group" in method.strategies else [])}
    if not isinstance(bits, int) or not method.has_bits(bits) or strategy not in strategies:
        raise UserError(f"{method.name} has no {bits} bits/{strategy}; right: a width and a strategy of the method")
    if (strategy == "group") != (size is not None) or (size is not None and not VALUES["group_size"][1](size)):
        raise UserError(
            f"target {entry['target']}: {strategy} and group_size {size}; right: group with its size, or no size"
        )
    if unknown := set(entry) - OWN_FIELDS:
        raise UserError(
            f"target {entry['target']}: unknown {', '.join(sorted(unknown))}; {nearest(min(unknown), OWN_FIELDS)}"
        )
    _check_input(entry)
    return [{**entry, "target": f"{name}:{blocks}:{layers}"} for name in names]


def _check_input(entry: Entry) -> None:
    inputs = entry.get("input")
    known = {f.name for f in fields(Activations)} - {"num_bits", "type"} | {"bits"}
    if inputs is not None and (
        not isinstance(inputs, dict) or not set(inputs) <= known or inputs.get("bits") not in range(2, 9)
    ):
        raise UserError(
            f"target {entry['target']}: input {inputs}; right: bits from 2 to 8, strategy, symmetric, dynamic"
        )


def _canonical(recipe: Recipe) -> Recipe:
    """The recipe with `channel` in place of every group as long as its row, so that equal recipes are equal objects."""
    return Recipe({name: _shortened(part) for name, part in recipe.parts.items()}, recipe.chosen_by)


def _shortened(part: PartRecipe) -> PartRecipe:
    short = part.requantized(lambda x, s: replace(s, weights=s.weights.for_row(x.in_features)))
    return part if short.layers == part.layers else short
