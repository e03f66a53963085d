"""The back end that a config chooses, and the check that it can run the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from blip2sweep.backends.backend import TORCH, Asked, Refuses, backend_class, identity_of
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.recipe.back_end import check_backend
from blip2sweep.wire.pack import BackendChoice, JsonObject

SHORT = ("hints", "provider", "level")  # backend.hints is backend.options.hints


def chosen_backend(config: Mapping[str, object] | None, asked: Asked) -> BackendChoice | None:
    """The composed section `backend`; None for torch, which an identity does not name.

    Raises UserError for an unknown name, for a back end that cannot be used here or cannot run the cell, and for packed
    layers on a back end other than torch, which alone has the kernels, or layers that another's library rounds.
    """
    choice = _choice(config or {"name": TORCH})
    named = identity_of(choice)
    check_backend(asked.recipe, choice["name"])
    if named is None:
        return None
    if any(scheme.weights.packed for scheme in asked.recipe.schemes.values()):
        raise UserError(
            f"backend={choice['name']}: quant.packed asks for kernels of torch; right: backend=torch, or no quant.packed"
        )
    _check(choice, asked)
    return choice


def _choice(section: Mapping[str, object]) -> BackendChoice:
    """Options that the config has a short name for are options as others are."""
    short = {k: section[k] for k in SHORT if section.get(k) is not None}
    options = {**short, **cast("JsonObject", section.get("options") or {})}
    name = str(section["name"])
    return BackendChoice(name=name, options=options) if options else BackendChoice(name=name)


def _check(choice: BackendChoice, asked: Asked) -> None:
    """Raise UserError with all reasons why the back end cannot run the cell, where it says such."""
    own = backend_class(choice["name"])
    wrong = list[str]()
    if isinstance(own, Refuses):
        wrong = [f"backend={choice['name']}: {why}" for why in own.mistakes(choice, asked)]
    if wrong:
        raise UserErrors(wrong) if len(wrong) > 1 else UserError(wrong[0])


def runs_graphs(choice: BackendChoice | None) -> bool:
    """Whether a back end runs a model as graphs, so that what no graph reads is not written. None: torch."""
    return choice is not None and getattr(backend_class(choice["name"]), "RUNS_GRAPHS", False)


def backend_text(choice: BackendChoice) -> str:
    """As the table has it: its name, and its options where it has some."""
    options = choice.get("options") or {}
    return " ".join([choice["name"], *(f"{k}={_word(v)}" for k, v in sorted(options.items()))])


def _word(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)
