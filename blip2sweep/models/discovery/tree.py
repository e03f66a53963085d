"""The lists of blocks of a model and their linear layers, read from its module tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from blip2sweep.models.part import CONNECTOR, LANGUAGE, VISION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BEHIND = re.compile(
    r"merger|projector|connector|resampler|perceiver|abstractor"
)  # lists in a tower that are no part of it
BEFORE = re.compile(r"embed|rotary")  # what makes tokens of patches
CROSS = re.compile(r"cross|encdec|xattn")
ATTENTION = re.compile(r"attn|attention")
MLP = re.compile(r"mlp|feed_?forward|ffn|dense|intermediate|projector|merger|connector|resampler|projection")
NUMBERED = re.compile(r"(fc|linear|lin|w|proj)_?\d*$|\d+$")


@dataclass(frozen=True)
class Layer:
    """A linear layer of a block. kind: None where neither its name nor the classes around it say."""

    kind: str | None
    shape: tuple[int, int]
    bias: bool


@dataclass(frozen=True)
class Found:
    """A list of equal blocks, or with `n` None one module. layers: {name inside a block: layer}."""

    role: str
    path: str
    n: int | None
    layers: Mapping[str, Layer]

    def block_paths(self) -> list[str]:
        return [self.path] if self.n is None else [f"{self.path}.{i}" for i in range(self.n)]


def lists(model: PreTrainedModel) -> tuple[list[Found], list[str]]:
    """(the lists of blocks and the modules between tower and language model, what is unclear)."""
    tower, words = _path(model, model.get_encoder(modality="image")), _path(model, model.get_decoder())
    if not tower or not words:
        missing = "vision tower" if not tower else "language model"
        return [], [f"no {missing}: {type(model).__name__} names none of its modules so"]
    found, wrong = list[Found](), list[str]()
    for path, blocks in _outermost(model):
        role = _role(path, tower, words)
        classes = sorted({type(b).__name__ for b in blocks})
        if len(classes) > 1:
            wrong.append(f"{path} has blocks of {len(classes)} classes ({', '.join(classes)})")
            continue
        layers, differ = _common(list(blocks))
        wrong += [f"{path}: only some of its blocks have {', '.join(differ)}"] if differ else []
        found.append(Found(role, path, len(blocks), layers))
    between = _between(model, [f.path for f in found], tower, words)
    modules = [path for path in between if not isinstance(model.get_submodule(path), nn.Linear)]
    found = [*(Found(CONNECTOR, path, None, _layers(model.get_submodule(path))) for path in modules), *found]
    return found, [*wrong, *_missing(found), *_unknown(found), *_bare(model, between)]


def _path(model: nn.Module, module: nn.Module) -> str | None:
    return next((name for name, m in model.named_modules() if m is module), None)


def _outermost(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """The lists whose members hold linear layers, and that lie in no other one."""
    taken = list[str]()
    for path, module in model.named_modules():
        inside = any(path.startswith(t + ".") for t in taken)
        if isinstance(module, nn.ModuleList) and not inside and any(_layers(block) for block in module):
            taken.append(path)
            yield path, module


def _role(path: str, tower: str, words: str) -> str:
    if BEHIND.search(path):
        return CONNECTOR
    return VISION if path.startswith(tower + ".") else LANGUAGE if path.startswith(words + ".") else CONNECTOR


def _common(blocks: Sequence[nn.Module]) -> tuple[dict[str, Layer], list[str]]:
    """(the layers of a block, the names of those that not all blocks have or that differ)."""
    each = [_layers(block) for block in blocks]
    names = dict.fromkeys(name for one in each for name in one)
    return each[0], [name for name in names if any(one.get(name) != each[0].get(name) for one in each)]


def _layers(block: nn.Module) -> dict[str, Layer]:
    return {
        name: Layer(_kind(block, name), (m.out_features, m.in_features), m.bias is not None)
        for name, m in block.named_modules()
        if name and isinstance(m, nn.Linear)
    }


def _kind(block: nn.Module, name: str) -> str | None:
    words = name.lower().split(".")
    owners = [type(block.get_submodule(".".join(name.split(".")[:i]))).__name__.lower() for i in range(len(words))]
    said = " ".join([*words[:-1], *owners[1:]])
    if CROSS.search(said):
        return "crossattention"
    if ATTENTION.search(said):
        return "attention"
    return "mlp" if MLP.search(f"{said} {owners[0]}") or NUMBERED.match(words[-1]) else None


def _between(model: nn.Module, taken: Sequence[str], tower: str, words: str) -> list[str]:
    """The modules with linear layers that lie in no list, in no language model and not before the tower's blocks."""
    linears = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    loose = [n for n in linears if not any(n.startswith(t + ".") for t in taken) and not n.startswith(words + ".")]
    return list(dict.fromkeys(_root(n, tower) for n in loose if not BEFORE.search(n)))


def _bare(model: PreTrainedModel, between: Sequence[str]) -> Iterator[str]:
    """A part is made of the linears inside a module, so one that is a module by itself would be left out."""
    head = model.get_output_embeddings()
    for path in between:
        module = model.get_submodule(path)
        if isinstance(module, nn.Linear) and module is not head:
            yield f"{path} is a bare nn.Linear, of which no part can be made (its own part would be the linears inside it)"


def _root(name: str, tower: str) -> str:
    """The module right below the tower, or below the model in which the tower is."""
    above = tower if name.startswith(tower + ".") else tower.rpartition(".")[0]
    return ".".join(name.split(".")[: len(above.split(".")) + 1]) if above and name.startswith(above + ".") else name


def _missing(found: Sequence[Found]) -> Iterator[str]:
    for role, what in ((VISION, "vision tower"), (LANGUAGE, "language model")):
        own = [f.path for f in found if f.role == role]
        if len(own) != 1:
            yield f"the {what} has {'no list' if not own else f'{len(own)} lists'} of blocks ({', '.join(own) or 'none'})"


def _unknown(found: Sequence[Found]) -> Iterator[str]:
    for f in found:
        names = [name for name, layer in f.layers.items() if layer.kind is None]
        if names:
            yield f"{f.path}: {', '.join(names)} is of no known kind (attention, crossattention or mlp)"


def linear_share(model: nn.Module, found: Sequence[Found]) -> float:
    """The share of the weights inside blocks that are those of linear layers. Embeddings and heads are in no block."""
    linear, rest = 0, 0
    for block in (model.get_submodule(path) for f in found for path in f.block_paths()):
        for module in block.modules():
            own = sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)
            linear, rest = (linear + own, rest) if isinstance(module, nn.Linear) else (linear, rest + own)
    return linear / (linear + rest) if linear else 0.0
