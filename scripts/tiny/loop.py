"""The training loop of a tiny model: optimizer, rates, log, and a state to continue from."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from .batches import Batch, BatchSpec, batches
from .words import Wording


@dataclass(frozen=True)
class Settings:
    """Optimisation settings; learning rates are peaks."""

    lr: float = 2e-3
    image_lr: float = 1e-3  # of everything on the image's side once text begins
    weight_decay: float = 0.1
    question_weight: float = 2.0
    cell_weight: float = 0.3  # once text begins
    save_every: int = 500
    log_every: int = 50


Sides = dict[str, list[nn.Parameter]]  # 'image' and 'text'


class Trainer(ABC):
    """Model, helpers and optimizer of one run; `step` is a pure function of their state and the batch."""

    wording: Wording

    def __init__(self, model: PreTrainedModel, heads: dict[str, nn.Module], spec: BatchSpec, settings: Settings):
        self.model, self.heads, self.spec, self.settings = model, heads, spec, settings
        groups = list(self._groups(self.sides()))
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), foreach=True)

    @abstractmethod
    def sides(self) -> Sides:
        """All parameters that learn."""

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """The weighted terms of the loss, scalars."""

    @abstractmethod
    def cooling(self, text_step: int) -> float:
        """The rates' factor 0..1 at a step of the text phase, beside its warm-up."""

    def _groups(self, sides: Sides) -> Iterator[dict]:
        """Parameter groups: image side and language side, each with and without weight decay (vectors)."""
        for side, parameters in sides.items():
            for decay, rank in ((self.settings.weight_decay, True), (0.0, False)):
                yield {"params": [p for p in parameters if (p.ndim > 1) == rank], "weight_decay": decay, "side": side}

    def _set_rates(self, step: int) -> None:
        """Phase one: linear warm-up over 100 steps. Phase two: warm-up over 200, then what `cooling` says."""
        s, text_step = self.settings, step - self.spec.cell_steps
        in_text = text_step >= 0
        scale = min(1.0, (text_step + 1) / 200 if in_text else (step + 1) / 100)
        if in_text:
            scale *= self.cooling(text_step)
        for group in self.optimizer.param_groups:
            group["lr"] = scale * (s.image_lr if in_text and group["side"] == "image" else s.lr)

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """One update; returns the weighted loss terms before it."""
        self._set_rates(step)
        terms = self.losses(batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values(), start=torch.zeros(())).backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        return {name: term.item() for name, term in terms.items()}

    def state(self) -> dict[str, dict]:
        modules = {"model": self.model, **self.heads}
        return {name: module.state_dict() for name, module in modules.items()} | {
            "optimizer": self.optimizer.state_dict()
        }

    def load(self, state: dict[str, dict]) -> None:
        for name, part in {"model": self.model, **self.heads, "optimizer": self.optimizer}.items():
            part.load_state_dict(state[name])


@dataclass
class _Progress:
    """Where a run stands: steps done, seconds spent, running means of the loss terms."""

    step: int
    seconds: float
    means: dict[str, float]

    def add(self, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            self.means[name] = 0.97 * self.means.get(name, value) + 0.03 * value


def _save(trainer: Trainer, processor: ProcessorMixin, folder: Path, progress: _Progress) -> None:
    """Model and processor as Hugging Face folders, and the state to continue from; the rename commits it."""
    trainer.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    partial = folder / "training.pt.part"
    torch.save({**vars(progress), **trainer.state()}, partial)
    partial.rename(folder / "training.pt")


def _resume(trainer: Trainer, folder: Path) -> _Progress:
    """Load `folder/training.pt` if there is one."""
    if not (folder / "training.pt").exists():
        return _Progress(0, 0.0, {})
    state = torch.load(folder / "training.pt", weights_only=True)
    trainer.load(state)
    return _Progress(state["step"], state["seconds"], state["means"])


def _shorten_log(folder: Path, step: int) -> None:
    """Keep what the log says up to `step`; later lines are of a run that was killed before it saved."""
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))


def _log(folder: Path, progress: _Progress) -> None:
    means = {name: round(value, 4) for name, value in progress.means.items()}
    line = json.dumps({"step": progress.step, "seconds": round(progress.seconds), **means})
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def train(trainer: Trainer, processor: ProcessorMixin, folder: Path) -> PreTrainedModel:
    """Train to the last step, continuing from `folder/training.pt` if it exists; save the fp32 model in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec, settings = trainer.spec, trainer.settings
    progress = _resume(trainer, folder)
    _shorten_log(folder, progress.step)
    begin = time.time() - progress.seconds
    for step, batch in batches(processor.tokenizer, spec, trainer.wording, progress.step):
        progress.add(trainer.step(batch, step))
        progress.step, progress.seconds = step + 1, time.time() - begin
        last = progress.step == spec.steps
        if progress.step % settings.log_every == 0 or last:
            _log(folder, progress)
        if progress.step % settings.save_every == 0 or last:
            _save(trainer, processor, folder, progress)
    return trainer.model.eval()
