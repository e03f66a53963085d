"""The cost of a cell as columns of its row."""

from __future__ import annotations

from blip2sweep.apply.calibration import summary
from blip2sweep.apply.patch import Applied
from blip2sweep.backends.torch.evaluate import Evaluation
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.wire.lines import Cost

NESTED = ("seconds", "hits", "seconds_total", "bad_images")


def cost_columns(evaluation: Evaluation, applied: Applied, state: ModelState) -> Cost:
    """The columns of a cell's cost.

    They are seconds and hits for each stage, the number of bad images, layers written and recalled, and figures of
    calibration.
    """
    cost = evaluation.cost
    stages: Cost = {f"seconds_{stage}": seconds for stage, seconds in cost["seconds"].items()}
    hits: Cost = {f"hits_{stage}": n for stage, n in cost["hits"].items()}
    rest: Cost = {k: v for k, v in cost.items() if k not in NESTED}
    flat: Cost = {**stages, **hits, **rest, "bad_images": len(cost["bad_images"])}
    rounded: Cost = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in flat.items()}
    return rounded | {"layers_written": applied.written, "hits_weights": applied.recalled} | summary(state.measured)
