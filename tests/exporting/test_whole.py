"""An exported folder is there whole or not at all, and what was cut later is found."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError
from blip2sweep.exporting import Written
from blip2sweep.exporting.manifest import NAME, check_export, write_manifest
from blip2sweep.exporting.whole import whole

WRITER = """
import sys, time
from pathlib import Path
from blip2sweep.exporting.whole import whole
with whole(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""
FULL = """
import resource, sys
from pathlib import Path
from blip2sweep.errors import UserError
from blip2sweep.exporting.whole import whole
import numpy, safetensors.numpy
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # the kernel refuses, as on a full disk
for write in (lambda f: (f / "a").write_bytes(bytes(9000)),
              lambda f: safetensors.numpy.save_file({"x": numpy.zeros(9000, "uint8")}, f / "a.safetensors")):
    try:
        with whole(Path(sys.argv[1])) as folder:
            (folder / "small").write_bytes(bytes(10))
            write(folder)
    except UserError as error:
        print(error)
"""
JOB: Any = {"key": "0123456789ab", "recipe": [], "columns": {"model": "tiny", "weights": "ab", "model_bytes": 10}}


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()  # an empty one is taken
    with whole(tmp_path / "to") as folder:
        (folder / "a").write_text("a")
        assert list((tmp_path / "to").iterdir()) == []
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["to"]


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    def fails() -> None:
        with whole(tmp_path / "deep" / "to") as folder:
            (folder / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_that_was_filled_meanwhile_stays(tmp_path: Path) -> None:
    def fails() -> None:
        with whole(tmp_path / "to") as folder:
            (folder / "a").write_text("a")
            (tmp_path / "to").mkdir()
            (tmp_path / "to" / "b").write_text("b")

    with pytest.raises(UserError, match="cannot be written"):
        fails()
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["to"]


def test_a_writer_killed_while_writing_leaves_no_folder_and_its_rest_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "to")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "to").exists()
    (rest,) = tmp_path.iterdir()
    assert rest.name.startswith(f".to.part-{socket.gethostname()}-{process.pid}-")
    living = tmp_path / f".to.part-{socket.gethostname()}-{os.getpid()}-01234567"
    living.mkdir()  # of a process that still writes
    with whole(tmp_path / "to") as folder:
        (folder / "a").write_text("a")
    assert {p.name for p in tmp_path.iterdir()} == {"to", living.name}


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "to")], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert "cannot be written (File too large); right: a folder with space" in first
    assert "cannot be written (" in second
    assert list(tmp_path.iterdir()) == []


def exported(folder: Path) -> Path:
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_text(name * 9)
    write_manifest(folder, "compressed-tensors", None, JOB, Written(9, 9), 9.0)
    return folder


def test_a_whole_export_is_told_as_such(tmp_path: Path) -> None:
    assert check_export(exported(tmp_path / "to"))["key"] == "0123456789ab"


def test_what_was_cut_changed_or_removed_is_told_at_once(tmp_path: Path) -> None:
    folder = exported(tmp_path / "to")
    (folder / "config.json").write_text("config.jsoX" * 9)
    (folder / "model.safetensors").write_text("model")
    with pytest.raises(
        UserError, match=r"config.json was changed, model.safetensors has 5 bytes of 153; right: the export"
    ):
        check_export(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors is missing"):
        check_export(folder)


def test_a_manifest_that_is_cut_or_not_there_or_of_another_version(tmp_path: Path) -> None:
    folder = exported(tmp_path / "to")
    whole_text = (folder / NAME).read_text()
    (folder / NAME).write_text(whole_text[: len(whole_text) // 2])
    with pytest.raises(UserError, match="not whole JSON"):
        check_export(folder)
    odd: list[object] = [99, [], {"config.json": 9}, {"config.json": {"bytes": "9"}}]
    whole = {k: v for k, v in json.loads(whole_text).items() if k != "crc"}
    for other in [{"version": 99, "files": {}}, {"version": 1, "files": {}}, *({**whole, "files": x} for x in odd)]:
        (folder / NAME).write_text(json.dumps(other))
        with pytest.raises(UserError, match="of another version"):
            check_export(folder)
    (folder / NAME).unlink()
    with pytest.raises(UserError, match=r"blip2sweep\.json is not there"):
        check_export(folder)
