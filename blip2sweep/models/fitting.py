"""Which model of conf/model fits a folder's config.json, and what a folder takes from it. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import architecture
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.fields import factors, field, named, nested
from blip2sweep.models.own_config import OwnConfig
from blip2sweep.models.part import LANGUAGE, VISION
from blip2sweep.wire.model_section import ModelSection, PartSection, StackSection

Parts = Mapping[str, PartSection]
INNER = {VISION: "vision_config", LANGUAGE: "text_config"}  # role -> the section of config.json
DEPTH = "vision_feature_layer"  # the hidden state of the tower that is read, or several of them
TIE = "tie_word_embeddings"
# The names that the embedding of words and the output layer have in files, where the whole model has the output layer.
WORDS = (
    "model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight",
    "model.text_model.embed_tokens.weight", "model.embed_tokens.weight",
)  # fmt: skip
HEADS = ("lm_head.weight", "language_model.lm_head.weight")


def model_type(model: ModelSection) -> str:
    """The `model_type` of config.json of a model."""
    return str(architecture(model).MODEL_TYPE or model["config"].get("model_type"))


def parts(
    folder: Path, own: OwnConfig, models: Mapping[str, ModelSection], known: Mapping[str, ModelSection]
) -> tuple[ModelSection, Parts]:
    """(the model that fits best, the parts of a folder). models: those of its type.

    A vision tower or language model of another kind than the model's comes from another model of the same adapter that
    has it. Raises UserError where none has it.
    """
    base = max(models.values(), key=lambda m: (_alike(m, own), _equal(m, own)))
    found, wrong = dict(base["parts"]), list[str]()
    for role in INNER:
        if _kind(base, role) not in (None, _own_kind(own, role)):
            donor = next((m for m in known.values() if _gives(m, base, role, own)), None)
            wrong += [] if donor else [_unknown(role, own, base, known)]
            found |= _lent(base, donor, role) if donor else {}
    if wrong:
        raise UserError(
            f"model.path={folder}: {'; '.join(wrong)}; right: one of these, or `blip2sweep model add {folder}`"
        )
    return base, _read_to(found, base, own)


def _alike(model: ModelSection, own: OwnConfig) -> int:
    """How many of its vision tower and language model are of the folder's kinds; the language model counts more."""
    same = {role: _kind(model, role) in (None, _own_kind(own, role)) for role in INNER}
    return same[VISION] + 2 * same[LANGUAGE]


def _equal(model: ModelSection, own: OwnConfig) -> int:
    return sum(field(path, own.full) == value for path, value in named(model["config"]))


def _kind(model: ModelSection, role: str) -> object:
    return field(f"{INNER[role]}.model_type", model["config"])


def _own_kind(own: OwnConfig, role: str) -> object:
    return field(f"{INNER[role]}.model_type", own.full)


# ---- a tower or language model of another model


def _gives(model: ModelSection, base: ModelSection, role: str, own: OwnConfig) -> bool:
    """Whether a model has the folder's kind, in the modules of an adapter that serves many types of models."""
    same = model.get("architecture") == base.get("architecture") and architecture(base).MODEL_TYPE is None
    return same and _kind(model, role) == _own_kind(own, role) and len(_of_role(model, role)) == 1


def _of_role(model: ModelSection, role: str) -> dict[str, PartSection]:
    return {name: part for name, part in model["parts"].items() if part.get("role") == role}


def _lent(base: ModelSection, donor: ModelSection, role: str) -> dict[str, PartSection]:
    """The part of a role with the layers of another model at the paths of this one."""
    ((name, mine),) = _of_role(base, role).items()
    (other,) = _of_role(donor, role).values()
    (counted,) = other["stacks"].values()
    stacks = {s: cast("StackSection", {**entry, "blocks": counted["blocks"]}) for s, entry in mine["stacks"].items()}
    return {name: PartSection(role=role, stacks=stacks, layers=other["layers"], folds=other.get("folds"))}


