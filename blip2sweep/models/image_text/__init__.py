"""Models that transformers loads as image-text-to-text: LLaVA and all newer ones, through one adapter.

They have two things in common. `get_image_features` is the vision tower and the connector. The whole model's forward
takes these features as `mm_encoder_outputs`, with placeholders for them among the tokens. So a model of this kind is a
YAML file: its parts by role, its prompts, and what stands around the user's text. Pictures become one stage for the
tower, whose blocks can be entered and left anywhere, one for what is behind it, and the language model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import Family, Implementation, Stage
from blip2sweep.models.fields import field
from blip2sweep.models.image_text.features import check_transformers
from blip2sweep.models.image_text.work import work
from blip2sweep.models.part import CONNECTOR, LANGUAGE, VISION
from blip2sweep.wire.model_section import ModelSection, PartSection

__all__ = ["FAMILIES", "MODEL_TYPE", "check_library", "implementation", "left_out", "no_graphs", "stages", "work"]

MODEL_TYPE = None  # `config.model_type` of the model's YAML
FAMILIES = {"decoder": Family(())}
# By `model_type`: towers and decoders that can be graphs (graphs.py, models/graphs/causal.py). Qwen's cannot: their towers
# read patches of any number, and the masks between them depend on the pictures.
IN_GRAPHS = frozenset({"llava", "llava_next", "llava_onevision", "paligemma", "gemma3", "internvl", "idefics3"})
OF_STATES = frozenset(
    {"llava", "llava_next", "llava_onevision"}
)  # of these, what reads states before a tower's last norm
TEXT_IN_GRAPHS = frozenset({"llama", "mistral", "qwen2", "gemma", "gemma3_text"})
CONNECTORS = ("model.multi_modal_projector", "model.connector", "model.image_newline")


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages, by the roles of the model's parts. What is in no tower and no connector is the language model's."""
    parts = cast("Mapping[str, PartSection]", model.get("parts") or {})
    vision, connector, language = (_stacks(parts, role) for role in (VISION, CONNECTOR, LANGUAGE))
    if len(vision) != 1:
        raise UserError(
            f"model {model.get('name')}: {len(vision)} stacks of parts with the role vision; right: one, the list of "
            f"blocks of the tower that sees pictures"
        )
    towers = tuple(dict.fromkeys(".".join(path.split(".")[:2]) for path in vision))
    return (
        Stage(VISION, towers, vision, by_block=True),
        Stage(CONNECTOR, (*connector, *CONNECTORS), connector, residual=False),
        Stage(LANGUAGE, ("",), language),
    )


def check_library(model: Mapping[str, object]) -> None:
    """Raise UserError where the installed transformers cannot run a model: it takes no features of pictures."""
    check_transformers(field("config.model_type", model))


def no_graphs(model: Mapping[str, object]) -> str | None:
    """See `models.architecture.no_graphs`. A text type that the config leaves out is asked where the graphs are made."""
    kind, text = (field(name, model) for name in ("config.model_type", "config.text_config.model_type"))
    if kind not in IN_GRAPHS:
        return f"no graphs of models of type {kind}; right: one of {', '.join(sorted(IN_GRAPHS))}, or backend=torch"
    if text is not None and text not in TEXT_IN_GRAPHS:
        return f"no graphs of a decoder of type {text}; right: one of {', '.join(sorted(TEXT_IN_GRAPHS))}, or backend=torch"
    return None


def left_out(model: Mapping[str, object]) -> Mapping[str, Sequence[str]]:
    """See `models.architecture.left_out`: SigLIP's pooling head, a norm behind the states that are read, and what is put
    between the features of tiles, which is done outside of graphs."""
    norm = ("post_layernorm",) if field("config.model_type", model) in OF_STATES else ()
    return {VISION: ("head", *norm), CONNECTOR: ("image_newline",)}


def _stacks(parts: Mapping[str, PartSection], role: str) -> tuple[str, ...]:
    """The paths of the stacks of all parts of a role, in the order of the config."""
    return tuple(str(stack["path"]) for part in parts.values() if part.get("role") == role
                 for stack in part["stacks"].values())  # fmt: skip


def implementation(model: Mapping[str, object]) -> Implementation:
    from blip2sweep.models.image_text.model import ImageText

    return ImageText(cast("ModelSection", model))
