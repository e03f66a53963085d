"""Config -> specs: the group `sparsity` and `per_part.<part>.sparsity`, for the layers that `part, blocks, layers, keep`
select."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from blip2sweep.compression.quantize.options import Option, Options, Resolved, options_of
from blip2sweep.compression.quantize.resolve import Selection, hits, selected_layers
from blip2sweep.compression.sparsity import METHODS, PATTERNS, RATIO, TWO_OF_FOUR, UNSTRUCTURED
from blip2sweep.compression.sparsity.kernels import resolve_packed
from blip2sweep.compression.sparsity.mask_shape import GROUP
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.step import SPARSITY, Entries
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import Linear

OPTIONS = ("method", "ratio", "pattern", "packed")
