"""Recipes as numbers: the groups of layers that the cells at hand can tell apart, and the noise that each group got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.recipes import Entry, entries
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear
from blip2sweep.recipe.compact import describe

Array = NDArray[np.float64]
UNIT_BITS = 4  # the unit of noise is the noise of 4 bits


@dataclass
class LayerGroups:
    """Groups of layers that every cell treats alike.

    layers: the linear layers of each group. targets: how a recipe names them. widths: (cells, groups) in bits, 0 where
    a group is left alone.
    """

    layers: list[list[Linear]]
    targets: list[list[str]]
    widths: Array

    @property
    def parts(self) -> list[str]:
        """The part of each group."""
        return [t[0].partition(":")[0] for t in self.targets]

    @property
    def families(self) -> list[str]:
        """The family of each group: groups of one part with the same layers, such as the thirds of a part's MLPs.

        The groups of one family are expected to matter alike.
        """
        return ["+".join([t[0].split(":")[0], *(x.split(":")[2] for x in t)]) for t in self.targets]

    @property
    def weights(self) -> Array:
        """The number of weights of each group."""
        return np.array([sum(x.weights for x in group) for group in self.layers], dtype=np.float64)


def noise(widths: Array) -> Array:
    """The power of uniform rounding noise, 1/(2^b − 1)² of the squared range, in units of 4 bits; 0 where b is 0."""
    with np.errstate(divide="ignore"):
        return np.where(widths > 0, (2.0**UNIT_BITS - 1) ** 2 / (2.0 ** np.maximum(widths, 1) - 1) ** 2, 0.0)


def layer_groups(cells: pd.DataFrame, anatomy: Anatomy) -> LayerGroups:
    """The coarsest groups such that every cell treats all layers of a group alike, in the model's order.

    A fit cannot tell layers apart that no cell tells apart. The published study has 12 such groups (thirds by kind), a
    sweep of whole parts has three, and a block-wise sweep has one for each block. Layers that no cell touches are in no
    group.
    """
    linears = [x for p in anatomy.parts.values() for x in p.linears]
    matrix = np.array([_widths(str(r), anatomy) for r in cells["recipe_json"]], dtype=np.float64).reshape(
        len(cells), -1
    )
    part = np.array([list(anatomy.parts).index(p) for p, whole in anatomy.parts.items() for _ in whole.linears])
    _, first, inverse = np.unique(np.vstack([matrix, part]), axis=1, return_index=True, return_inverse=True)
    order = [i for i in np.argsort(first) if matrix[:, first[i]].any()]
    groups = [[linears[j] for j in np.flatnonzero(inverse.ravel() == i)] for i in order]
    names = [_targets(anatomy, group) for group in groups]
    return LayerGroups(groups, names, matrix[:, first[order]] if order else np.zeros((len(cells), 0)))


def _targets(anatomy: Anatomy, group: Sequence[Linear]) -> list[str]:
    name = next(n for n, p in anatomy.parts.items() if group[0] in p.linears)
    return [f"{name}:{blocks}:{layers}" for blocks, layers in describe(anatomy.parts[name], group)]


@lru_cache(maxsize=65536)
def _widths(recipe_json: str, anatomy: Anatomy) -> Array:
    """The width of every linear layer of the model in bits, 0 where it is left alone."""
    return np.concatenate([_part_widths(entries(recipe_json), name, anatomy) for name in anatomy.parts])


def _part_widths(recipe: Sequence[Entry], name: str, anatomy: Anatomy) -> Array:
    widths = np.zeros(len(anatomy.parts[name].linears))
    for entry in recipe:
        part, blocks, layers = entry["target"].split(":")
        if part.partition(".")[0] == name:
            widths[np.array(anatomy.mask(part, blocks, layers))] = entry["bits"]
    return widths
