"""The Python API, and that no room of the package hides its functions."""

from __future__ import annotations

import importlib
import inspect
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import blip2sweep
from blip2sweep.errors import UserError


@pytest.mark.thorough
def test_functions_stay_functions_when_every_module_is_imported() -> None:
    code = (
        "import importlib, inspect, pkgutil, blip2sweep\n"
        "for m in pkgutil.walk_packages(blip2sweep.__path__, 'blip2sweep.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "assert inspect.isfunction(blip2sweep.sweep) and inspect.isfunction(blip2sweep.report)\n"
        "print(sum(1 for _ in pkgutil.walk_packages(blip2sweep.__path__, 'blip2sweep.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


@pytest.mark.parametrize("entry", ["element", "worker"])
def test_queued_scripts_of_the_version_before_find_their_entry(entry: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"blip2sweep.sweep.{entry}", str(tmp_path / "no-such-pack.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no-such-pack.json" in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


@pytest.mark.parametrize("name", ["runner:Runner", "dummy:Dummy"])
def test_packs_of_the_version_before_find_their_evaluator(name: str) -> None:
    module, _, attribute = f"blip2sweep.sweep.{name}".partition(":")
    assert inspect.isclass(getattr(importlib.import_module(module), attribute))
    assert inspect.isfunction(blip2sweep.sweep)


def test_sweep_and_report_from_python(tmp_path: Path) -> None:
    words = ("part=none", "task.limit=8", f"output_dir={tmp_path / 'out'}", "sweep_name=s")
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    table = blip2sweep.sweep(words[0], *words[1:])
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert list(table["status"]) == ["done"]
    again = blip2sweep.sweep(words[0], *words[1:])
    assert list(again["key"]) == list(table["key"])
    page = blip2sweep.report("s", tmp_path / "out")
    assert page.read_text().startswith("<!doctype html>")
    with pytest.raises(UserError, match=r"quant\.bit"):
        blip2sweep.sweep("quant.bit=8", *words[1:])
    with pytest.raises(UserError, match=r"processes_per_cell=0: right: 1 or more"):
        blip2sweep.sweep(words[0], *words[1:], processes_per_cell=0)
    with pytest.raises(UserError, match=r"processes_per_cell=9: task shapes_caption has 8 images"):
        blip2sweep.sweep("part=vit", *words[1:3], "sweep_name=other", processes_per_cell=9)
    assert not (tmp_path / "out" / "sweeps" / "other").exists()


def test_the_processes_of_a_cell_are_asked_for_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(jobs: object, sweep: object, output_dir: object, workers: int, processes: int) -> bool:
        raise RuntimeError(f"{workers} {processes}")

    monkeypatch.setattr("blip2sweep.commands.api.run_local", started)
    with pytest.raises(RuntimeError, match="1 2"):
        blip2sweep.sweep("part=none", "task.limit=8", f"output_dir={tmp_path}", workers=1, processes_per_cell=2)
