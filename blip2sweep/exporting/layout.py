"""A model as it runs, in the layout of Hugging Face: its tensors by the names of published checkpoints, config, processor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from blip2sweep.compression.quantize.codes import Codes
from blip2sweep.compression.undo import Undo
from blip2sweep.exporting.made import Made
from blip2sweep.models import shorter
from blip2sweep.models.architecture import stages
from blip2sweep.models.load import DTYPES
from blip2sweep.wire.model_section import ModelSection

SHARD = "5GB"
Rename = Callable[[str], str]


class Layout(NamedTuple):
    """A model that is about to be written. codes: {path of a layer: its codes}, without dropped blocks. layers: {path of
    a layer that is not written as it is: its path in the whole model}. stored: {name of a parameter: the dtype in which
    it is written}."""

    model: PreTrainedModel
    codes: dict[str, Codes]
    layers: dict[str, str]
    stored: dict[str, torch.dtype]
    rename: Rename

    def dense(self) -> dict[str, Tensor]:
        """{name: tensor} of all that is written as it is, in the dtype in which it is stored; tied tensors once."""
        tied, weights = self.model.all_tied_weights_keys, {f"{path}.weight" for path in self.layers}
        named = ((k, v) for k, v in self.model.state_dict().items() if k not in tied and k not in weights)
        return {k: v.to(self.stored.get(k, v.dtype)).cpu() for k, v in named}

    def rounded(self) -> int:
        """How many tensors that are written as they are lose digits where they are stored."""
        state = self.model.state_dict()
        return sum(not torch.equal(x.to(state[k].dtype), state[k].cpu()) for k, x in self.dense().items())

    def name(self, path: str) -> str:
        """The name of a layer in the files."""
        (found,) = self.on_disk({f"{path}.weight": torch.empty(0)})
        return found.removesuffix(".weight")

    def on_disk(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by their names in the files."""
        return {self.rename(k): v for k, v in revert_weight_conversion(self.model, dict(state)).items()}

    def dense_layers(self) -> list[str]:
        """The names in the files of all linear layers that are written as they are."""
        paths = [p for p, m in self.model.named_modules() if isinstance(m, nn.Linear) and p not in self.layers]
        return [self.name(path) for path in paths]


@contextmanager
def laid_out(made: Made, rename: Rename = str, layers: Sequence[str] | None = None) -> Iterator[Layout]:
    """A model as it is to be written: where blocks are dropped, a shorter one.

    rename: of names in the files. layers: paths of those that are not written as they are; None: those with codes.

    Raises UserError, one line, where transformers could not load the model as it runs.
    """
    model, section = made.loaded.model, made.job["model"]
    owners = {id(model.get_submodule(path)): path for path in (made.codes if layers is None else layers)}
    with Undo() as undo:
        for change in shorter.changes(model, section):
            undo.attribute(*change)
        left = {path: owners[id(m)] for path, m in model.named_modules() if id(m) in owners}
        codes = {path: made.codes[own] for path, own in left.items() if own in made.codes}
        yield Layout(model, codes, left, _stored(model, section), rename)


def _stored(model: PreTrainedModel, section: ModelSection) -> dict[str, torch.dtype]:
    """{name: dtype} of the parameters."""
    asked = section.get("stored")
    return {n: DTYPES[asked] if asked else p.dtype for n, p in model.named_parameters() if p.is_floating_point()}


def write(
    made: Made, layout: Layout, state: Mapping[str, Tensor], quantization: Mapping[str, object] | None, to: Path,
    metadata: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Write tensors, config and processor to a folder. Returns the bytes of the tensors.

    state: by names as the model has them. quantization: for `quantization_config` of config.json; None: a dense checkpoint. metadata: of the files
    of tensors.
    """
    tensors = layout.on_disk(state)
    layout.model.config.save_pretrained(to)
    if (generation := getattr(layout.model, "generation_config", None)) is not None:  # one that writes no text has none
        generation.save_pretrained(to)
    made.loaded.processor.save_pretrained(to)
    save_torch_state_dict(tensors, to, max_shard_size=SHARD, metadata={"format": "pt", **(metadata or {})})
    _amend(to / "config.json", layout, quantization)
    return sum(x.numel() * x.element_size() for x in tensors.values())


def _amend(path: Path, layout: Layout, quantization: Mapping[str, object] | None) -> None:
    config = json.loads(path.read_text())
    dtype = str(layout.model.dtype).removeprefix("torch.")
    config |= {
        "architectures": [type(layout.model).__name__],
        "dtype": dtype,
        **({"quantization_config": quantization} if quantization else {}),
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def dtypes_of(made: Made) -> dict[str, str]:
    """{path of a module: dtype} of each stage, as the model runs."""
    return {child: made.loaded.dtypes[stage.name] for stage in stages(made.job["model"]) for child in stage.children}
