"""What is written for TensorRT-LLM: scripts with that version's options, graphs that are the model's, rows by import."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import export
from blip2sweep.exporting import FORMATS, tensorrt_llm
from blip2sweep.exporting.engines import run_engines
from blip2sweep.exporting.engines.written import SCRIPTS, Limits
from blip2sweep.importing.prediction_file import read_outputs
from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe.compose import resolve_recipe
from blip2sweep.tasks import planned_task
from tests.composing import jobs, plan

ENGINES = Path(run_engines.__file__).parent
FULL = Limits(queries=32, longest_prompt=10, new_tokens=30)  # of BLIP-2 with OPT-2.7B
# Options by program, as the parsers of TensorRT-LLM have them: examples/models/contrib/opt/convert_checkpoint.py,
# tensorrt_llm/commands/build.py, tensorrt_llm/tools/multimodal_builder.py.
OPTIONS = {
    "convert_checkpoint.py": {"model_type", "model_dir", "output_dir", "dtype", "use_weight_only", "weight_only_precision"},
    "trtllm-build": {"checkpoint_dir", "output_dir", "gemm_plugin", "max_beam_width", "max_batch_size", "max_input_len",
                     "max_seq_len", "max_multimodal_len"},
    "build_multimodal_engine.py": {"model_type", "model_path", "output_dir", "max_batch_size"},
}  # fmt: skip
# A program that records its arguments, and makes the folder that it is told to make.
FAKE = """#!/bin/bash
if [ "$1" = -c ]; then echo "$FAKE_VERSION"; exit; fi
echo "$(basename "$0") $*" >> "$RECORD"
if [ "$(basename "$0")" = "$FAKE_FAILS" ]; then exit 1; fi
while [ $# -gt 0 ]; do if [ "$1" = --output_dir ]; then mkdir -p "$2"; fi; shift; done
"""


def mistakes(*words: str) -> list[str]:
    """Why there are no engines of a command's one recipe."""
    (job,) = [j for j in jobs(*words) if j.config["part"] != "none"]
    return tensorrt_llm.mistakes(resolve_recipe(job.config, anatomy(job.config["model"])), job.config["model"], None)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the scripts, fake programs, and a checkout that has nothing but its folders."""
    for name in SCRIPTS:
        shutil.copy(ENGINES / name, tmp_path / name)
    (tmp_path / "engines.env").write_text(FULL.lines())
    (tmp_path / "bin").mkdir()
    for name in ("python3", "trtllm-build"):
        (tmp_path / "bin" / name).write_text(FAKE)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "TensorRT-LLM/examples/models/core/multimodal").mkdir(parents=True)
    return tmp_path


def build(here: Path, *words: str, **changed: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """(what the script did, the commands that it ran)."""
    record = here / "record"
    given = {
        "PATH": f"{here / 'bin'}:/usr/bin:/bin", "RECORD": str(record), "TENSORRT_LLM": str(here / "TensorRT-LLM"),
        "FAKE_VERSION": "1.0.0", "FAKE_FAILS": "", **changed,
    }  # fmt: skip
    ran = subprocess.run(["bash", "build_engines.sh", *words], cwd=here, env=given, capture_output=True, text=True)
    return ran, [line.split() for line in record.read_text().splitlines()] if record.exists() else []


@pytest.mark.parametrize("variant", ["fp16", "int8", "int4"])
def test_a_variant_is_built_with_options_that_there_are(here: Path, variant: str) -> None:
    ran, commands = build(here, variant)
    assert ran.returncode == 0, ran.stderr
    programs = [next(Path(w).name for w in words if Path(w).name in OPTIONS) for words in commands]
    assert programs == list(OPTIONS)
    for program, words in zip(programs, commands, strict=True):
        assert {w.removeprefix("--") for w in words if w.startswith("--")} <= OPTIONS[program]
    rounded = ["--use_weight_only", "--weight_only_precision", variant]
    assert commands[0][-3:] == rounded if variant != "fp16" else "--use_weight_only" not in commands[0]
    assert " ".join(commands[1]).endswith(
        "--max_batch_size 8 --max_input_len 74 --max_seq_len 104 --max_multimodal_len 256"
    )
    assert {p.name for p in (here / "engines" / variant).iterdir()} == {"llm", "vision"}


@pytest.mark.parametrize(
    ("words", "changed", "told"),
    [
        (("int3",), {}, "no such variant; right: fp16, int8 or int4"),
        ((), {}, "no such variant"),
        (("fp16",), {"TENSORRT_LLM": "/nowhere"}, "no checkout"),
        (
            ("fp16",),
            {"FAKE_VERSION": "0.9.0"},
            "tensorrt_llm 0.9.0 is installed; right: pip install tensorrt_llm==1.0.0",
        ),
        (("fp16", "bin"), {}, "is there already"),
    ],
)
def test_what_it_refuses(here: Path, words: tuple[str, ...], changed: dict[str, str], told: str) -> None:
    ran, commands = build(here, *words, **changed)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert not commands
    assert len(ran.stderr.splitlines()) == 1


def test_a_build_that_fails_leaves_nothing(here: Path) -> None:
    ran, _ = build(here, "int8", FAKE_FAILS="trtllm-build")
    assert ran.returncode == 1
    assert not list((here / "engines").iterdir())


def test_what_engines_wrote_is_read_by_the_import(tmp_path: Path) -> None:
    samples = [{"id": "1", "prompt": "a"}, {"id": "2", "prompt": "b"}]
    asked: list[str] = []

    def answer(picture: Path, prompt: str) -> str:
        asked.append(prompt)
        return f" {picture.name} {prompt}\n"

    to = tmp_path / "predictions.jsonl"
    run_engines.write(samples, [Path("x.jpg"), Path("y.jpg")], answer, to, warm_up=1)
    assert asked == ["a", "a", "b"]
    rows = [json.loads(line) for line in to.read_text().splitlines()]
    assert [(r["id"], r["text"], r["latency_ms"] > 0) for r in rows] == [("1", "x.jpg a", True), ("2", "y.jpg b", True)]


def test_rounded_weights_and_other_models_are_refused() -> None:
    (told,) = mistakes("part=language", "quant.bits=4", "sparsity=magnitude")
    assert told.startswith("TensorRT-LLM rounds weights by itself")
    assert "import predictions" in told
    (told,) = mistakes("model=tiny-llava", "part=vision", "sparsity=magnitude", "quant.bits=none")
    assert "engines are built of blip2 with OPT" in told
    assert "tensorrt-llm" in FORMATS


@pytest.mark.thorough
def test_the_folder_is_the_cell(tmp_path: Path) -> None:
    (cell,) = plan("part=none", "task.limit=4", "model.stored=float16").cells.values()
    job = cell.job()
    to = tmp_path / "engines"
    told = export(job, "tensorrt-llm", to, None, TorchBackend({"cache": "off"}).made)
    assert "+0.00%" in told[1]
    assert np.load(to / "query_tokens.npy").shape == (1, 12, 64)
    assert np.asarray(Image.open(to / "test_image.png")).std() > 50
    ran = subprocess.run(
        [sys.executable, "check_vision.py", "--at-most", "1e-4"], cwd=to, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    np.save(to / "other.npy", np.load(to / "test_features.npy") * 1.1)
    words = [sys.executable, "check_vision.py", "--features", "other.npy"]
    assert subprocess.run(words, cwd=to, capture_output=True).returncode == 1
    samples = planned_task(job["task"]).samples
    lines = [json.loads(line) for line in (to / "samples.jsonl").read_text().splitlines()]
    assert [(row["id"], row["image"]) for row in lines] == [(s.id, str(s.image)) for s in samples]
    run_engines.write(lines, [Path(r["image"]) for r in lines], lambda *_: "a circle", to / "predictions.jsonl", 0)
    assert [row.text for row in read_outputs(to / "predictions.jsonl", samples).rows] == ["a circle"] * 4
    assert f"--like {job['key']}" in (to / "README.md").read_text()
