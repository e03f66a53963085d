"""The bridge to lmms-eval: printed by the command, run by a Python that has neither this package nor anything but Pillow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import PIL
import pytest

from blip2sweep.tasks import load_task
from tests.checkpoints import conf
from tests.lmms import stand_in
from tests.outside.typed import typed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The printed program, and a path with the stand-in and Pillow alone."""
    folder = tmp_path_factory.mktemp("lmms")
    (folder / "lmms_bridge.py").write_text(typed(["lmms", "bridge"]))
    stand_in.write(folder / "path")
    (folder / "path" / "PIL").symlink_to(Path(PIL.__file__).parent)
    return folder


def run(place: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python lmms_bridge.py words`, without site-packages: -S, and a path of its own."""
    program = [sys.executable, "-S", "lmms_bridge.py", *words]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": "path", "PYTHONDONTWRITEBYTECODE": "1", **env}
    return subprocess.run(program, cwd=place, env=own, capture_output=True, text=True)


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    done = run(place, "export", "colors", "out")
    assert done.returncode == 0, done.stderr
    assert "3 samples with 2 pictures in out" in done.stdout
    assert "task.data_dir=out generation.prompt='{}' generation.max_new_tokens=16\n" in done.stdout
    assert "Not carried over: until=['x'], do_sample=False\n" in done.stdout
    return place / "out"


def test_the_program_knows_nothing_of_this_package(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import blip2sweep"], cwd=place, env={"PYTHONPATH": "path"}, capture_output=True
    )
    assert b"No module named 'blip2sweep'" in done.stderr


def test_export_writes_samples_that_jsonl_reads(exported: Path) -> None:
    found = load_task({**conf("task/shapes_vqa"), **conf("task/jsonl"), "data_dir": str(exported)})
    assert [s.id for s in found.samples] == [0, 1, 2]
    assert found.samples[0].question == "Which color?\nAnswer with a word."
    assert [s.references for s in found.samples] == [("red",), ("green",), ("yes",)]
    assert len(found.images) == 2  # the first and the last show one picture
    about = json.loads((exported / "lmms.json").read_text())
    assert (about["task"], about["generation_kwargs"]["max_new_tokens"]) == ("colors", 16)


@pytest.mark.parametrize(("unknown", "count"), [("red green yes", 3), ("green", 1)])
def test_no_reference_is_made_up(place: Path, unknown: str, count: int) -> None:
    done = run(place, "export", "colors", f"bare{count}", UNKNOWN=unknown)
    assert f"\n{count} of 3 documents have no target: samples without answers" in done.stdout
    found = load_task({**conf("task/shapes_vqa"), **conf("task/jsonl"), "data_dir": str(place / f"bare{count}")})
    assert [s.references for s in found.samples] == [(), (), ()]
    assert found.main_metric == ""  # no accuracy of nothing


def test_scores_are_those_of_the_task(place: Path, exported: Path) -> None:
    own = {"id": [0, 1, 2], "image_id": ["a", "b", "a"], "text": ["Red", "blue", " yes "], "tokens": [1, 1, 1]}
    (place / "5c95ed0455d7-0.json").write_text(json.dumps(own))
    lines = [json.dumps({"id": i, "text": "red"}) for i in (2, 0, 1)]
    (place / "other.jsonl").write_text("\n".join(lines))
    done = run(place, "score", "out", "5c95ed0455d7-0.json", "other.jsonl", "--output", "scores.json")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {"file": "5c95ed0455d7-0.json", "exact,lower": 2 / 3, "pair,lower": 3}
    assert second["exact,lower"] == 1 / 3
    assert (exported / "pairs.txt").read_text().startswith("[('red', 'red')")
    written = json.loads((place / "scores.json").read_text())
    assert [written["scores"][0]["documents"][i]["exact,lower"] for i in "012"] == [1, 0, 1]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("colours", "colours: lmms-eval has no task of this name"),
        ("group", "group: is a group; right: one of its tasks, colors, many"),
        ("likely", "likely: its output is multiple_choice; right: a task with output_type: generate_until"),
        ("many", "document 0: shows Image, Image; right: a task with one picture a question"),
    ],
)
def test_what_cannot_be_exported(place: Path, task: str, told: str) -> None:
    done = run(place, "export", task, "new")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("words", "env", "told"),
    [
        (["out/samples.jsonl"], {}, "out/samples.jsonl: is a file; right: a new folder"),
        (["out/samples.jsonl/new"], {}, "out/samples.jsonl/new: cannot be written"),
        (["new", "--limit", "0"], {}, "--limit 0: right: 1 or more documents"),
        (["new", "--limit", "-1"], {}, "--limit -1: right: 1 or more documents"),
        (["new"], {"DOCUMENTS": "0"}, "the task has no documents"),
        (["new"], {"PYTHONPATH": ""}, "lmms-eval cannot be imported (No module named 'lmms_eval')"),
    ],
)
def test_export_refuses_in_one_line(
    place: Path, exported: Path, words: list[str], env: dict[str, str], told: str
) -> None:
    done = run(place, "export", "colors", *words, **env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(told)
    assert not (place / "new").exists()


def test_the_output_is_a_new_file_and_made_first(place: Path, exported: Path) -> None:
    (place / "good.json").write_text('{"id": [0, 1, 2], "text": ["a", "b", "c"]}')
    (place / "one.json").write_text('{"id": [0], "text": ["a"]}')
    for output, answers, told in (
        ("none/scores.json", "good.json", "none/scores.json: cannot be written (No such file or directory)"),
        ("good.json", "good.json", "good.json: cannot be written (File exists); right: a new file"),
        ("left.json", "one.json", "one.json: no answer to 2 of 3 samples"),
    ):
        done = run(place, "score", "out", answers, "--output", output)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(told)
    assert (place / "good.json").read_text().startswith('{"id"')
    assert not (place / "left.json").exists()


def test_a_folder_with_something_in_it(place: Path, exported: Path) -> None:
    assert "out: is not empty" in run(place, "export", "colors", "out").stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"id": [0, 1], "text": ["a", "b"]}', "no answer to 1 of 3 samples, such as 2; right: an answer to each"),
        ('{"id": [0, 1, 2], "choice": [0, 1, 1]}', "cannot be read ('text'); right: a file of outputs/predictions"),
        ("", "no answer to 3 of 3 samples, such as 0"),
    ],
)
def test_answers_that_do_not_fit(place: Path, exported: Path, content: str, told: str) -> None:
    (place / "bad.json").write_text(content)
    done = run(place, "score", "out", "bad.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"bad.json: {told}" in done.stderr


def test_every_wrong_answer_is_a_line(place: Path, exported: Path) -> None:
    rows = [(0, "a"), (0, "b"), (1, None), (7, "x"), ([], "x"), (True, "x")]
    (place / "wrong.jsonl").write_text("\n".join(json.dumps({"id": i, "text": t}) for i, t in rows))
    done = run(place, "score", "out", "wrong.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "wrong.jsonl: id 0: stands twice; right: once",
        "wrong.jsonl: id 1: text is None; right: a text",
        "wrong.jsonl: id 7: is of no sample; right: answers to this export",
        "wrong.jsonl: id []: is of no sample; right: answers to this export",
        "wrong.jsonl: id True: is of no sample; right: answers to this export",
        "wrong.jsonl: no answer to 1 of 3 samples, such as 2; right: an answer to each",
    ]


def test_a_task_that_has_changed_since(place: Path, exported: Path) -> None:
    (place / "all.json").write_text('{"id": [0, 1, 2], "text": ["a", "b", "c"]}')
    done = run(place, "score", "out", "all.json", POST="Say one word.")
    assert done.returncode == 2
    assert "not the documents and prompts of this task any more; right: export again" in done.stderr
