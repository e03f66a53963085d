"""Yes or no: a generated answer, scored as POPE's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blip2sweep.metrics import yes_no
from blip2sweep.metrics.statistics import FloatArray, Metric
from blip2sweep.metrics.variants import with_variants
from blip2sweep.tasks.options import check_question_place
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
SCORING: Mapping[str, tuple[str, ...]] = yes_no.SCORING
