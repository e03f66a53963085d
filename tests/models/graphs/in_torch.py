"""Models whose graphs torch runs, and what their texts are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.models.architecture import implementation
from blip2sweep.models.graphs import Graphs, HasGraphs
from blip2sweep.models.graphs.torch_session import TorchSession
from blip2sweep.models.load import Loaded
from blip2sweep.tasks import Generation, TaskData


def graphs_of(loaded: Loaded, config: Any) -> Graphs:
    own = implementation(config)
    assert isinstance(own, HasGraphs)
    return own.graphs(loaded.model, loaded.processor, loaded.family)


def in_torch(loaded: Loaded, own: Graphs) -> Loaded:
    images, language = own.stages({g.name: TorchSession(g) for g in own.graphs})
    return replace(loaded, images=images, language=language)


def same_texts_and_likelihoods(loaded: Loaded, own: Graphs, data: TaskData, generation: Generation) -> None:
    """Assert that the graphs write and score what the model's own stages do, in batches whose prompts differ."""
    expected, found = (
        evaluate(x, data, generation, nll_references=2, batch_size=8).records for x in (loaded, in_torch(loaded, own))
    )
    same(expected, found)


def same(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """Assert that two evaluations agree."""
    for name in ("id", "text", "tokens", "nll_tokens"):
        assert [r[name] for r in found] == [r[name] for r in expected]
    assert [r["nll_sum"] for r in found] == pytest.approx([r["nll_sum"] for r in expected], rel=1e-5, abs=1e-4)
    assert len({(r["text"], r["nll_sum"]) for r in expected}) > 2


def layers_are_found(loaded: Loaded, own: Graphs) -> None:
    """Assert that each linear layer of the parts is in a graph, by its path in the model."""
    found = {}
    for graph in own.graphs:
        for inside, path in graph.paths.items():
            named = graph.module.get_submodule(inside).named_modules()
            found |= {f"{path}.{name}" if name else path: module for name, module in named}
    for part in loaded.anatomy.parts.values():
        for linear in part.linears:
            assert found[linear.path] is loaded.model.get_submodule(linear.path)