def _unknown(role: str, own: OwnConfig, base: ModelSection, known: Mapping[str, ModelSection]) -> str:
    same = (m for m in known.values() if model_type(m) == model_type(base))
    general = (m for m in known.values() if m.get("architecture") == base.get("architecture"))
    from_all = general if architecture(base).MODEL_TYPE is None else same
    names = sorted({str(kind) for m in from_all if (kind := _kind(m, role))})
    what = "language model" if role == LANGUAGE else "vision tower"
    return (
        f"config.json: {INNER[role]}.model_type is {shown(_own_kind(own, role))}, a {what} that no model of conf/model "
        f"has ({', '.join(names)})"
    )


# ---- sizes, blocks that are read, ties


def sizes(base: ModelSection, own_parts: Parts, own: OwnConfig) -> dict[str, object]:
    """The `config` of a folder: the fields that the model's has or that its parts follow, with the folder's values."""
    names = dict.fromkeys([*(path for path, _ in named(base["config"])), *_named_by(own_parts), DEPTH])
    values = {path: _value(path, own) for path in names}
    return nested({path: value for path, value in values.items() if value is not None})


def _named_by(own_parts: Parts) -> Iterator[str]:
    """The fields that sizes in parts name."""
    for part in own_parts.values():
        layers = [entry for own in part["layers"].values() for entry in own.values()]
        written = [s for stack in part["stacks"].values() for s in [stack.get("blocks", 1)]]
        written += [size for entry in layers for size in (*entry["shape"], entry.get("every", 1))]
        yield from (f for size in written for f in factors(size) if not f.isdigit())


def _value(path: str, own: OwnConfig) -> object:
    if path.endswith(TIE) and field(path, own.data) is not None:
        return field(path, own.data)  # transformers turns T5's into another field
    found = field(path, own.full)
    head, _, last = path.rpartition(".")
    if found is None and last == "head_dim":
        width, heads = (field(f"{head}.{name}", own.full) for name in ("hidden_size", "num_attention_heads"))
        return width // heads if isinstance(width, int) and isinstance(heads, int) else None
    return found


def _read_to(found: Parts, base: ModelSection, own: OwnConfig) -> Parts:
    """Parts whose last vision blocks are unread exactly where config.json reads an earlier state."""
    layer = own.full.get(DEPTH)
    if layer is None or layer == base["config"].get(DEPTH):
        return found
    return {name: _unread(part, layer, own) if part.get("role") == VISION else part for name, part in found.items()}


def _unread(part: PartSection, layer: object, own: OwnConfig) -> PartSection:
    def one(stack: StackSection) -> StackSection:
        n = int(str(field(str(stack["blocks"]), own.full)))
        kept = {k: v for k, v in stack.items() if k != "unread"}
        return cast("StackSection", {**kept, **({"unread": behind} if (behind := unread(layer, n)) else {})})

    return PartSection(**{**part, "stacks": {name: one(stack) for name, stack in part["stacks"].items()}})


def unread(layer: object, n: int) -> int:
    """How many of the last of `n` blocks reach nothing. layer: the hidden state that is read, or a list of them."""
    read: Sequence[object] = layer if isinstance(layer, list | tuple) else [layer]
    states = [i if i >= 0 else n + 1 + i for i in read if isinstance(i, int)]  # state i is the output of block i - 1
    return max(0, n - max(states, default=n))


def tied(base: ModelSection, own: OwnConfig) -> list[list[str]]:
    """The groups of names that are one tensor, as config.json ties them."""
    general = architecture(base).MODEL_TYPE is None
    ties = field(TIE if general else f"text_config.{TIE}", own.full)
    groups = [list(group) for group in base.get("tied") or ()]
    if not ties:
        groups = [[name for name in group if not name.endswith(HEADS)] for group in groups]
    elif general and not any(name.endswith(HEADS) for group in groups for name in group):
        groups.append([*WORDS, *HEADS])
    return [group for group in groups if len(group) > 1]
