"""What the training scripts of both embedded models do alike: set up torch, load, save what ships, state plain facts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from .batches import BatchSpec
from .card import proof
from .runner import Runner

FRESH_SEED = 888


def set_up() -> None:
    """One thread, deterministic, quiet."""
    torch.set_num_threads(1)  # another number of threads gives other weights
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load(folder: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model in fp32, whatever its file holds, and its processor."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model.float().eval(), AutoProcessor.from_pretrained(folder)


def proven(trained: Runner, rescaled: Runner) -> dict[str, list]:
    """`proof`, and out of how many captions and answers."""
    return {**proof(trained, rescaled), "n": [len(trained.split.ids), len(trained.split.questions)]}


def save(runner: Runner, folder: Path, knobs: dict[str, object]) -> None:
    """The runner's model in bf16 with its processor, and `knobs` as rescale.json."""
    runner.model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone; a package is for everyone
    runner.processor.save_pretrained(folder)
    (folder / "rescale.json").write_text(json.dumps(knobs) + "\n")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def plain_facts(trained: Path, folder: Path, spec: BatchSpec) -> dict[str, object]:
    """The fields of a card that every model has."""
    model, processor = load(folder)
    last = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    return {
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": len(processor.tokenizer),
        "size": f"{(folder / 'model.safetensors').stat().st_size:,}",
        "fresh_seed": FRESH_SEED,
        "steps": spec.steps,
        "seed": spec.seed,
        "cell_steps": spec.cell_steps,
        "n_captions": spec.n_captions,
        "n_questions": len(spec.slots),
        "hard": f"{spec.hard_fraction:.0%}",
        "minutes": f"{last['seconds'] / 60:.0f}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "knobs": f"`{(folder / 'rescale.json').read_text().strip()}`",
    }
