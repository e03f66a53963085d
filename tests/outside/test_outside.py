"""Code from outside, by entry point and by file: it runs, it is in keys, packs and rows, and what is wrong with it is one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

import blip2sweep
from blip2sweep import outside
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.doctor import print_checks
from blip2sweep.commands.other_users import its_code, its_commands
from blip2sweep.commands.rescore import score_results
from blip2sweep.compression.quantize import METHODS
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.outside import files
from blip2sweep.outside.packages import packaged
from blip2sweep.planning.outside_code import examined
from blip2sweep.planning.packs import write_packs
from blip2sweep.planning.plan import Plan
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sweep_code import outside_code
from blip2sweep.results.sweeps import Sweep, find_sweep
from blip2sweep.tasks.task import _with_metrics
from blip2sweep.wire.pack import OutsideCode, pack_of
from blip2sweep.workers.worker import CELL_FAILED, run_pack
from tests.command_line import blip2sweep as command
from tests.command_line import refused
from tests.composing import plan
from tests.outside.site import POINTS, TOYS, install, pretend, write_package
from tests.outside.typed import forget, typed, workers_here
from tests.toy.architecture import write as write_model
from tests.toy.task import write as write_data

pytestmark = pytest.mark.thorough

Put = Callable[..., None]
METHOD = (TOYS / "method.py").read_text()
SMALL = ("task=shapes_vqa", "task.limit=4", "part=vision")


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed a package with one of each into."""
    folder = tmp_path_factory.mktemp("installed")
    return install(write_package(folder / "source"), folder / "site")


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a Python file of a --config-dir, which is known then."""

    def write(group: str, name: str, source: str) -> None:
        path = tmp_path / "own" / group / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        outside.search([tmp_path / "own"])

    return write


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Has a package, of which there is only what says so, installed."""

    def install_(package: str, points: dict[str, dict[str, str]], version: str = "1.0") -> None:
        monkeypatch.syspath_prepend(pretend(tmp_path / "site", package, points, version))
        packaged.cache_clear()

    return install_


def keys(*words: str) -> list[str]:
    """The baseline's key first."""
    made = plan(*SMALL, *words)
    return sorted(made.cells, key=lambda k: k not in made.baselines)


def packs(made: Plan, folder: Path) -> Path:
    (path,) = write_packs([[c.job() for c in made.cells.values()]], folder / "sweeps" / "s", "s", "r", folder, {})
    return path


def run_again(pack: Path, output_dir: Path) -> int:
    """Run a pack here, as a new process would, into another folder. The worker's exit code."""
    forget()
    with closing(Journal(output_dir)) as journal, workers_here():
        return run_pack(pack_of({**json.loads(pack.read_text()), "output_dir": str(output_dir)}, "pack"), journal)


def failures(output_dir: Path) -> list[str]:
    attempts = Ledger(output_dir).refresh().attempts.values()
    return [f"{f['kind']}: {f['error']}" for a in attempts for f in a.failures]


# ---- a package with one of each


