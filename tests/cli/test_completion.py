"""Tab completion: the words for a line, and the scripts in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip2sweep.__main__ import VERBS, main
from blip2sweep.cli.completion import INSTALL, UNINSTALL, candidates

ALL = ["plan", *VERBS]


def words(line: str) -> list[str]:
    return list(candidates(line, ALL))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("blip2sweep stat", ["status "]),
        ("blip2sweep quant.bi", ["quant.bits="]),
        ("python -m blip2sweep quant.bi", ["quant.bits="]),
        ("blip2sweep -m quant.symmetric=", ["quant.symmetric=true", "quant.symmetric=false"]),
        ("blip2sweep -m quant.bits=2,4,", ["quant.bits=2,4,none", "quant.bits=2,4,3", "quant.bits=2,4,8"]),
        ("blip2sweep plan task=shapes_v", ["task=shapes_vqa"]),
        ("blip2sweep +experiment=q", ["+experiment=quick"]),
        ("blip2sweep hydra/launcher=", ["hydra/launcher=local", "hydra/launcher=slurm"]),
        ("blip2sweep hydra.launcher.mem_g", ["hydra.launcher.mem_gb="]),
        ("blip2sweep per_part.vision.group", ["per_part.vision.group_size="]),
        ("blip2sweep per_part.language.strategy=t", ["per_part.language.strategy=tensor"]),
        ("blip2sweep -m part=v", ["part=vision", "part=vit"]),
        ("blip2sweep -m model=llava-1.5-7b part=c", ["part=connector"]),
        ("blip2sweep per_part.qf", ["per_part.qformer."]),
        ("blip2sweep --ver", ["--version "]),
        ("blip2sweep --cfg j", ["job "]),
        ("blip2sweep -sc install=z", ["install=zsh "]),
        ("blip2sweep --help quant.bi", ["quant.bits "]),
        ("blip2sweep --schema hydra", ["hydra/launcher "]),
        ("blip2sweep table --form", ["--format "]),
        ("blip2sweep table --format la", ["latex "]),
        ("blip2sweep sweeps -f ", ["rich ", "json "]),
        ("blip2sweep recommend card --for v", ["vllm "]),
        ("blip2sweep recommend --for openv", ["openvino "]),
        ("blip2sweep export 49 --to compressed", ["compressed-tensors "]),
        ("blip2sweep export --for ", ["vllm "]),
        ("blip2sweep quantize quant=gpt", ["quant=gptq"]),
        ("blip2sweep export part=language quant.symm", ["quant.symmetric="]),
        ("blip2sweep quantize --t", ["--to "]),
        ("blip2sweep model li", ["list "]),
        ("blip2sweep --output-dir ", []),
        ("blip2sweep nothing.at.all=", []),
    ],
)
def test_what_may_stand_there(line: str, found: list[str]) -> None:
    assert words(line) == found


def test_the_first_word_may_be_a_verb_and_the_second_not() -> None:
    assert "table " in words("blip2sweep ")
    assert "table " not in words("blip2sweep quant.bits=2 ")
    assert {"quant=", "quant.", "part=", "experiment=", "study="} <= set(words("blip2sweep quant.bits=2 "))


def test_choices_of_a_users_own_and_names_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "quant").mkdir(parents=True)
    (tmp_path / "conf" / "quant" / "mine.yaml").touch()
    assert words(f"blip2sweep --config-dir {tmp_path}/conf quant=mi") == ["quant=minmax", "quant=mine"]
    for name in ("first", "second"):
        (tmp_path / "out" / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "out" / "sweeps" / name / "sweep.json").touch()
    assert words(f"blip2sweep status --output-dir {tmp_path}/out f") == ["first "]
    monkeypatch.setenv("BLIP2SWEEP_OUTPUT_DIR", str(tmp_path / "out"))
    (tmp_path / "out" / "sweeps" / "first" / "sweep.json").write_text('{"keys": ["49e823001112", null, "0a"]}')
    assert words("blip2sweep logs 4") == ["49e823001112 "]
    assert words("blip2sweep forget 0") == ["0a "]
    assert "49e823001112 " in words("blip2sweep quantize 4")
    assert words("blip2sweep export 49e") == ["49e823001112 "]
    for verb in ("table", "report", "retry", "forget", "recommend"):
        assert words(f"blip2sweep {verb} s") == ["second "], verb


def test_a_line_is_read_up_to_the_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "blip2sweep stat --output-dir x")
    monkeypatch.setenv("COMP_POINT", "15")
    with pytest.raises(SystemExit):
        main(["-sc", "query=fish"])
    assert capsys.readouterr().out == "status\t\n"


# ---- shells


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program `blip2sweep` of this interpreter, whichever way it is installed."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "blip2sweep").write_text(f'#!/bin/sh\nexec {sys.executable} -m blip2sweep "$@"\n')
    (folder / "blip2sweep").chmod(0o755)
    return folder


def shell(*command: str, program: Path) -> str:
    env = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


BASH = """
eval "$(blip2sweep -sc install=bash)"
complete -p blip2sweep
COMP_LINE='blip2sweep -m quant.bits=2,n' COMP_POINT=28
COMP_WORDBREAKS=' ='
_blip2sweep blip2sweep; echo "words: ${COMPREPLY[*]}"
COMP_WORDBREAKS=' '
_blip2sweep blip2sweep; echo "words: ${COMPREPLY[*]}"
eval "$(blip2sweep -sc uninstall=bash)"
complete -p blip2sweep 2>/dev/null || echo gone
"""


def test_bash(program: Path) -> None:
    """Readline replaces the whole word, or what follows its `=`."""
    lines = shell("bash", "--norc", "-c", BASH, program=program).splitlines()
    assert lines[0].endswith("-F _blip2sweep blip2sweep")
    assert lines[1:] == ["words: 2,none", "words: quant.bits=2,none", "gone"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(program: Path) -> None:
    ask = "blip2sweep -sc install=fish | source; complete -C 'blip2sweep -m quant.bits=2,n'; complete -C 'blip2sweep stat'"
    assert shell("fish", "--no-config", "-c", ask, program=program).splitlines() == ["quant.bits=2,none", "status"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh(program: Path) -> None:
    ask = 'eval "$(blip2sweep -sc install=zsh)"; echo $_comps[blip2sweep]; eval "$(blip2sweep -sc uninstall=zsh)"; echo "[$_comps[blip2sweep]]"'
    assert shell("zsh", "-f", "-c", ask, program=program).splitlines() == ["_blip2sweep", "[]"]


def test_every_shell_has_both_scripts() -> None:
    assert INSTALL.keys() == UNINSTALL.keys() == {"bash", "zsh", "fish"}
