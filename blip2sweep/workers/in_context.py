"""Runs a cell of the in-context pipeline: rounds of the vision-language model, requests to a chat model, one answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from blip2sweep.backends.backend import Answered
from blip2sweep.canonical import canonical_json
from blip2sweep.chat import pipeline
from blip2sweep.chat.asking import Asking, Usage
from blip2sweep.chat.client import Client
from blip2sweep.chat.replies import Replies, Reply
from blip2sweep.errors import UserError
from blip2sweep.metrics.lemmas import lemmatised, lemmatiser_version
from blip2sweep.rows import Id
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.question_text import RAW, prompts
from blip2sweep.tasks.rounds import ANSWERS
from blip2sweep.wire.chat import ChatRecipe, Endpoint
from blip2sweep.wire.lines import Cost
from blip2sweep.wire.pack import CellJob, GenerationJob, Settings
from blip2sweep.workers.rounds import Ask, CellRounds

MILLION = 1_000_000


def run_in_context(job: CellJob, ask: Ask, output_dir: Path, settings: Settings) -> Answered:
    """The answer of a cell. ask: the back end. Raises Lacking where replies are missing and `chat.online` is false, and
    ChatError where the endpoint gives none."""
    endpoint = settings.get("chat") or Endpoint()
    client = Client(endpoint) if endpoint.get("online") else None
    asking = Asking(Replies(output_dir), job["key"], client, endpoint.get("concurrency") or 1)
    return in_context(job, ask, output_dir, asking, endpoint)


def in_context(job: CellJob, ask: Ask | None, output_dir: Path, asking: Asking, endpoint: Endpoint) -> Answered:
    """The answer of a cell. ask: None where there is no model. Raises as `run_in_context`, and Lacking where a round is
    missing that nobody can ask here."""
    data = read_task(job)
    rounds = CellRounds(job, data.samples, output_dir, ask)
    recipe = job["chat"]["recipe"]
    asked = asked_of(data, job["generation"])
    told = pipeline.run(recipe, [asked[i] for i in rounds.seen], rounds, asking, lemmatiser(recipe))
    own = rounds.answered[ANSWERS]
    cost = {
        **_summed({name: answered.cost for name, answered in rounds.answered.items()}),
        **spent(asking.usage, endpoint),
    }
    return Answered(
        _predictions([data.samples[i].id for i in rounds.seen], told, own.predictions),
        cost,
        own.layers_changed,
        own.provenance,
    )


def lemmatiser(recipe: ChatRecipe) -> Callable[[str], str] | None:
    """What lemmatises an own answer before the chat model is told of it; None where nothing does. Raises UserError where
    it is not the one that was planned."""
    planned = recipe.get("lemmatiser")
    if planned is None:
        return None
    if (found := lemmatiser_version("chat.lemmatize")) != planned:
        raise UserError(f"chat.lemmatize=spacy: {found} here, planned with {planned}; right: the same on both machines")
    return lemmatised


def read_task(job: CellJob) -> TaskData:
    """The data of a cell. That of the last task is kept."""
    return _read(canonical_json(job["task"]))


@lru_cache(maxsize=1)
def _read(task: str) -> TaskData:
    return planned_task(json.loads(task))


def asked_of(data: TaskData, generation: GenerationJob) -> list[str]:
    """The questions as the chat model gets them: rewritten as in the prompt of the own answer."""
    return prompts(data.rules, data.samples, "{}", generation.get("question", RAW))


def _predictions(seen: Sequence[Id], told: pipeline.Told, own: Predictions) -> Predictions:
    """The chat model's replies, with all that the model itself said. seen: the samples that `told` is about."""
    place = {sample: i for i, sample in enumerate(seen)}
    order = [place[i] for i in own.id]
    replies: list[Reply] = [told.replies[i] for i in order]
    return Predictions(
        id=own.id,
        image_id=own.image_id,
        text=[reply.text for reply in replies],
        tokens=[reply.completion_tokens for reply in replies],
        nll_sum=own.nll_sum,
        nll_tokens=own.nll_tokens,
        answer=[told.own[i] for i in order],
        context=[told.context[i] for i in order],
    )


def _summed(costs: Mapping[str, Cost]) -> Cost:
    """The cost of the rounds together: seconds are added, other figures are those of the own answers."""
    total: Cost = {**costs[ANSWERS]}
    for cost in (c for name, c in costs.items() if name != ANSWERS):
        for name, value in cost.items():
            before = total.get(name, 0.0)
            if name.startswith("seconds") and isinstance(value, int | float) and isinstance(before, int | float):
                total[name] = before + value
    return total


def spent(usage: Usage, endpoint: Endpoint) -> Cost:
    """The columns about requests. Tokens are those of all replies that the cell reads; the cost is that of the replies
    that were asked for this cell, so that the costs of all cells add up to the bill."""
    found: Cost = {
        "chat_requests": usage.requests,
        "chat_prompt_tokens": usage.prompt_tokens,
        "chat_completion_tokens": usage.completion_tokens,
        "chat_cache_hits": usage.hits,
        "chat_hit_rate": usage.hits / usage.requests if usage.requests else None,
        "chat_empty": usage.empty,
        "chat_seconds": round(usage.seconds, 3),
    }
    prices = endpoint.get("price_in"), endpoint.get("price_out")
    if prices != (None, None):
        tokens = usage.asked_prompt_tokens, usage.asked_completion_tokens
        found["chat_cost"] = sum((price or 0.0) * n for price, n in zip(prices, tokens, strict=True)) / MILLION
    return found
