"""Cells of a command run in this process, as a worker would run them; and the text that the model alone would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.models.load import Loaded
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.tasks import Generation
from blip2sweep.tasks.predictions import Predictions
from tests.composing import plan


def jobs(*words: str, limit: int = 40) -> list[dict[str, Any]]:
    """The jobs of a command, in the order a pack has them."""
    cells = plan(*words, f"task.limit={limit}").cells.values()
    return sorted((c.job() for c in cells), key=Prefixes())


def run(these: list[dict[str, Any]], **settings: Any) -> dict[str, tuple[Predictions, dict[str, Any]]]:
    """{key: (predictions, what is told of the run)}."""
    runner = TorchBackend({"device": "cpu", **settings})
    runner.expect(these)
    return {job["key"]: told(runner(job)) for job in these}


def told(answered: Answered) -> tuple[Predictions, dict[str, Any]]:
    """The predictions, and all else by name."""
    rest = {"cost": answered.cost, "layers_changed": answered.layers_changed, **answered.provenance}
    floors = {what: second.summary for what, second in answered.calibration_noise.items()}
    return answered.predictions, {
        **rest, "noise": answered.noise, "calibration_noise": floors, **answered.artifacts
    }  # fmt: skip


def own_text(loaded: Loaded, image: Path, prompt: str, generation: Generation) -> str:
    """What transformers' documentation does: processor(images, text), then the whole model's generate."""
    batch = loaded.processor(images=Image.open(image).convert("RGB"), text=prompt, return_tensors="pt")
    assert (batch["input_ids"] == loaded.model.config.image_token_index).sum() == 12
    beams: dict[str, object] = {}
    if generation.num_beams > 1:
        beams = {"length_penalty": generation.length_penalty, "early_stopping": bool(generation.early_stopping)}
    beams |= {"repetition_penalty": p} if (p := generation.repetition_penalty) else {}
    ids = loaded.model.generate(
        **batch, do_sample=False, num_beams=generation.num_beams, max_new_tokens=generation.max_new_tokens,
        min_new_tokens=generation.min_new_tokens, **beams,
    )  # fmt: skip
    prompt = {"opt": batch["input_ids"].shape[1], "t5": 0}[loaded.family]  # OPT's holds the prompt too
    new = ids[:, prompt:]
    return loaded.processor.batch_decode(new, skip_special_tokens=True)[0].strip()
