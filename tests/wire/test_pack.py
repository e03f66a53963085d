"""A pack is checked where it is read: what is none is refused in one line that says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError
from blip2sweep.planning.packs import pack_data, read_pack
from blip2sweep.wire.lines import line_of
from blip2sweep.wire.pack import pack_of
from blip2sweep.workers.worker import main
from tests.composing import plan

WORDS = ("task=shapes_vqa", "task.limit=4", "part=vit", "quant.bits=4", "backend=dummy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    jobs = [c.job() for c in plan(*WORDS).todo]
    made = pack_data(jobs, "s", "r", tmp_path_factory.mktemp("outputs"), {"batch_size": 2})
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: p.pop("sweep"), "sweep missing"),
        (lambda p: p.update(cells={}), "cells missing or of another type"),
        (lambda p: p.update(settings=None, models=3), "settings, models missing or of another type"),
        (lambda p: p["cells"].append("a"), "cells[2] no object"),
        (lambda p: p["cells"][1].pop("recipe"), "cells[1].recipe missing"),
        (lambda p: p["cells"][1].update(model="0"), "cells[1].model missing or of another type"),
        (lambda p: p["cells"][0].update(task=7), "cells[0].task: no such number"),
        (lambda p: p["cells"][0].update(model=-1), "cells[0].model: no such number"),
        (lambda p: p["models"].__setitem__(0, "tiny"), "cells[0].model: no such number"),
    ],
)
def test_what_is_no_pack_is_refused_in_one_line(
    whole: dict[str, Any], damage: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = json.loads(json.dumps(whole))
    damage(broken)
    path = tmp_path / "r-0.json"
    path.write_text(json.dumps(broken))
    assert main([str(path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {path}: not a pack ({told}")
    assert lines[0].endswith("right: an unchanged copy")


def test_a_list_is_no_pack() -> None:
    with pytest.raises(UserError, match=r"x: not a pack \(no object\)"):
        pack_of([], "x")


def test_fields_that_an_earlier_version_did_not_have_get_their_defaults(whole: dict[str, Any], tmp_path: Path) -> None:
    earlier = json.loads(json.dumps(whole))
    for name in ("index", "seconds"):
        del earlier[name]
    for cell in earlier["cells"]:
        del cell["calibration"]
    path = tmp_path / "r-0.json"
    path.write_text(json.dumps(earlier))
    pack = read_pack(path)
    assert (pack["index"], pack["seconds"]) == (0, None)
    assert [c["calibration"] for c in pack["cells"]] == [None, None]
    assert pack["cells"][0]["model"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("record", "is_line"),
    [
        ({"event": "result", "key": "a", "time": 1.0}, True),
        ({"event": "result", "time": 1.0}, False),
        ({"event": "measured", "key": "a", "time": 1.0, "source": "x"}, False),
        ({"event": "worker", "run": "r", "pack": 0}, True),
        ({"event": "worker", "run": "r"}, False),
        ({"event": "of a later version"}, True),  # kept by nobody, and no damage
        ({"event": 3, "key": "a"}, False),
        ({"key": "a"}, False),
        (["event"], False),
        (None, False),
    ],
)
def test_a_line_has_what_the_ledger_takes_for_granted(record: object, is_line: bool) -> None:
    assert (line_of(record) is not None) == is_line
