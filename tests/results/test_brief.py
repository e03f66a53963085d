"""What is kept of the lines of a large ledger: numbers as JSON, equal texts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2sweep.results.brief import Numbers, share_texts, with_numbers
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.wire.lines import Line

MEASURED = {
    "event": "measured", "time": 1.5, "host": "h", "pid": 1, "key": "abc", "source": "abc-1 m", "generation": 0,
    "scored": "s", "samples": 2, "noise": {"flip_rate": 0.5}, "images": 2, "same": 0.5,
    "metrics": {"cider": [1.0, 2.0, 1.0, None, None, 3], "nll": [None]}, "retained": {"cider": [0.5, None]},
}  # fmt: skip
BESIDE = {"controlled": {"cider": [1.0, 0.5, 0.25, None]}, "installed": {"gqa": "1"}}


@pytest.mark.parametrize("more", [{}, BESIDE, {"metrics": {}, "retained": {}}, {"metrics": {"x": [float("nan")]}}])
def test_numbers_are_those_of_the_line(more: dict[str, object]) -> None:
    line = sealed({**MEASURED, **more}, 7)[:-1]
    record = with_numbers(line)
    assert isinstance(record, dict)
    assert isinstance(record["metrics"], Numbers)
    plain = {k: dict(v) if isinstance(v, Numbers) else v for k, v in record.items()}
    assert json.dumps(plain, sort_keys=True) == json.dumps(json.loads(line), sort_keys=True)


def test_a_line_without_retained_is_seen_as_one() -> None:
    record = with_numbers(sealed({k: v for k, v in MEASURED.items() if k != "retained"}, 0))
    assert isinstance(record, dict)
    assert "retained" not in record
    assert list(record["metrics"]) == ["cider", "nll"]
    assert record["metrics"]["nll"] == [None]
    assert len(record["metrics"]) == 2


def test_metrics_of_another_shape_are_parsed_with_the_line() -> None:
    odd = {**MEASURED, "metrics": {"cider": {"value": 1.0}}}
    record = with_numbers(sealed(odd, 0))
    assert isinstance(record, dict)
    assert record["metrics"] == odd["metrics"]


def test_no_json_is_no_record() -> None:
    assert with_numbers(b'{"event":"measured","metrics":{},') is None


def test_equal_texts_are_one_object(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    head = {"event": "result", "time": 1.0, "host": "node-1", "pid": 1, "attempt": "a", "predictions": None}
    lines = [{**head, "key": key, "columns": {"task": "shapes caption", "bits": 4}} for key in ("k1", "k2")]
    (tmp_path / "journals" / "j.jsonl").write_bytes(b"".join(sealed(line, i) for i, line in enumerate(lines)))
    one, two = Ledger(tmp_path, measured=True).refresh().results()
    assert one["host"] is two["host"]
    assert one["columns"]["task"] is two["columns"]["task"]
    assert one["columns"] == {"task": "shapes caption", "bits": 4}


def test_what_is_no_text_stays(tmp_path: Path) -> None:
    record: Line = {"event": "started", "key": "k", "time": 1.0, "host": "h", "pid": 1, "sweep": None, "run": "r"}
    before = dict(record)
    share_texts(record, {})
    assert record == before
