"""The batches that calibration shows an image-text model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, choose
from tests.checkpoints import conf
from tests.models.image_text.made import Made
from tests.ragged_pictures import scenes

pytestmark = pytest.mark.thorough


def calibration(data: Path, weight: float) -> Calibration:
    task = {**conf("task/shapes_caption"), "split": "train2014", "data_dir": str(data)}
    return Calibration(task, choose(load_task(task), 6, 0), "test", 6, 0, "part", weight, False, None)


def test_pictures_of_as_many_tiles_in_other_rows_are_in_other_batches(
    small: Callable[[str], Made], tmp_path: Path
) -> None:
    """The processor writes a line break behind each row of tiles: other tokens around as many features."""
    m, data = small("smolvlm-256m"), scenes(tmp_path / "scenes", 6)
    for i, path in enumerate(sorted((data / "train2014").iterdir())):  # captions 0 and 3, 1 and 4 … are as long
        Image.new("RGB", (64, 32) if i < 3 else (32, 64), (90, 40 * i, 7)).save(path)
    seen: list[dict[str, Any]] = []
    hook = m.loaded.model.register_forward_pre_hook(lambda _, args, words: seen.append(words), with_kwargs=True)
    try:
        batches = CalibrationBatches(m.loaded, calibration(data, 0.5)).batches("language")
        for batch in batches:
            batch.run()
    finally:
        hook.remove()
    assert len(seen) == len(batches) == 6
    for batch, words in zip(batches, seen, strict=True):
        assert words["attention_mask"].all()
        pictured = words["input_ids"].flatten() == m.loaded.model.config.image_token_id
        assert batch.weights is not None
        assert torch.equal(batch.weights == 0.5, pictured)
