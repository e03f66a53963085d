"""The inference of one cell: every sample of a task is answered, with the likelihood of its references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from blip2sweep.backends.torch.answers import Answer, Answers
from blip2sweep.backends.torch.asked import AskedAll, of_answers, of_matches
from blip2sweep.backends.torch.batching import Clock, Run, Sizes
from blip2sweep.backends.torch.encode import Source, encode
from blip2sweep.backends.torch.matches import Matches
from blip2sweep.backends.torch.segments import Segments
from blip2sweep.backends.torch.sharing import Account, Shared
from blip2sweep.errors import UserError
from blip2sweep.models.images import Features, Images
from blip2sweep.models.language import Matcher
from blip2sweep.models.load import Loaded
from blip2sweep.models.text import Likelihood
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.predictions import columns_of
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import ranked


@dataclass(frozen=True)
class Evaluation:
    """records: the columns of `Predictions`, one dict for each sample, in task order. cost: by name.

    features: what the language model saw, for further tasks on the same images. asked: what the samples had it read and
    write.
    """

    records: list[dict[str, Any]]
    cost: dict[str, Any]
    features: Features
    asked: AskedAll | None = None


def evaluate(
    loaded: Loaded,
    task: TaskData,
    generation: Generation,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    nll_references: int = 1,
    on_bad_image: str = "error",
    features: Source | Segments | None = None,
    shared: Shared | None = None,
    batch_sizes: dict[str, int] | None = None,
    anew: bool = False,
) -> Evaluation:
    """Answer every sample of `task`.

    batch_size: None chooses by device and model. It is halved when memory runs out; at one sample the error is raised.
    workers: processes that decode images. nll_references: the most targets of a sample whose likelihood is summed, 0
    for none. features: what is known of the images; the stages before it do not run. shared: what other cells computed.
    It changes no token in float32. batch_sizes: sizes that earlier cells had to go down to. They are used from the
    start, and new ones are added. anew: a picture is read again for each question about it, where it would be read once
    for all of them. That changes no token in float32.

    Raises UserError for an image that cannot be decoded, unless on_bad_image="skip", and for a task that requests a
    match of a model without.
    """
    _check(loaded, task, batch_size)
    known = batch_sizes if batch_sizes is not None else {}
    sizes = Sizes(loaded, generation, batch_size, known)
    run = Run(loaded, sizes.images, sizes.sequences, Clock(loaded.device))
    if isinstance(features, Segments):
        encoded = features.encoded(run, shared)
    else:
        encoded = encode(run, task, features or Images(loaded, task, workers, on_bad_image), shared)
    bad = set(encoded.bad)
    samples = [s for s in task.samples if s.image_id not in bad]
    asked: AskedAll | None
    if isinstance(loaded.language, Matcher):
        matches = Matches(run, encoded, task, samples, loaded.language)
        scores = matches.all(shared)
        answers, asked = [Answer(None, None, match=match) for match in scores], of_matches(matches, scores)
    else:
        asking = Answers(run, encoded, generation, task.rules, samples, nll_references, anew)
        answers = asking.all(shared)
        asked = of_answers(asking, answers)
    sizes.remember(known)
    columns = columns_of(task.rules.REQUESTS, ranked(task) > 0)
    records = [record(s, a, columns) for s, a in zip(samples, answers, strict=True)]
    return Evaluation(records, _cost(run, encoded, len(records), shared), encoded, asked)


def _check(loaded: Loaded, task: TaskData, batch_size: int | None) -> None:
    if "match" in task.rules.REQUESTS and not isinstance(loaded.language, Matcher):
        raise UserError(f"task {task.name}: asks for a match of pictures and texts, which {loaded.anatomy.model} lacks")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size}: right: a positive integer, or null to choose by device")


def record(sample: Sample, answer: Answer, names: Sequence[str]) -> dict[str, Any]:
    """The answer to a sample in these columns."""
    text, nll, options = answer.text, answer.likelihood, answer.options
    known = {
        "id": sample.id,
        "image_id": sample.image_id,
        "text": text.text if text else None,
        "tokens": text.tokens if text else None,
        "nll_sum": _finite(nll) if nll else None,
        "nll_tokens": nll.nll_tokens if nll else 0,
        **(answer.match._asdict() if answer.match else {}),
        "choice": min(range(len(options)), key=lambda i: options[i].nll_sum, default=None),
        "option_nll": [_finite(x) for x in options],
        "option_tokens": [x.nll_tokens for x in options],
    }
    return {name: known[name] for name in names}


def _finite(nll: Likelihood) -> float | None:
    """None where a broken model gives no number."""
    return nll.nll_sum if math.isfinite(nll.nll_sum) else None


def _cost(run: Run, encoded: Features, samples: int, shared: Shared | None) -> dict[str, Any]:
    clock, account = run.clock, shared.account if shared else Account()
    clock.add(account.seconds)
    total = sum(clock.seconds.values())
    name = torch.cuda.get_device_name(clock.device) if clock.device.type == "cuda" else clock.device.type
    return {
        "seconds": dict(clock.seconds),
        "hits": shared.told if shared else {},
        "seconds_total": total,
        "images_per_second": len(encoded.ids) / total if total else None,
        "samples_per_second": samples / total if total else None,
        "peak_memory_bytes": clock.peak_memory(),
        "batch_size": min(run.batches.size, run.sequences.size),
        "sequence_batch_size": run.sequences.size,
        "oom_halvings": sum(b.halvings for b in {id(b): b for b in (run.batches, run.sequences)}.values()),
        "device": name,
        "bad_images": list(encoded.bad),
    }
