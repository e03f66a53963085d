"""`--help`, `--version` and `--schema`, as typed."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from blip2sweep.__main__ import VERBS, main
from blip2sweep.config.topics import TOPICS
from tests.command_line import blip2sweep, refused
from tests.params import quick


class Told:
    """What a command of this process prints. code: its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.code = capsys, 0

    def __call__(self, *words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = self.capsys.readouterr()
        self.code = end.value.code if isinstance(end.value.code, int) else 0
        return printed.out or printed.err  # a server of another test may write to stderr while a page is printed


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setenv("COLUMNS", "100")
    return Told(capsys)


def test_the_first_page_is_one_screen_with_every_topic_and_verb(told: Told) -> None:
    page = told("--help")
    assert told.code == 0
    lines = page.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 115
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= TOPICS.keys()
    listed = page.partition("says what each does\n")[2].replace(",", " ").split()
    assert listed == ["plan", *VERBS]
    assert told("-h") == page
    assert told("-m", "--help") == page


@pytest.mark.parametrize("topic", quick(TOPICS))
def test_a_topic_is_about_one_screen(topic: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    page = told("--help", topic)
    assert told.code == 0
    assert page.startswith(TOPICS[topic].title)
    assert len(page.splitlines()) <= 50
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.thorough
def test_a_key(told: Told) -> None:
    page = told("--help", "quant.bits")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in page.splitlines()}
    assert page.startswith("quant.bits: width of a weight")
    assert lines["values"].startswith("none, 2, 3, 4, 8, another of 1-8")
    assert lines["default"] == "4"
    assert lines["widths"].startswith("1-8,16 (minmax); 1-8 (rtn, mse); 1-6,8 (hqq)")
    assert lines["counts"] == "part of a cell's key where the cell uses it"
    assert told("--help", "+quant.bits=2,3") == page
    assert told("--help=quant.bits") == page
    assert told("quant.bits=2", "--help") == page
    assert told("help", "quant.bits") == page


@pytest.mark.parametrize(
    ("word", "first", "also"),
    [
        ("group_size", "quant.group_size: ", "null is   128 (rtn, mse, gptq"),
        ("per_part.vision.bits", "per_part: ", "\n\nquant.bits: "),
        ("rules.a.bits", "rules: ", "\n\nquant.bits: "),
        ("model.dtype_per_part.vision", "model.dtype_per_part: ", "{PART: DTYPE}"),
        (
            "hydra.launcher.additional_parameters.reservation",
            "hydra.launcher.additional_parameters: ",
            "any other flag",
        ),
        ("hydra/launcher", "a cluster: ", "timeout_min"),
        ("quant=gptq", "quant=gptq\n", "method: gptq"),
        ("gptq", "quant=gptq\n", "method: gptq"),
        ("cache", "cache: ", "A verb too: blip2sweep cache --help"),
        ("table", "Usage: blip2sweep table ", "--output-dir"),
        ("verbs", "  plan ", "\n  table "),
        ("drop_cider", "drop_cider (drop_<metric>): a column of tables\n", "positive is worse"),
        ("bits_per_weight", "bits_per_weight: a column of tables\n", "  unit      bits\n"),
        ("task.limit", "task.limit: the first N samples in file order, of VQA questions and not images", "integer"),
        ("experiment", "YAML files", "experiment=int4_groups, quick"),
    ],
)
def test_other_words(word: str, first: str, also: str, told: Told) -> None:
    page = told("--help", word)
    assert told.code == 0
    assert page.startswith(first)
    assert also in page


def test_several_words_and_choices_of_a_users_own(tmp_path: Path, told: Told) -> None:
    (tmp_path / "quant").mkdir()
    (tmp_path / "quant" / "mine.yaml").write_text("# Ours.\nmethod: rtn\nbits: 6\n")
    page = told("--config-dir", str(tmp_path), "--help", "quant", "part", "quant=mine")
    assert " mine" in page.partition("\n\n")[2].partition("\n\n")[0]
    assert "\n\npart: what is compressed" in page
    assert page.endswith("quant=mine\n\n  # Ours.\n  method: rtn\n  bits: 6\n")


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--help", "quant.bitz"], "--help quant.bitz: no topic, key, choice or verb; did you mean 'quant.bits'?"),
        (["--help", "zzz"], "right: blip2sweep --help, which lists topics"),
        (["--help", "quant=gptk"], "no such quant; did you mean 'gptq'?"),
        (["--schema", "qant"], "did you mean 'quant'?"),
        (["-sc", "install=tcsh"], "-sc install=tcsh: right: install=SHELL or uninstall=SHELL, with bash, zsh or fish"),
        (["-sc"], "-sc nothing: right: install=SHELL"),
        (["--shell-completion", "query=bash"], "in COMP_LINE"),
        (["--config-dir", "/nowhere", "--help", "quant"], "--config-dir /nowhere: no such folder"),
    ],
)
def test_bad_words(words: list[str], right: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    line = told(*words)
    assert told.code == 2
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert right in line


def test_the_version_is_ours(told: Told) -> None:
    line = told("--version")
    assert line.startswith(f"blip2sweep {version('blip2sweep')} (python 3.")
    assert f"hydra-core {version('hydra-core')}" in line
    assert told("-V") == line


def test_a_schema_is_printed_as_json(told: Told) -> None:
    assert json.loads(told("--schema"))["properties"]["quant"] == {"$ref": "#/definitions/quant"}
    of_group = told("--schema", "quant")
    assert json.loads(of_group)["properties"]["symmetric"]["anyOf"][0] == {"enum": [True, False]}
    assert told("--schema=quant") == of_group


def test_help_of_a_process_of_its_own_writes_nothing(tmp_path: Path) -> None:
    ran = blip2sweep("--help", "part", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("part: what is compressed")
    refused(blip2sweep("--help", "prat", cwd=tmp_path), "did you mean 'part'?")
    assert list(tmp_path.iterdir()) == []
