"""Training after compression: the methods and the defaults of their options. Planning reads this, so torch is not imported.

`lora`: low-rank adapters (Hu et al., 2021, arXiv:2106.09685) on the target's linear layers. `qlora`: the same over
layers that nf4 quantizes (Dettmers et al., 2023, arXiv:2305.14314). `full`: the weights themselves are trained.
"""

from __future__ import annotations

from collections.abc import Mapping

METHODS = LORA, QLORA, FULL = ("lora", "qlora", "full")
LOSSES = TASK, DISTILL = ("task", "distill")

_EVERY: Mapping[str, object] = {
    "loss": TASK, "steps": 150, "batch_size": 32, "seed": 0, "holdout": 0.125, "processes": 1,
}  # fmt: skip
_ADAPTERS: Mapping[str, object] = {**_EVERY, "learning_rate": 2e-3, "rank": 8}
# The options of a method that are fields of its spec, with their defaults. `alpha` is twice the rank.
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    LORA: _ADAPTERS, QLORA: _ADAPTERS, FULL: {**_EVERY, "learning_rate": 5e-4},
}  # fmt: skip
# Those of the loss `distill`: the temperature of both distributions, and the weight of the teacher beside the task.
OF_DISTILLATION: Mapping[str, object] = {"temperature": 2.0, "distill_weight": 0.5}
