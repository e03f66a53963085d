"""Annotation files to samples, every bad input a typed line, and generation settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blip2sweep.errors import UserError
from blip2sweep.tasks import Generation, TaskData, load_task, resolve_generation
from blip2sweep.tasks.scenes import write_split
from tests.checkpoints import conf

ANNOTATIONS = {
    "captions": "captions_val2014.json",
    "questions": "v2_OpenEnded_mscoco_val2014_questions.json",
    "answers": "v2_mscoco_val2014_annotations.json",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_split(tmp_path / "data", "val2014", 6, seed=1)
    return tmp_path / "data"


def task(data: Path, which: str = "caption", **fields: Any) -> dict[str, Any]:
    return {**conf(f"task/shapes_{which}"), "data_dir": str(data), **fields}


def read(data: Path, which: str) -> Any:
    return json.loads((data / "annotations" / ANNOTATIONS[which]).read_text())


def write(data: Path, which: str, content: Any) -> None:
    (data / "annotations" / ANNOTATIONS[which]).write_text(json.dumps(content))


def fails(match: str) -> pytest.RaisesExc:
    return pytest.raises(UserError, match=match, check=lambda error: "\n" not in str(error))


# ---- what is read


@pytest.mark.parametrize(("kind", "n"), [("caption", 500), ("vqa", 1500)])
def test_the_shipped_data_loads(kind: str, n: int) -> None:
    found = load_task(conf(f"task/shapes_{kind}"))
    assert (len(found.samples), len(found.images), found.kind) == (n, 500, kind)
    assert "rank no methods" in found.notes[0]


def test_captions_are_read_in_file_order(data: Path) -> None:
    content = read(data, "captions")
    content["images"].reverse()
    write(data, "captions", content)
    found = load_task(task(data, limit=4))
    assert [s.id for s in found.samples] == [6, 5, 4, 3]
    first = found.samples[0]
    assert first.image == data / "val2014" / "COCO_val2014_000000000006.jpg"
    assert first.references == tuple(a["caption"] for a in content["annotations"] if a["image_id"] == 6)
    assert (first.question, first.answer_type, first.image_id) == (None, None, 6)


def test_questions_are_read_with_their_ten_answers(data: Path) -> None:
    found = load_task(task(data, "vqa", limit=4))
    assert [s.id for s in found.samples] == [1000, 1001, 1002, 2000]
    assert [s.image_id for s in found.samples] == [1, 1, 1, 2]
    assert list(found.images) == [1, 2]
    for sample, entry in zip(found.samples, read(data, "answers")["annotations"], strict=False):
        assert sample.references == tuple(a["answer"] for a in entry["answers"])
        assert (sample.majority, sample.answer_type) == (entry["multiple_choice_answer"], entry["answer_type"])


def karpathy(data: Path, **fields: Any) -> None:
    images = [
        {
            "filepath": "val2014", "filename": f"COCO_val2014_{i:012d}.jpg", "cocoid": i,
            "split": "test" if i % 2 else "restval",
            "sentences": [{"raw": f"Caption {k} of {i}."} for k in range(5)],
        }
        for i in range(1, 7)
    ]  # fmt: skip
    images[0] |= fields
    (data / "annotations" / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def test_karpathy_splits_are_read(data: Path) -> None:
    karpathy(data)
    found = load_task(task(data, split="karpathy_test"))
    assert [s.id for s in found.samples] == [1, 3, 5]
    assert found.samples[1].references[4] == "Caption 4 of 3."
    assert [s.id for s in load_task(task(data, split="karpathy_restval", limit=2)).samples] == [2, 4]
    (data / "annotations" / "dataset_coco.json").rename(data / "dataset_coco.json")
    assert load_task(task(data, split="karpathy_test")).fingerprint == found.fingerprint


def test_images_of_2017_have_bare_names_and_the_anchor_its_note(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in range(1, 1002)]
    for image in images:
        (tmp_path / "val2017" / image["file_name"]).touch()
    captions = [{"image_id": image["id"], "caption": "a"} for image in images]
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    anchor = {**task(tmp_path, split="val2017"), "note": None}
    assert load_task({**anchor, "limit": 1000}).notes == (
        "783 of these 1000 images are in the Karpathy train split: seen in pre-training",
    )
    assert load_task(anchor).notes == ()
    questions = {"questions": [{"question_id": 1, "image_id": 7, "question": "?"}]}
    answers = {"annotations": [{"question_id": 1, "answer_type": "other", "answers": [{"answer": "a"}]}]}
    (path.parent / "v2_OpenEnded_mscoco_val2017_questions.json").write_text(json.dumps(questions))
    (path.parent / "v2_mscoco_val2017_annotations.json").write_text(json.dumps(answers))
    assert load_task(task(tmp_path, "vqa", split="val2017")).samples[0].image.name == "000000000007.jpg"


def test_the_fingerprint_follows_the_data_and_not_the_place(data: Path, tmp_path: Path) -> None:
    def of(folder: Path, **fields: Any) -> str:
        return load_task(task(folder, **fields)).fingerprint

    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    assert of(moved) == of(data)
    assert of(data, limit=6) == of(data) != of(data, limit=5)
    content = read(moved, "captions")
    content["annotations"][0]["caption"] += "!"
    write(moved, "captions", content)
    assert of(moved) != of(data)


# ---- what is refused


def test_missing_folders_files_and_images_are_named(data: Path) -> None:
    with fails(r"task.data_dir=.*nowhere: no such folder"):
        load_task(task(data / "nowhere"))
    with fails(
        r"task.split=val2015: no annotation file .*captions_val2015.json; did you mean 'val2014'.*cocodataset.org"
    ):
        load_task(task(data, split="val2015"))
    with fails(r"task.split=val2041: no question file .*did you mean 'val2014'.*visualqa.org"):
        load_task(task(data, "vqa", split="val2041"))
    with fails(r"task.split=karpathy_tset: unknown split; did you mean 'karpathy_test'"):
        load_task(task(data, split="karpathy_tset"))
    with fails(r"dataset_coco.json: cannot be read .No such file.*caption_datasets.zip"):
        load_task(task(data, split="karpathy_test"))
    for i in (2, 5):
        (data / "val2014" / f"COCO_val2014_{i:012d}.jpg").unlink()
    for kind in ("caption", "vqa"):
        with fails(r"COCO_val2014_000000000002.jpg: no such image \(2 of 6.*cocodataset.org"):
            load_task(task(data, kind))
    assert len(load_task(task(data, limit=1)).samples) == 1  # only what is asked for has to be there
    shutil.rmtree(data / "val2014")
    with fails(r"6 of 6"):
        load_task(task(data))
    (data / "annotations" / ANNOTATIONS["answers"]).unlink()
    with fails(r"v2_mscoco_val2014_annotations.json: cannot be read .No such file.*visualqa.org"):
        load_task(task(data, "vqa"))


@pytest.mark.parametrize(("which", "kind"), [("captions", "caption"), ("questions", "vqa"), ("answers", "vqa")])
def test_damaged_json_is_named_with_the_place(data: Path, which: str, kind: str) -> None:
    path = data / "annotations" / ANNOTATIONS[which]
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with fails(rf"{ANNOTATIONS[which]}: not JSON at line 1 column \d+ \(character \d+.*truncated or damaged"):
        load_task(task(data, kind))
    path.write_bytes(b"\xff\xfe{")
    with fails("not UTF-8 at byte 0"):
        load_task(task(data, kind))
    path.write_text("[]")
    with fails("holds a list; right: an object with the list .*the official file"):
        load_task(task(data, kind))
    path.write_text("{}")
    with fails("no list '"):
        load_task(task(data, kind))


@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "/etc/passwd", "../annotations/captions_val2014.json", "a/../../x"]
)
def test_file_names_that_leave_the_data_folder_are_refused(data: Path, name: str) -> None:
    content = read(data, "captions")
    content["images"][2]["file_name"] = name
    write(data, "captions", content)
    with fails("leads out of the data folder"):
        load_task(task(data))
    for fields in ({"filename": name}, {"filepath": name}):
        karpathy(data, **fields)
        with fails("leads out of the data folder"):
            load_task(task(data, split="karpathy_test"))


def test_an_image_linked_out_of_its_folder_is_refused_but_a_linked_folder_is_the_users(
    data: Path, tmp_path: Path
) -> None:
    image = data / "val2014" / "COCO_val2014_000000000003.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(tmp_path / "elsewhere.jpg")
    with fails("is a link out of"):
        load_task(task(data))
    image.unlink()
    (tmp_path / "elsewhere.jpg").rename(image)
    (data / "val2014").rename(tmp_path / "images")
    (data / "val2014").symlink_to(tmp_path / "images")
    assert len(load_task(task(data)).samples) == 6


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"limit": 0}, "task.limit=0: right: a positive integer"),
        ({"limit": -3}, "task.limit=-3"),
        ({"limit": True}, "task.limit=True"),
        ({"format": "cocoo"}, "task.format=cocoo: unknown; did you mean 'coco'"),
        ({"kind": "vqa"}, "task.kind=vqa: format coco holds caption"),
        ({"on_bad_image": "ignore"}, "task.on_bad_image=ignore: right: error or skip"),
    ],
)
def test_wrong_fields_are_named(data: Path, fields: dict[str, Any], match: str) -> None:
    with fails(match):
        load_task(task(data, **fields))


def test_annotations_that_do_not_fit_together_are_refused(data: Path) -> None:
    answers, captions, questions = (read(data, which) for which in ("answers", "captions", "questions"))
    write(data, "answers", {"annotations": answers["annotations"][1:]})
    with fails(r"v2_OpenEnded.*: questions\[0\] \(question_id 1000\): no annotation for it in v2_mscoco"):
        load_task(task(data, "vqa"))
    write(data, "questions", {"questions": [*questions["questions"], questions["questions"][0]]})
    write(data, "answers", answers)
    with fails(r"questions\[18\] \(question_id 1000\): stands twice"):
        load_task(task(data, "vqa"))
    write(data, "captions", {**captions, "annotations": captions["annotations"][5:]})
    with fails(r"images\[0\] \(id 1\): has no caption"):
        load_task(task(data))
    write(data, "captions", {**captions, "images": captions["images"] + captions["images"][:1]})
    with fails(r"images\[6\] \(id 1\): stands twice"):
        load_task(task(data))
    write(data, "captions", {**captions, "images": [{"id": 1}]})
    with fails(r"images\[0\] \(id 1\): has no 'file_name'"):
        load_task(task(data))


def test_planning_opens_no_image(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    assert isinstance(load_task(task(data)), TaskData)


# ---- generation


@pytest.mark.parametrize(
    ("preset", "kind", "family", "expected"),
    [
        ("greedy", "caption", "opt", Generation(None, 1, 32)),
        ("greedy", "vqa", "opt", Generation("Question: {} Answer:", 1, 10)),
        ("paper", "caption", "opt", Generation("a photo of", 5, 30, 8, 1.0)),
        ("paper", "caption", "t5", Generation("a photo of", 5, 30, 8, 1.0)),
        ("paper", "vqa", "opt", Generation("Question: {} Answer:", 5, 10, None, -1.0)),
        ("paper", "vqa", "t5", Generation("Question: {} Short answer:", 5, 10, None, -1.0)),
        ("lavis", "caption", "opt", Generation("a photo of", 5, 30, 8, 1.0)),
        ("lavis", "vqa", "opt", Generation("Question: {} Short answer:", 5, 10, None, 0.0, "lavis")),
        ("lavis", "vqa", "t5", Generation("Question: {} Short answer:", 5, 10, None, 0.0, "lavis")),
        ("seed", "caption", "opt", Generation(None, 1, 18)),
        ("nocaps", "caption", "t5", Generation(None, 5, 80, 10, 1.0)),
        ("rsicd", "caption", "opt", Generation(None, 5, 50, None, 1.0, early_stopping=True)),
    ],
)
def test_presets(preset: str, kind: str, family: str, expected: Generation) -> None:
    read = {"generation", "generation.question"} if expected.question != "raw" else {"generation"}
    assert resolve_generation(conf(f"generation/{preset}"), kind, family) == (expected, frozenset(read))


def override(preset: str = "greedy", kind: str = "caption", **fields: Any) -> tuple[Generation, set[str]]:
    generation, used = resolve_generation({**conf(f"generation/{preset}"), **fields}, kind, "opt")
    return generation, {key.removeprefix("generation.") for key in used - {"generation"}}


def test_a_setting_overrides_the_preset_and_counts_as_used() -> None:
    assert override(max_new_tokens=5) == (Generation(None, 1, 5), {"max_new_tokens"})
    assert override(prompt="a photo of", num_beams=3) == (
        Generation("a photo of", 3, 32, None, 1.0),
        {"prompt", "num_beams"},
    )
    assert override("paper", prompt="", min_new_tokens=0) == (
        Generation(None, 5, 30, None, 1.0),
        {"prompt", "min_new_tokens"},
    )


def test_what_nothing_consumes_is_null_and_not_used() -> None:
    assert override(length_penalty=2.0) == (Generation(None, 1, 32), set())
    assert override(early_stopping=True) == (Generation(None, 1, 32), set())
    assert override("rsicd", early_stopping=False) == (Generation(None, 5, 50, None, 1.0), {"early_stopping"})
    assert override("paper", num_beams=1)[0].length_penalty is None
    assert override(num_beams=2, length_penalty=2)[0] == Generation(None, 2, 32, None, 2.0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"num_beams": 0}, "generation.num_beams=0"),
        ({"early_stopping": "never"}, "generation.early_stopping=never: right: true or false"),
        ({"max_new_tokens": 0}, "generation.max_new_tokens=0"),
        ({"min_new_tokens": 99}, "generation.min_new_tokens=99: right: at most max_new_tokens=32"),
        ({"length_penalty": "long"}, "generation.length_penalty=long"),
        ({"prompt": "Question: {}"}, "a caption has no question"),
        ({"kind": "vqa", "prompt": "What?"}, "no place for the question"),
        ({"presets": {"caption": {"t5": {}}}}, "no preset for caption and opt"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], match: str) -> None:
    with fails(match):
        override(**fields)
