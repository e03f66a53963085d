"""The generated scenes: reproducible bytes, official formats, answers that a second, dumb reading confirms."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2sweep.tasks import scenes

ASSETS = Path(scenes.__file__).resolve().parents[1] / "assets"
FILES = ("captions_{}", "v2_OpenEnded_mscoco_{}_questions", "v2_mscoco_{}_annotations")


def read(root: Path, split: str) -> list[dict]:
    return [json.loads((root / "annotations" / f"{name.format(split)}.json").read_text()) for name in FILES]


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def look_up(things: list[scenes.Thing], text: str) -> str | None:
    """Answer a question from the words alone, by filtering (shape, colour, size, column, row) tuples."""
    rows = [(t.shape, t.color, t.size, t.cell % 3, t.cell // 3) for t in things]
    singular = {"circles": "circle", "squares": "square", "triangles": "triangle", "crosses": "cross"}
    tokens = [singular.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
    values = [w for w in tokens if w in scenes.SHAPES + scenes.COLORS + scenes.SIZES]
    found = [row for row in rows if all(value in row for value in values)]
    if text.startswith("How many"):
        return str(len(found))
    if text.startswith("Is the "):
        (a,), (b,) = ([row for row in rows if row[0] == shape] for shape in values)
        places = {"left": a[3] < b[3], "right": a[3] > b[3], "above": a[4] < b[4], "below": a[4] > b[4]}
        return "yes" if next(true for word, true in places.items() if word in tokens) else "no"
    if text.startswith("Is "):
        return "yes" if found else "no"
    if text in ("What is at the top?", "What is on the left?"):
        axis = 4 if "top" in text else 3
        found = [row for row in rows if row[axis] == min(r[axis] for r in rows)]
    assert len(found) == 1, f"ambiguous: {text}"
    shape, color, size, col, row = found[0]
    place = " ".join(filter(None, [["top", "", "bottom"][row], ["left", "", "right"][col]])) or "center"
    starts = {"What color": color, "What size": size, "What shape": shape, "Where": place}
    return next((answer for start, answer in starts.items() if text.startswith(start)), f"{color} {shape}")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        scenes.write_split(tmp_path / name, "val2014", 5, seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a") != tree(tmp_path / "c")


def test_files_have_the_official_schema(tmp_path: Path) -> None:
    scenes.write_split(tmp_path, "train2014", 6, 0, first_id=100_001)
    captions, questions, annotations = read(tmp_path, "train2014")
    assert set(captions) == {"info", "images", "licenses", "annotations"}
    assert set(questions) == {"info", "task_type", "data_type", "license", "data_subtype", "questions"}
    assert set(annotations) == {"info", "data_type", "license", "data_subtype", "annotations"}
    assert {"id", "file_name", "height", "width", "license"} <= set(captions["images"][0])
    assert set(captions["annotations"][0]) == {"image_id", "id", "caption"}
    assert set(questions["questions"][0]) == {"image_id", "question", "question_id"}
    assert set(annotations["annotations"][0]) == {
        "question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id",
    }  # fmt: skip
    assert set(annotations["annotations"][0]["answers"][0]) == {"answer", "answer_confidence", "answer_id"}
    assert captions["images"][0]["file_name"] == "COCO_train2014_000000100001.jpg"
    assert Image.open(tmp_path / "train2014" / captions["images"][0]["file_name"]).size == (48, 48)


@pytest.mark.parametrize("answer_type", scenes.ANSWER_TYPES)
def test_answers_agree_with_a_dumb_reading_of_the_scene(answer_type: str) -> None:
    rng, seen = random.Random(answer_type), Counter()
    for _ in range(1500):
        things = scenes.scene(rng)
        question = scenes.question(things, rng, answer_type)
        assert look_up(things, question.text) == question.answer, (things, question)
        assert question.text.lower().startswith(question.question_type + " ")
        seen[question.answer] += 1
    if answer_type == "yes/no":
        assert 0.45 < seen["yes"] / seen.total() < 0.55


def test_relational_questions_are_asked_where_two_shapes_are_unmistakable() -> None:
    rng = random.Random(0)
    for _ in range(300):
        things = scenes.scene(rng)
        question = scenes.yes_no_question(things, rng, relational=True)
        unique = [s for s, n in Counter(t.shape for t in things).items() if n == 1]
        assert question.text.startswith("Is the ") or len(unique) < 2
        assert look_up(things, question.text) == question.answer


def test_captions_name_only_what_is_there() -> None:
    rng = random.Random(1)
    for _ in range(300):
        things = scenes.scene(rng)
        texts = scenes.captions(things, rng)
        assert len(texts) == 5
        assert all(text[0].isupper() and text.endswith(".") for text in texts)
        words = set(re.findall(r"[a-z]+", " ".join(texts).lower()))
        present = {value for thing in things for value in (thing.color, thing.size)}
        assert words & set(scenes.COLORS + scenes.SIZES) <= present


def test_hard_scenes_blur_the_near_colours() -> None:
    def gap(difficulty: scenes.Difficulty) -> float:
        red, orange = (np.array(difficulty.rgb[name]) for name in ("red", "orange"))
        return float(np.linalg.norm(red - orange)) / difficulty.color_spread

    assert gap(scenes.HARD) < 3.5 < gap(scenes.EASY)


@pytest.mark.parametrize(("split", "n", "first"), [("val2014", 500, 1), ("train2014", 256, 100_001)])
def test_shipped_annotations_are_consistent(split: str, n: int, first: int) -> None:
    captions, questions, annotations = read(ASSETS / "shapes", split)
    ids = [image["id"] for image in captions["images"]]
    assert ids == list(range(first, first + n))
    assert all((ASSETS / "shapes" / split / image["file_name"]).is_file() for image in captions["images"])
    assert len(list((ASSETS / "shapes" / split).iterdir())) == n
    assert Counter(entry["image_id"] for entry in captions["annotations"]) == dict.fromkeys(ids, 5)
    assert Counter(entry["image_id"] for entry in questions["questions"]) == dict.fromkeys(ids, 3)
    asked = [(q["question_id"], q["image_id"]) for q in questions["questions"]]
    assert asked == [(a["question_id"], a["image_id"]) for a in annotations["annotations"]]
    assert len(set(asked)) == 3 * n
    for entry in annotations["annotations"]:
        given = Counter(answer["answer"] for answer in entry["answers"])
        assert given.total() == 10
        assert given[entry["multiple_choice_answer"]] >= 4


def test_shipped_splits_share_no_image() -> None:
    images = [{path.read_bytes() for path in (ASSETS / "shapes" / s).iterdir()} for s in ("val2014", "train2014")]
    assert not images[0] & images[1]
    assert len(images[0]) == 500


def test_the_shipped_processor_knows_the_images_and_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import Blip2Processor

    processor = Blip2Processor.from_pretrained(ASSETS / "tiny")
    image = Image.open(ASSETS / "shapes" / "val2014" / "COCO_val2014_000000000001.jpg")
    text = "Question: Is there a red circle? Answer:"
    inputs = processor(images=image, text=text, return_tensors="pt")
    config = json.loads((ASSETS / "tiny" / "config.json").read_text())
    ids = inputs["input_ids"][0].tolist()
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    assert ids[:13] == [config["image_token_index"]] * 12 + [config["text_config"]["bos_token_id"]]
    assert processor.decode(ids[13:]) == text
    assert (ASSETS / "tiny" / "model.safetensors").stat().st_size < 4e6
