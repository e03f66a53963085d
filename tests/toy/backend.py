"""A back end from outside: it reads no picture and says the same of each."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.backends.backend import Answered
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.predictions import Predictions, columns_of
from blip2sweep.tasks.sample import Sample
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings


class Parrot:
    def __init__(self, settings: Settings) -> None:
        self.warning: str | None = None

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        return {"name": choice["name"]}

    def expect(self, jobs: Sequence[CellJob]) -> None:
        pass

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        task = planned_task(job["task"])
        wanted = columns_of(task.rules.REQUESTS)  # such as text, or choice and option_nll
        records = [{k: v for k, v in said(s).items() if k in wanted} for s in task.samples]
        return Answered(Predictions.of(records), {"seconds": 0.0})


def said(sample: Sample) -> dict[str, object]:
    options = [1.0 for _ in sample.choices]
    of_text = {"text": "a small red circle", "tokens": 4, "nll_sum": 4.0, "nll_tokens": 4}
    of_choice = {"choice": 0, "option_nll": options, "option_tokens": [1 for _ in options]}
    return {"id": sample.id, "image_id": sample.image_id, **of_text, **of_choice}


BACKEND = Parrot
