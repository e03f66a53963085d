"""What a cell took, as columns of its row."""

from __future__ import annotations

from blip2sweep.apply.calibration import summary
from blip2sweep.apply.patch import Applied
from blip2sweep.backends.torch.evaluate import Evaluation
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.wire.lines import Cost

NESTED = ("seconds", "hits", "seconds_total", "bad_images")


def cost_columns(evaluation: Evaluation, applied: Applied, state: ModelState) -> Cost:
    """Seconds and hits by stage, bad images counted, layers that were written or recalled, what calibration was like."""
    cost = evaluation.cost
    stages: Cost = {f"seconds_{stage}": seconds for stage, seconds in cost["seconds"].items()}
    hits: Cost = {f"hits_{stage}": n for stage, n in cost["hits"].items()}
    rest: Cost = {k: v for k, v in cost.items() if k not in NESTED}
    flat: Cost = {**stages, **hits, **rest, "bad_images": len(cost["bad_images"])}
    rounded: Cost = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in flat.items()}
    return rounded | {"layers_written": applied.written, "hits_weights": applied.recalled} | summary(state.prepared)
