"""Recipes with sparsity, and what they make of a model, without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from blip2sweep.apply.calibration import Calibrator
from blip2sweep.apply.patch import Applied, Patch
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.step import SPARSITY
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.tasks.calibration import Calibration
from tests.apply.calibration.test_calibration import calibrator


def sparse(anatomy: Anatomy, part: str = "vit", bits: Any = "none", **fields: Any) -> Recipe:
    """fields: `blocks`, `layers`, `keep`, `per_part`; `quant_…` of quantization; all others of sparsity."""
    top = {k: fields.pop(k) for k in ("blocks", "layers", "keep", "per_part") if k in fields}
    quant = {k.removeprefix("quant_"): fields.pop(k) for k in list(fields) if k.startswith("quant_")}
    config = {"part": part, "blocks": "all", "layers": "all", **top}
    quantization = {"method": "rtn", "bits": bits, **quant}
    return resolve_recipe({**config, "quant": quantization, "sparsity": {"method": "wanda", **fields}}, anatomy)


def masks(loaded: Loaded, recipe: Recipe, samples: Calibration, work: Calibrator | None = None) -> dict[str, Prepared]:
    with Patch(loaded).apply(recipe.until(SPARSITY)):
        return (work or calibrator(loaded)).masks(recipe, samples)


@contextmanager
def applied(
    loaded: Loaded, recipe: Recipe, samples: Calibration | None = None, work: Calibrator | None = None
) -> Iterator[Applied]:
    """The model with a recipe in it, calibrated as a worker does it."""
    patch = Patch(loaded)
    with patch:
        made, prepared = {}, {}
        if samples is not None:
            work = work or calibrator(loaded)
            patch.apply(recipe.until(SPARSITY))
            made = {SPARSITY: work.masks(recipe, samples)}
            patch.apply(recipe.before, made=made)
            prepared = work(recipe, samples)
        yield patch.apply(recipe, prepared, made)


def weights(loaded: Loaded, recipe: Recipe) -> dict[str, Tensor]:
    """{path: a copy of the weight} of the sparse layers."""
    paths = [site.path for p in recipe.parts.values() for site, _ in p.pairs_of(SPARSITY)]
    return {path: loaded.model.get_submodule(path).weight.detach().clone() for path in paths}


def zeros(weight: Tensor) -> Tensor:
    return (weight == 0).sum(1).to(torch.int64)