def test_a_sweep_with_one_of_each(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of torch is a process of its own. The pack of the other back end runs here, and again without the package."""
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", 3)
    words = [
        "model=toy",
        f"model.path={write_model(tmp_path / 'weights')}",
        "task=toy",
        f"task.data_dir={tmp_path / 'data'}",
    ]
    words += ["quant.method=toy_shift", "quant.bits=2", "+steps.scale.target=vision:0", "steps.scale.factor=0.5"]
    words += ["backend.name=torch,parrot", "sweep_name=s", "part=language"]
    with monkeypatch.context() as here:
        here.setenv("PYTHONPATH", str(site))
        here.syspath_prepend(site)
        here.chdir(tmp_path)
        with workers_here(but=lambda supervisor: "backend" not in supervisor.pack["settings"]):
            typed(["--config-dir", str(TOYS / "conf"), "-m", *words])
    rows = pd.read_parquet(tmp_path / "outputs" / "sweeps" / "s" / "table.parquet")
    assert (rows["status"] == "done").all()
    assert rows["toy_accuracy"].notna().all()
    always = (
        "architectures.toy blip2sweep-toys 1.0; {}tasks.toy blip2sweep-toys 1.0; tasks.toy_choose blip2sweep-toys 1.0"
    )
    parrot, ours = (
        "backends.parrot blip2sweep-toys 1.0; ",
        "compression.scale blip2sweep-toys 1.0; methods.toy_shift blip2sweep-toys 1.0; ",
    )
    assert sorted(rows["outside"]) == sorted(always.format(x) for x in ("", parrot, ours, parrot + ours))
    packs = sorted((tmp_path / "outputs" / "sweeps" / "s" / "packs").glob("*.json"))
    light = next(p for p in packs if json.loads(p.read_text())["settings"].get("backend"))
    assert len(packs) == 2
    assert run_again(light, tmp_path / "absent") == CELL_FAILED
    told = failures(tmp_path / "absent")
    assert len(told) == 2
    assert all(x.startswith("bad_config: ") for x in told)
    assert all("blip2sweep-toys 1.0: not known here; right: pip install" in x for x in told)


def test_a_search_knows_which_way_a_metric_from_outside_is_better(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Optuna asks for the direction before any cell is planned."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    words = ["--config-dir", str(TOYS / "conf"), "-m", "hydra/sweeper=optuna_best", "hydra.sweeper.n_trials=1"]
    words += ["hydra.sweeper.n_jobs=1", "task=toy", "task.data_dir=data", "backend.name=parrot", "quant.bits=2,4"]
    for name in [n for n in METRICS if n.startswith("toy_")]:  # as in a new process
        monkeypatch.delitem(METRICS, name)
    _with_metrics.cache_clear()
    with workers_here():
        assert "toy_accuracy" in typed(words)
        with pytest.raises(AssertionError):
            typed([*words, "hydra.sweeper.direction=minimize"])
    assert "toy_accuracy is the one number a cell returns, and better where it is higher" in capsys.readouterr().err


def test_keys_of_this_package_stay_and_a_version_makes_others(
    site: Path, monkeypatch: pytest.MonkeyPatch, pretended: Put
) -> None:
    ours = keys("quant.bits=2")
    with pytest.raises(UserError, match=r"quant\.method=toy_shift: unknown method; .*known: awq"):
        keys("quant.method=toy_shift")
    monkeypatch.syspath_prepend(site)
    packaged.cache_clear()
    assert keys("quant.bits=2") == ours
    first = keys("quant.method=toy_shift")
    made = plan(*SMALL, "quant.method=toy_shift").cells[first[1]]
    code: dict[str, OutsideCode] = {"methods.toy_shift": {"package": "blip2sweep-toys", "version": "1.0"}}
    assert (made.identity["outside"], made.job()["outside"]) == (code, code)
    assert "outside" not in made.baseline().identity
    assert first[0] == ours[0]
    pretended("blip2sweep-toys", {"methods": {"toy_shift": "blip2sweep_toys.method"}}, "1.1")
    second = keys("quant.method=toy_shift")
    assert (second[0], second[1] == first[1]) == (ours[0], False)
    with pytest.raises(
        UserError, match=r"blip2sweep-toys 1\.0: planned with that, here is package blip2sweep-toys 1\.1"
    ):
        outside.take(code)


def test_a_back_end_or_task_from_outside_is_in_the_baseline(put: Put) -> None:
    ours = keys("backend=dummy")
    put("backends", "parrot", (TOYS / "backend.py").read_text())
    put("methods", "toy_shift", METHOD)
    first = keys("backend.name=parrot", "quant.method=toy_shift")
    put("methods", "toy_shift", METHOD + "\n# another file\n")
    files.imported.clear()  # as a new process would find it
    second = keys("backend.name=parrot", "quant.method=toy_shift")
    assert (first[0] == second[0], first[1] == second[1]) == (True, False)
    put("backends", "parrot", (TOYS / "backend.py").read_text() + "\n# another file\n")
    files.imported.clear()
    assert not {*keys("backend.name=parrot", "quant.method=toy_shift")} & {*second}
    assert keys("backend=dummy") == ours


def test_a_package_in_development_counts_by_its_files(tmp_path: Path, pretended: Put) -> None:
    source = tmp_path / "site" / "mine"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (source / "shift.py").write_text(METHOD)
    pretended("mine", {"methods": {"toy_shift": "mine.shift"}})
    (tmp_path / "site" / "mine-1.0.dist-info" / "direct_url.json").write_text(
        '{"url": "file:///x", "dir_info": {"editable": true}}'
    )
    first = keys("quant.method=toy_shift")
    (source / "further.py").write_text("x = 1\n")
    packaged.cache_clear()
    assert keys("quant.method=toy_shift")[1] != first[1]


# ---- files


def test_a_file_runs_from_a_pack_while_it_is_the_one_that_was_planned(put: Put, tmp_path: Path) -> None:
    put("backends", "parrot", (TOYS / "backend.py").read_text())
    put("methods", "toy_shift", METHOD)
    made = plan(*SMALL, "backend.name=parrot", "quant.method=toy_shift,rtn")
    pack = packs(made, tmp_path / "out")
    assert run_again(pack, tmp_path / "out") == 0
    rows = collect(tmp_path / "out").set_index("method")
    assert rows["outside"].str.contains("backends.parrot sha256").all()
    assert list(rows.index[rows["outside"].str.contains("methods.toy_shift sha256")]) == ["toy_shift"]
    method = tmp_path / "own" / "methods" / "toy_shift.py"
    for name, change in (("changed", lambda: method.write_text(METHOD + "#")), ("gone", method.unlink)):
        change()
        assert run_again(pack, tmp_path / name) == CELL_FAILED
        (told,) = failures(tmp_path / name)  # the two other cells are done
        right = {
            "changed": "changed since the cell was planned; right: the same",
            "gone": "cannot be read (No such file",
        }
        assert told.startswith(f"bad_config: file {method}: {right[name]}")


def test_a_file_that_changed_after_it_was_imported_wants_a_new_process(put: Put) -> None:
    put("methods", "toy_shift", METHOD)
    assert keys("quant.method=toy_shift")
    put("methods", "toy_shift", METHOD + "#")
    with pytest.raises(UserError, match="changed since this process imported it; right: a new process"):
        keys("quant.method=toy_shift")


def test_the_scoring_process_holds_the_task_against_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the Python API too, whose tables have the task's metric."""
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    own = tmp_path / "own"
    for group, name, module in (
        ("tasks", "toy", "task"),
        ("tasks", "toy_choose", "task"),
        ("backends", "parrot", "backend"),
    ):
        (own / group).mkdir(parents=True, exist_ok=True)
        (own / group / f"{name}.py").write_text((TOYS / f"{module}.py").read_text())
    (own / "task").mkdir()
    (own / "task" / "toy.yaml").write_text((TOYS / "conf" / "task" / "toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    words = "task=toy task.data_dir=data backend.name=parrot sweep_name=s part=vision"
    with workers_here():
        assert blip2sweep.sweep(words, config_dir="own")["toy_accuracy"].notna().all()
    forget()
    (own / "tasks" / "toy_choose.py").write_text((TOYS / "task.py").read_text() + "#")
    for scores in (tmp_path / "outputs" / "scores").glob("*.npz"):
        scores.unlink()
    results = Ledger(tmp_path / "outputs").refresh().results()
    told = score_results(tmp_path / "outputs", results).why_not
    assert "2 cells not scored" in told
    assert "toy_choose.py: changed since the cell was planned" in told


# ---- somebody else's folder


def test_somebody_elses_code_is_named_and_makes_no_table(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("methods", "toy_shift", METHOD)
    jobs = [c.job() for c in plan(*SMALL, "quant.method=toy_shift").cells.values()]
    code = next(j["outside"] for j in jobs if "outside" in j)
    sweep = Sweep("s", "c", 0.0, [j["key"] for j in jobs], [], settings={"outside": code})
    sweep.write(tmp_path)
    path, digest = code["methods.toy_shift"]["file"], code["methods.toy_shift"]["sha256"]
    said = f"code: methods.toy_shift of {path} (sha256 {digest[:12]})"
    assert its_commands(find_sweep(tmp_path, "s"), jobs)[-1] == said
    assert its_code([{}]) == []
    assert outside_code(tmp_path) == code
    monkeypatch.setattr("blip2sweep.results.sweeps.os.geteuid", lambda: os.getuid() + 1)
    assert outside_code(tmp_path) == {}


HANDS_OUT = """
from blip2sweep.compression.quantize import Method, rtn

METHOD = Method("own_codes", bits=(2, 4), strategies=("channel",), options={"symmetric": True})
codes = rtn.codes
"""


def test_a_method_may_hand_out_codes(put: Put) -> None:
    put("methods", "own_codes", HANDS_OUT)
    put("methods", "toy_shift", METHOD.replace(", scale_bits=8", ""))
    cell = next(
        c.job() for c in plan(*SMALL, "quant.method=own_codes", "quant.bits=4").cells.values() if not c.recipe.empty
    )
    made = TorchBackend({"device": "cpu"}).made(cell)
    assert made.codes.keys() == made.recipe.schemes.keys()
    assert METHODS["own_codes"].has_codes
    assert not METHODS["toy_shift"].has_codes
    assert METHODS["toy_shift"].scale_bits == 32  # nobody rounds its scales


# ---- what is wrong

WRONG = {
    "import": ("import nothing_like_this\n", r"cannot be imported \(ModuleNotFoundError: No module named 'nothing_like_this'\)"),
    "syntax": ("def\n", r"cannot be imported \(SyntaxError: "),
    "exit": ("raise SystemExit(3)\n", r"cannot be imported \(SystemExit: 3\)"),
    "lacks": ("x = 1\n", "lacks METHOD; right: every name"),
    "apply": (METHOD.replace("def apply", "def apply_"), "lacks apply; right"),
    "other": (METHOD.replace('Method("toy_shift"', 'Method("shift"'), r"its METHOD is .*; right: METHOD = Method\('mine'"),
    "knobs": (METHOD.replace('"toy_shift",', '"mine", options={"zeal": 1},'), "METHOD has options zeal; right: among group_size"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_file_is_one_line_of_who_asks_for_it(put: Put, what: str) -> None:
    source, match = WRONG[what]
    put("methods", "mine", source.replace('"toy_shift"', '"mine"') if what == "apply" else source)
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e) and "methods/mine.py" in str(e)):
        keys("quant.method=mine")
    assert keys("quant.method=rtn")
    ((full, told, well),) = examined()
    assert (full, well, "\n" in told) == ("methods.mine", False, False)


@pytest.mark.parametrize(
    ("group", "word", "lacking"),
    [
        ("architectures", "model.architecture=mine", "MODEL_TYPE, FAMILIES, stages, implementation"),
        ("tasks", "task.format=mine", "KINDS, read"),
        ("compression", "+steps.mine.x=1", "LEVEL, AFTER, SEMANTICS, resolve"),
        ("backends", "backend.name=mine", "BACKEND"),
    ],
)
def test_a_module_that_lacks_names_says_which(put: Put, group: str, word: str, lacking: str) -> None:
    put(group, "mine", "x = 1\n")
    with pytest.raises(UserError, match=rf"{group}/mine\.py: lacks {lacking}"):
        keys(word)


def test_names_are_taken_once(put: Put, pretended: Put) -> None:
    pretended("one", {"methods": {"mine": "one.method", "broken": "one.broken"}})
    with pytest.raises(
        UserError, match=r"^package one 1\.0, entry point blip2sweep\.methods: broken = one\.broken: cannot be"
    ):
        keys("quant.method=broken")
    assert keys("quant.method=rtn")
    pretended("two", {"methods": {"mine": "two.method", "rtn": "two.rtn"}})
    both = r"package one 1\.0, .*mine = one\.method and package two 1\.0, .*mine = two\.method: 2 have the name mine"
    with pytest.raises(UserError, match=both):
        keys("quant.method=mine")
    with pytest.raises(
        UserError, match=r"package two 1\.0, entry point .*: rtn = two\.rtn: rtn is built in and cannot be"
    ):
        keys("quant.method=rtn")
    assert keys("quant.method=mse")
    put("methods", "mse", METHOD)
    with pytest.raises(UserError, match=r"methods/mse\.py: mse is built in and cannot be taken; right: another name"):
        keys("quant.method=mse")


def test_doctor_lists_what_there_is(
    site: Path, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for slow in ("_java", "_slurm", "_wandb"):
        monkeypatch.setattr(f"blip2sweep.doctor.checks.{slow}", lambda: iter(()))
    monkeypatch.syspath_prepend(site)
    packaged.cache_clear()
    put("methods", "bad", "import nothing_like_this")
    print_checks(tmp_path, None)
    text = " ".join(capsys.readouterr().out.split())
    assert "warn methods.bad" in text
    for group, own in POINTS.items():
        assert all(f"ok {group}.{name} package blip2sweep-toys 1.0" in text for name in own)
    refused(command("doctor", "--config-dir", "nowhere", cwd=tmp_path), "--config-dir nowhere: no such folder")


def test_a_row_of_a_method_that_is_not_here_is_shown_all_the_same() -> None:
    assert METHODS.known("gone").options == {}
    with pytest.raises(KeyError):
        METHODS["gone"]
