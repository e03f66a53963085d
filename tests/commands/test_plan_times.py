"""What a plan and other lines say of times."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.commands.plan import describe_local
from blip2sweep.running.status import duration
from tests.composing import plan


def test_hours_are_of_gpus_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = plan("part=vit", "quant.bits=2,3")
    for gpus, word in (([], "worker hours"), (["0"], "GPU hours")):
        monkeypatch.setattr("blip2sweep.commands.plan.visible_gpus", lambda gpus=gpus: gpus)
        describe_local(own, tmp_path, 1, 1)
        assert word in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (0.01, "0.1 s"), (0.23, "0.2 s"), (0.97, "1 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h")],
)
def test_a_time_that_is_not_0_is_not_said_to_be(seconds: float, told: str) -> None:
    assert duration(seconds) == told
