"""What the chat model is told of pictures, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.chat.asking import Asking
from blip2sweep.chat.client import Client
from blip2sweep.chat.replies import Replies
from blip2sweep.tasks import Generation, planned_task
from blip2sweep.tasks.scenes import write_split
from blip2sweep.workers import in_context
from blip2sweep.workers.rounds import round_job
from tests.chat.server import Endpoint as Server
from tests.composing import plan
from tests.in_process import own_text
from tests.workers.in_context.cells import (
    endpoint,
    jobs,
)


def test_costs_are_those_of_what_was_asked_for_the_cell() -> None:
    usage = in_context.Usage(3, 1, 300, 30, 200, 20)
    found = in_context.spent(usage, {"price_in": 0.5, "price_out": 1.5})
    assert found["chat_cost"] == pytest.approx((200 * 0.5 + 20 * 1.5) / 1e6)
    assert found["chat_hit_rate"] == pytest.approx(1 / 3)
    assert "chat_cost" not in in_context.spent(usage, {})


def test_what_the_chat_model_is_told_is_what_transformers_itself_generates(tmp_path: Path, server: Server) -> None:
    these = jobs("part=none", "generation.num_beams=2", backend="torch")
    backend = TorchBackend({"device": "cpu", "threads": 1})
    made = [round_job(these[0], name) for name in ("answers", "captions")]  # type: ignore[arg-type]
    backend.expect(made)
    own, captions = (backend(job) for job in made)
    loaded = backend.quantized(made[0])
    data = backend.task(made[0])
    told = Generation("a photo of", 5, 20, None, 1.5, repetition_penalty=2.0)
    assert captions.predictions.text == [own_text(loaded, p, "a photo of", told) for p in data.images.values()]
    assert captions.predictions.id == [*data.images]
    assert captions.cost["hits_bridge"] == len(data.images)  # no picture is encoded twice
    plain = plan("task=shapes_vqa", "task.limit=9", "part=none", "generation.num_beams=2").cells.values()
    (alone,) = (backend(cell.job()) for cell in plain)
    assert own.predictions == alone.predictions


@pytest.mark.parametrize(("variant", "requests"), [("caption", 1), ("questions", 2), ("noun", 2)])
def test_pictures_that_cannot_be_read_leave_the_other_answers(
    tmp_path: Path, server: Server, variant: str, requests: int
) -> None:
    write_split(tmp_path / "data", "val2014", 4, seed=1)
    words = ("part=none", f"task.data_dir={tmp_path / 'data'}", "task.limit=null", "task.on_bad_image=skip")
    words = (*words, f"chat.variant={variant}", "generation.num_beams=1")
    bad = sorted((tmp_path / "data" / "val2014").iterdir())[1]
    bad.write_bytes(b"no picture")
    (job,) = jobs(*words, backend="torch")
    backend = TorchBackend({"device": "cpu", "threads": 1})
    asking = Asking(Replies(tmp_path), job["key"], Client(endpoint(server)))
    found = in_context.in_context(job, backend, tmp_path, asking, {})  # type: ignore[arg-type]
    samples = [s for s in planned_task(job["task"]).samples if s.image != bad]
    assert found.predictions.id == [s.id for s in samples]
    assert found.cost["bad_images"] == 1
    assert found.cost["chat_requests"] == requests * len(samples)  # none about the picture
    told = [texts[0] for texts in found.predictions.context or ()]
    assert all(len(text) > len("a photo of ") for text in told)
