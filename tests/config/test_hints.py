"""What a newcomer types, and what is said in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.__main__ import checked
from blip2sweep.config.arguments import arguments
from blip2sweep.config.hints import no_choice
from blip2sweep.errors import UserError


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bits=4", "unknown key 'bits'; did you mean 'quant.bits'? also known: quant.input.bits"),
        ("bitz=4", "unknown key 'bitz'; did you mean 'quant.bits'?"),
        ("limit=5", "did you mean 'task.limit'? see blip2sweep --help task.limit"),
        ("quant.bitz=4", "did you mean 'quant.bits'?"),
        ("prt=x", "did you mean 'part'?"),
        ("split=x", "right: one of calibration.split, recover.split, task.split"),
        ("--limit 60", "--limit: no flag; right: task.limit=60"),
        ("--limit=60", "--limit=60: no flag; right: task.limit=60"),
        ("quant.bits=3 --workers 2", "--workers: no flag; right: hydra.launcher.workers=2"),
        ("part vit", "part: a key without its value; right: part=vit"),
        ("part=vit quant.bits 3", "quant.bits: a key without its value; right: quant.bits=3"),
        ("part=vit task", "task: a key without its value; right: task=…"),
        (
            "-m hydra/launcher=slurm hydra.launcher.partitionn=a,b",
            "unknown key 'hydra.launcher.partitionn'; did you mean 'hydra.launcher.partition'?",
        ),
        ("-m hydra/launcher=slurm hydra.launcher.partition=a,b", "several values of one setting"),
        ("part = vit", "part = vit: blanks around =; right: part=vit"),
        ("part= vit", "right: part=vit"),
        ("part =vit", "right: part=vit"),
        ("task=shapes_vqa vit", "vit: no key=value; right: such as quant.bits=4"),
        ("run part=vit", "run: no key=value; right: leave the word out"),
        ("sweep part=vit", "sweep: no key=value; right: leave the word out"),
        ("version", "version: no key=value; right: blip2sweep --version"),
    ],
)
def test_what_was_meant_is_said(words: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        arguments(checked(words.split()))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_value_and_a_deletion_tear_nothing() -> None:
    assert arguments(["sweep_name=", "part=vit", "-m"]) == ["-m", "sweep_name=", "part=vit"]


def test_a_choice_whose_file_is_here_says_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    right = "right: --config-dir conf +experiment=mine"
    for typed in ("mine", "mine.yaml", "conf/experiment/mine", "conf/experiment/mine.yaml"):
        assert no_choice("experiment", typed, ["quick"]).endswith(right)
    monkeypatch.chdir(tmp_path / "conf")
    assert no_choice("experiment", "mine", []).endswith("right: --config-dir . +experiment=mine")
    assert no_choice("task", "x/nope.yaml", []).endswith("right: task=nope, and --config-dir of the folder with task/")
    assert (
        no_choice("experiment", "quik", ["quick"])
        == "experiment=quik: no such experiment; did you mean 'quick'? known: quick"
    )
