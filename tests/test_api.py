"""The Python API, and that no room of the package hides its functions."""

from __future__ import annotations

import importlib
import inspect
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

import blip2sweep
from blip2sweep import SweepFailed, UserError
from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.commands import api
from blip2sweep.metrics import METRICS
from blip2sweep.results.sweeps import find_sweep
from blip2sweep.tasks.task import task_of
from blip2sweep.version import VERSION
from tests.composing import plan
from tests.outside.site import TOYS, pretend
from tests.outside.typed import workers_here

QUANT = "# @package quant\nmethod: toy_shift\nbits: 4\n"


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


ASKED = {"task": "shapes_vqa", "part": ["vit", "llm"], "quant.bits": 2, "task.limit": 8, "sweep_name": "s"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """(an output folder, the table of a sweep in it)."""
    folder = tmp_path_factory.mktemp("api") / "out"
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    table = blip2sweep.sweep(ASKED, output_dir=folder)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    return folder, table


def test_a_sweep_is_that_of_the_command(ran: tuple[Path, pd.DataFrame], capfd: pytest.CaptureFixture[str]) -> None:
    folder, table = ran
    assert list(table["status"]) == ["done"] * 3
    words = "task=shapes_vqa part=vit,llm quant.bits=2 task.limit=8 sweep_name=s"
    again = blip2sweep.sweep(words, output_dir=folder)
    pd.testing.assert_frame_equal(*(t.drop(columns="sweeps", errors="ignore") for t in (again, table)))
    assert capfd.readouterr() == ("", "")  # who looks at no terminal is told nothing
    assert list(table["key"]) == list(plan(*words.split()).cells)
    kept = find_sweep(folder, "s")
    assert kept.command == f"-m {words} output_dir={folder}"  # which `recommend` and others repeat
    assert table.attrs["sweep"] == kept.name
    assert len(kept.submissions) == 1  # the second call ran nothing


def test_what_would_run(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, table = ran
    found = blip2sweep.plan({**ASKED, "quant.bits": [2, 4], "blocks": ["all", 0]}, output_dir=folder)
    assert list(found.cells["key"][found.cells["status"] == "done"]) == list(table["key"])
    assert set(found.to_run) == {key for pack in found.packs for key in pack}  # which are in the order of shared work
    assert len(found.to_run) == len(found.cells) - 3 == 6
    assert found.seconds > 0
    assert (found.cells["asked"][0], found.cells["part"][1]) == ("baseline", "vit")
    assert found.summary in repr(found)
    assert found.to_run[0] in found._repr_html_()
    both = blip2sweep.plan(
        "part=vit quant.bits=4 quant=rtn,nf4 quant.strategy=channel,group", output_dir=tmp_path / "none"
    )
    assert set(both.skipped.columns) == {"overrides", "reason"}
    assert both.skipped["reason"].tolist() == [
        "quant.strategy=channel: nf4 takes group; right: quant.strategy=group, or another method"
    ]
    assert not (tmp_path / "none").exists()


def test_one_cell_is_its_row(ran: tuple[Path, pd.DataFrame]) -> None:
    folder, table = ran
    row = blip2sweep.evaluate("task=shapes_vqa part=vit quant.bits=2 task.limit=8", output_dir=folder)
    assert row["key"] == table["key"][1]
    assert row["drop_vqa_accuracy"] == table["drop_vqa_accuracy"][1]
    with pytest.raises(
        UserError, match=r"part=vit,llm output_dir=\S+: 2 cells, and evaluate is about one; right: sweep"
    ):
        blip2sweep.evaluate("part=vit,llm", output_dir=folder)


@pytest.mark.thorough
def test_a_cell_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(own: object, job: object, batch_size: int | None = None) -> Answered:
        raise RuntimeError("no luck")

    monkeypatch.setattr(Dummy, "__call__", failing)
    asked = {"backend": "dummy", "part": "vit", "task.limit": 4, "output_dir": tmp_path}
    with workers_here(), pytest.raises(SweepFailed, match=r"cell \w{12}: .*no luck"):
        blip2sweep.evaluate(asked)
    with workers_here():
        assert list(blip2sweep.sweep(asked)["status"]) == ["failed"] * 2


def test_tables_and_samples(ran: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table = ran
    loaded = blip2sweep.load_table(folder, "s")
    pd.testing.assert_frame_equal(*(t.drop(columns="sweeps", errors="ignore") for t in (loaded, table)))
    monkeypatch.setenv("BLIP2SWEEP_OUTPUT_DIR", str(folder))
    assert set(blip2sweep.load_table()["key"]) == set(table["key"])
    key = table["key"][1]
    (folder / "table.parquet").unlink()  # it is made again
    one = blip2sweep.load_samples(keys=key[:7])
    assert (len(one), set(one["key"])) == (8, {key})
    assert len(blip2sweep.load_samples(sweep="s")) == len(blip2sweep.load_samples(keys=list(table["key"]))) == 24


@pytest.mark.thorough
def test_a_page(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, _ = ran
    assert blip2sweep.report("s", folder) == folder / "sweeps" / "s" / "report.html"
    page = blip2sweep.report(output_dir=folder, path=tmp_path / "mine.html", all_cells=True)
    assert page.read_text().startswith("<!doctype html>")
    assert blip2sweep.report(["s"], folder) == folder / "sweeps" / "s" / "report.html"
    with pytest.raises(UserError, match="report s s --all: two are put side by side"):
        blip2sweep.report(["s", "s"], folder, all_cells=True)
    with pytest.raises(UserError, match="report s s: the same name twice"):
        blip2sweep.report(["s", "s"], folder)


def test_bad_results_are_named(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, _ = ran
    for load in (blip2sweep.load_table, blip2sweep.load_samples):
        with pytest.raises(UserError, match=r"output_dir=\S+nowhere: no such folder; right: that of a sweep"):
            load(tmp_path / "nowhere")
        with pytest.raises(UserError, match=f"{tmp_path}/table.parquet: no table yet; right: run the sweep"):
            load(tmp_path)
        with pytest.raises(UserError, match=r"sweep 'mine' is not in .*; known: .*s$"):
            load(folder, sweep="mine")
    for keys in ("", "nope", [3], ["a", "nope"]):
        with pytest.raises(UserError, match=r"keys: .* begins \w+ keys here; right: one key of the table"):
            blip2sweep.load_samples(folder, keys=keys)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sweep 'mine' is not in"):
        blip2sweep.report("mine", folder)
    with pytest.raises(UserError, match="no sweep here"):
        blip2sweep.report(output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"quant.bit": 8}, r"quant\.bit=8: unknown key 'quant\.bit'; did you mean 'quant\.bits'"),
        ({"quant.bits": "three"}, "quant.bits=three: not a bit width; right: an integer such as 4"),
        ({"task.limit": "many"}, "task.limit=many: not an integer; right: a positive integer, null"),
        ({"model": "nope"}, "model=nope: no such model"),
        ({"part": "nope"}, "no part 'nope'"),
        ({"part": ["none"], "quant.bits": [4]}, "quant.bits=4: used by no cell"),
        ("part=vit -x", "-x: a flag of the command line"),
    ],
)
def test_bad_input_is_one_line(overrides: str | dict[str, object], told: str, tmp_path: Path) -> None:
    functions = (
        (blip2sweep.sweep, blip2sweep.plan, blip2sweep.evaluate)
        if overrides == {"quant.bit": 8}
        else (blip2sweep.plan,)
    )
    for function in functions:
        with pytest.raises(UserError, match=told) as error:
            function(overrides, output_dir=tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"workers": 0}, "workers=0: right: 1 or more, or None"),
        ({"workers": "two"}, "workers=two: right: 1 or more, or None"),
        ({"config_dir": "nowhere"}, "config_dir=nowhere: no such folder"),
        ({"processes_per_cell": 0}, "processes_per_cell=0: right: 1 or more"),
        ({"processes_per_cell": 9}, "processes_per_cell=9: task shapes_caption has 8 images"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    for function in (blip2sweep.sweep, blip2sweep.plan):
        with pytest.raises(UserError, match=told):
            function("part=vit task.limit=8", output_dir=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_what_the_caller_has_set_up_stays(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    """Hydra of the caller, and the pictures of a notebook."""
    import matplotlib
    from hydra import compose, initialize_config_dir

    (tmp_path / "mine.yaml").write_text("own: 7\n")
    backend = matplotlib.get_backend()
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            blip2sweep.sweep(ASKED, output_dir=ran[0])
            assert compose("mine").own == 7
        assert not GlobalHydra.instance().is_initialized()
    finally:
        GlobalHydra.instance().hydra = before
    assert matplotlib.get_backend() == backend


@pytest.mark.thorough
def test_a_method_of_ones_own_may_change_between_calls(tmp_path: Path) -> None:
    """As in a notebook, whose process goes on."""
    for group, text in (("methods", (TOYS / "method.py").read_text()), ("quant", QUANT)):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / ("toy_shift.py" if group == "methods" else "toy_shift.yaml")).write_text(text)
    asked = {"quant": "toy_shift", "part": "vit", "quant.bits": 4, "output_dir": tmp_path / "out"}
    first = blip2sweep.plan(asked, config_dir=tmp_path / "own").cells.iloc[1]
    method = tmp_path / "own" / "methods" / "toy_shift.py"
    method.write_text(method.read_text().replace("scale_bits=8", "scale_bits=32"))
    second = blip2sweep.plan(asked, config_dir=tmp_path / "own").cells.iloc[1]
    assert first["key"] != second["key"]
    assert first["bits_per_weight"] < second["bits_per_weight"]
    with pytest.raises(UserError, match="quant=toy_shift: no such quant"):
        blip2sweep.plan(asked)  # nothing is known of a folder that is not given


def test_the_metrics_of_a_package_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(pretend(tmp_path, "toys", {"tasks": {"toy": "tests.toy.task"}}))
    for _ in range(2):
        api.fresh()
        assert "toy_accuracy" not in METRICS
        task_of("toy")
        assert "toy_accuracy" in METRICS
    monkeypatch.undo()
    api.fresh()
    with pytest.raises(UserError, match=r"task\.kind=toy: unknown"):
        task_of("toy")


def test_a_warning_is_said_once_a_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweeps" / "torn").mkdir(parents=True)
    (tmp_path / "sweeps" / "torn" / "sweep.json").write_text("{")
    for _ in range(2):
        with pytest.raises(UserError, match="no sweep here"):
            blip2sweep.report(output_dir=tmp_path)
        assert capsys.readouterr().err.count("the sweep torn is left out") == 1


def test_importing_it_is_light() -> None:
    code = "import sys, blip2sweep; print(*sorted({'torch', 'pandas', 'numpy', 'hydra', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_it_is_typed_and_documented() -> None:
    assert (Path(blip2sweep.__file__).parent / "py.typed").exists()
    assert blip2sweep.__version__ == VERSION
    for name in ("sweep", "plan", "evaluate", "load_table", "load_samples", "report"):
        function = getattr(blip2sweep, name)
        assert "return" in function.__annotations__
        for argument in inspect.signature(function).parameters:
            own = function.__doc__ + (blip2sweep.sweep.__doc__ or "" if "`sweep`" in function.__doc__ else "")
            assert f"{argument}:" in own, (name, argument)


def test_the_processes_of_a_cell_are_asked_for_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(jobs: object, sweep: object, output_dir: object, workers: int, processes: int) -> bool:
        raise RuntimeError(f"{workers} {processes}")

    monkeypatch.setattr("blip2sweep.commands.api.run_local", started)
    with pytest.raises(RuntimeError, match="1 2"):
        blip2sweep.sweep("part=none", "task.limit=8", f"output_dir={tmp_path}", workers=1, processes_per_cell=2)
