"""The rounds of a task that asks the model several times: of each round the samples, as a back end answers them.

A round is a task like any other to whoever runs it, so every back end, and several processes of one, can answer it. All
rounds of a task have the same pictures, which are encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from blip2sweep.errors import UserError
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.wire.pack import RoundJob

ANSWERS, CAPTIONS = "answers", "captions"


def of_round(data: TaskData, job: RoundJob) -> TaskData:
    """The data of a round. `answers`: each sample as it is. `captions`: each picture once, by its id. Any other: each
    sample once for each of its texts, which stand for its question; `2 of 15` would be the id of the third text of sample
    15. Raises UserError where the texts are not those of these samples."""
    if job["name"] == ANSWERS:
        return data
    made = tuple(_captions(data) if job["name"] == CAPTIONS else _texts(data, job))
    asked = {s.image_id for s in made}
    return replace(data, samples=made) if asked == data.images.keys() else data.part(made)


def _captions(data: TaskData) -> Iterator[Sample]:
    first = {s.image_id: s for s in reversed(data.samples)}
    for image_id in data.images:
        yield Sample(image_id, image_id, first[image_id].image, None, ())


def _texts(data: TaskData, job: RoundJob) -> Iterator[Sample]:
    texts = job.get("texts", [])
    if len(texts) != len(data.samples):
        raise UserError(
            f"task {data.name}: {len(texts)} samples were asked for {job['name']}, and it has {len(data.samples)}"
        )
    for sample, own in zip(data.samples, texts, strict=True):
        for i, text in enumerate(own):
            yield Sample(f"{i} of {sample.id}", sample.image_id, sample.image, text, ())
