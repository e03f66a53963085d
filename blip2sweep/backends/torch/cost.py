"""The cost of a cell as columns of its row."""

from __future__ import annotations

from blip2sweep.apply.calibration import summary
from blip2sweep.apply.patch import Applied
from blip2sweep.backends.torch.evaluate import Evaluation
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.backends.torch.sharing import Account
from blip2sweep.wire.lines import Cost

NESTED = ("seconds", "hits", "seconds_total", "bad_images")


def cost_columns(evaluation: Evaluation, applied: Applied, state: ModelState, account: Account) -> Cost:
    """The columns of a cell's cost: those of its evaluation, layers written and recalled, and figures of calibration.
    account: of what was done before its turn."""
    recalled = applied.recalled - min(account.written, applied.recalled)  # what was written for the cell was not known
    weights: Cost = {"layers_written": applied.written + account.written, "hits_weights": recalled}
    return evaluation_columns(evaluation) | weights | summary(state.measured)


def evaluation_columns(evaluation: Evaluation) -> Cost:
    """Seconds and hits for each stage, and the number of bad images."""
    cost = evaluation.cost
    stages: Cost = {f"seconds_{stage}": seconds for stage, seconds in cost["seconds"].items()}
    hits: Cost = {f"hits_{stage}": n for stage, n in cost["hits"].items()}
    rest: Cost = {k: v for k, v in cost.items() if k not in NESTED}
    flat: Cost = {**stages, **hits, **rest, "bad_images": len(cost["bad_images"])}
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in flat.items()}
