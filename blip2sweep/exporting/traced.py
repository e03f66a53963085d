"""The graphs of a loaded model, for the formats that write graphs."""

from __future__ import annotations

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import implementation
from blip2sweep.models.graphs import Graphs, HasGraphs
from blip2sweep.models.load import Loaded
from blip2sweep.wire.model_section import ModelSection


def graphs_of(loaded: Loaded, model: ModelSection) -> Graphs:
    """Raises UserError for an architecture, or a family of it, without graphs."""
    own = implementation(model)
    if not isinstance(own, HasGraphs):
        raise UserError(f"model {model['name']}: its architecture has no graphs; right: backend=torch")
    return own.graphs(loaded.model, loaded.processor, loaded.family)
