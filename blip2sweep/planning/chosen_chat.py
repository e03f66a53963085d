"""The chat model that a config chooses for a task that asks one, and what a cell and its job have of it."""

from __future__ import annotations

from collections.abc import Mapping

from blip2sweep.canonical import canonical_json, digest
from blip2sweep.chat.recipe import ROUNDS, VARIANTS, resolved
from blip2sweep.metrics.lemmas import lemmatiser_version
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.task import asks_chat
from blip2sweep.wire.chat import ChatJob, ChatRecipe
from blip2sweep.wire.pack import JsonObject


def chosen_chat(config: Mapping[str, object] | None, task: TaskData) -> tuple[ChatRecipe | None, frozenset[str]]:
    """The recipe of the composed section `chat`, and the config keys that had an effect; None, and none, for a task that
    asks no chat model. Raises UserError for settings that are wrong."""
    if not asks_chat(task.rules):
        return None, frozenset()
    section = config or {}
    recipe, used = resolved(section)
    if section["lemmatize"] == "spacy" and VARIANTS[recipe["variant"]].tells:
        recipe["lemmatiser"] = lemmatiser_version("chat.lemmatize")
    return recipe, used


def rounds_of(recipe: ChatRecipe) -> dict[str, dict[str, object]]:
    """{what the model is asked besides its own answer: the settings of its generation}."""
    return {name: ROUNDS[name] for name in VARIANTS[recipe["variant"]].rounds}


def chat_job(recipe: ChatRecipe, identity: JsonObject) -> ChatJob:
    """What a worker needs. identity: the cell's; what it has besides the chat and the generation of the own answer
    determines what the model says in a round."""
    origin = digest({k: v for k, v in identity.items() if k not in ("chat", "generation")})
    return {"recipe": recipe, "origin": origin, "rounds": rounds_of(recipe)}


def chat_columns(recipe: ChatRecipe) -> JsonObject:
    """The columns of a row about the chat model."""
    return {
        "chat_model": recipe["model"],
        "chat_variant": recipe["variant"],
        "chat_shots": recipe["shots"],
        "chat_sampling": canonical_json(recipe["steps"]),
    }
