"""Odd rows of tasks and of `score`: refused in one line a mistake, with file, list and index; never a traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.metrics.records import read_references
from blip2sweep.rows import json_file
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.scenes import write_split
from tests.checkpoints import conf
from tests.command_line import blip2sweep, refused

FILES = {
    "c": "captions_val2014.json",
    "q": "v2_OpenEnded_mscoco_val2014_questions.json",
    "a": "v2_mscoco_val2014_annotations.json",
}
Content = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Content]]:
    root = tmp_path_factory.mktemp("rows") / "data"
    write_split(root, "val2014", 3, seed=1)
    return root, {k: json.loads((root / "annotations" / name).read_text()) for k, name in FILES.items()}


class Data:
    """A data folder whose files are written anew for every case."""

    def __init__(self, root: Path, contents: dict[str, Content]) -> None:
        self.root, self.contents = root, copy.deepcopy(contents)

    def path(self, which: str) -> Path:
        return self.root / "annotations" / FILES[which]

    def load(self, kind: str, **fields: Any) -> TaskData:
        for which, content in self.contents.items():
            if not self.path(which).exists() or which != self.raw:
                self.path(which).write_text(json.dumps(content))
        return load_task({**conf(f"task/shapes_{kind}"), "data_dir": str(self.root), **fields})

    raw = ""  # which file a test wrote itself


@pytest.fixture
def data(written: tuple[Path, dict[str, Content]]) -> Data:
    return Data(*written)


def lines(error: UserError) -> tuple[str, ...]:
    found = error.lines if isinstance(error, UserErrors) else (str(error),)
    assert not any("\n" in line for line in found)
    return found


def refuse(act: Callable[[], object], *words: str) -> None:
    """A line for each of the words, in their order, and no more lines."""
    with pytest.raises(UserError) as caught:
        act()
    told = lines(caught.value)
    assert len(told) == len(words), told
    for line, word in zip(told, words, strict=True):
        assert word in line, told


# ---- values of fields


NO_TEXT = {"null": None, "a number": 5, "a float": 1.5, "NaN": float("nan"), "true": True, "a list": ["a"],
           "an object": {"a": "b"}, "half a character": "a\ud800"}  # fmt: skip
NO_ID = {"null": None, "a fraction": 1.5, "NaN": float("nan"), "infinite": float("inf"), "false": False, "a list": [1],
         "an object": {}, "beyond 64 bits": 2**63, "below 64 bits": -(2**63) - 1, "a rounded float": 1e300, "empty": "",
         "spaces": " \t", "lines": "a\nb", "NUL": "a\0", "half a character": "\udfff", "too long": "x" * 501}  # fmt: skip
NO_NAME = {"empty": "", "here": ".", "up": "..", "a folder": "a/", "absolute": "/a.jpg", "through": "a/../../b", "inside": "a/./b",
           "of Windows": "a\\b.jpg", "NUL": "a\0.jpg", "lines": "a\n.jpg", "a link": "http://a/b.jpg", "too long": "é" * 130,
           "too deep": "a/" * 1500 + "b", "spaces": "  "}  # fmt: skip


@pytest.mark.parametrize("case", NO_TEXT)
def test_what_is_no_text_is_no_caption_question_or_answer(data: Data, case: str) -> None:
    value = NO_TEXT[case]
    c, q, a = (data.contents[k] for k in "cqa")
    c["annotations"][2]["caption"] = q["questions"][1]["question"] = value
    a["annotations"][4]["answers"][3]["answer"] = value
    refuse(lambda: data.load("caption"), f"{FILES['c']}: annotations[2] (image_id 1): 'caption' ")
    refuse(lambda: read_references(data.path("c")), "annotations[2] (image_id 1): 'caption' ")
    refuse(
        lambda: data.load("vqa"),
        f"{FILES['q']}: questions[1] (question_id 1001): 'question' ",
        f"{FILES['a']}: annotations[4] (question_id 2001): 'answers' [3] ",
    )
    refuse(lambda: read_references(data.path("a")), "annotations[4] (question_id 2001): 'answers' [3] ")


@pytest.mark.parametrize("case", NO_ID)
def test_what_is_no_id_is_refused_wherever_ids_stand(data: Data, case: str) -> None:
    value = NO_ID[case]
    c, q, a = (data.contents[k] for k in "cqa")
    c["images"][1]["id"] = c["annotations"][7]["image_id"] = value
    refuse(lambda: data.load("caption"), "images[1]: 'id' ", "annotations[7]: 'image_id' ")
    refuse(lambda: read_references(data.path("c")), "annotations[7]: 'image_id' ")
    q["questions"][1]["image_id"] = q["questions"][2]["question_id"] = value
    a["annotations"][5]["question_id"] = value
    refuse(
        lambda: data.load("vqa"),
        "questions[1] (question_id 1001): 'image_id' ",
        "questions[2]: 'question_id' ",
        "annotations[5]: 'question_id' ",
    )
    refuse(lambda: read_references(data.path("a")), "annotations[5]: 'question_id' ")


@pytest.mark.parametrize("case", [*NO_NAME, *(f"not a text: {c}" for c in NO_TEXT)])
def test_what_names_no_file_is_refused(data: Data, case: str) -> None:
    data.contents["c"]["images"][1]["file_name"] = (
        NO_NAME[case] if case in NO_NAME else NO_TEXT[case.partition(": ")[2]]
    )
    refuse(lambda: data.load("caption"), f"{FILES['c']}: images[1] (id 2): 'file_name' ")


@pytest.mark.parametrize("value", ["", " ", "\t\n", "\u200b", "\u00a0", "\u202e "])
def test_a_question_without_anything_to_read_is_not_asked(data: Data, value: str) -> None:
    data.contents["q"]["questions"][0]["question"] = value
    refuse(lambda: data.load("vqa"), "questions[0] (question_id 1000): 'question' is ")


@pytest.mark.parametrize(
    ("answers", "told"),
    [([], "an empty list"), ("yes", "is 'yes'; right: a list"), ({}, "an object"), (None, "null"),
     ([{}], "[0] has no 'answer'"), ([["a"]], "[0] is a list"), (["a", None], "[1] is null")],
)  # fmt: skip
def test_answers_are_a_list_with_texts(data: Data, answers: Any, told: str) -> None:
    data.contents["a"]["annotations"][0]["answers"] = answers
    refuse(
        lambda: data.load("vqa"),
        f"annotations[0] (question_id 1000): 'answers' {told}".replace("' an", "' is an", 1).replace(
            "' null", "' is null"
        ),
    )


def test_answers_may_be_texts_and_types_may_be_missing_or_unheard_of(data: Data) -> None:
    plain = data.load("vqa")
    for row in data.contents["a"]["annotations"]:
        row["answers"] = [a["answer"] for a in row["answers"]]
    assert data.load("vqa").fingerprint == plain.fingerprint
    first, second, *_ = data.contents["a"]["annotations"]
    del first["answer_type"], first["image_id"]
    second["answer_type"] = "unanswerable"
    assert [s.answer_type for s in data.load("vqa").samples][:2] == [None, "unanswerable"]
    second["answer_type"] = 3
    refuse(lambda: data.load("vqa"), "annotations[1] (question_id 1001): 'answer_type' is 3")


@pytest.mark.parametrize(("n", "rule"), [(10, "leave_one_out"), (2, "leave_one_out"), (1, "exact_match")])
def test_the_rule_of_the_answers_is_named(data: Data, n: int, rule: str) -> None:
    for row in data.contents["a"]["annotations"]:
        row["answers"] = row["answers"][:n]
    assert data.load("vqa").columns == {"vqa_rule": rule}
    assert data.load("caption").columns == {}


def test_whole_floats_are_the_integers_they_came_from(data: Data) -> None:
    plain = data.load("caption")
    for row in data.contents["c"]["images"]:
        row["id"] = float(row["id"])
    assert data.load("caption").fingerprint == plain.fingerprint
    assert all(type(s.id) is int for s in data.load("caption").samples)


def test_captions_of_spaces_are_none(data: Data) -> None:
    own = [row for row in data.contents["c"]["annotations"] if row["image_id"] == 1]
    for row in own[1:]:
        row["caption"] = " "
    assert data.load("caption").samples[0].references[1] == " "  # beside one with words it does no harm
    own[0]["caption"] = ""
    with pytest.raises(UserError, match="no caption of this image has a word"):
        data.load("caption")


def test_a_caption_that_meteor_cannot_take_is_no_reference(data: Data) -> None:
    data.contents["c"]["annotations"][0]["caption"] = "dog " * 501
    refuse(
        lambda: data.load("caption"),
        "annotations[0] (image_id 1): 'caption' has 501 words and 2004 characters; right: ",
    )
    refuse(lambda: read_references(data.path("c")), "has 501 words")


# ---- rows that do not fit together


def swap(rows: list[Content], field: str, make: Callable[[Any], Any]) -> None:
    for row in rows:
        row[field] = make(row[field])


FITTING: dict[str, tuple[str, Callable[[Content, Content, Content], Any], list[str]]] = {
    "an image twice": ("caption", lambda c, q, a: c["images"].append(c["images"][0]), ["images[3] (id 1): stands twice, first as images[0]"]),
    "an image without caption": ("caption", lambda c, q, a: c["images"].append({"id": 9, "file_name": "x.jpg"}), ["images[3] (id 9): has no caption"]),
    "a caption without image": ("caption", lambda c, q, a: c["annotations"].append({"image_id": 9, "caption": "x"}), ["annotations[15] (image_id 9): names no image"]),
    "a caption's image in letters": ("caption", lambda c, q, a: swap(c["annotations"], "image_id", str), ["annotations[0] (image_id '1'): the id is a text, the ids of 'images' are numbers"]),
    "ids of both kinds": ("caption", lambda c, q, a: c["images"].append({"id": "1", "file_name": "x.jpg"}), ["images[3] (id '1'): the id is a text, those before it in images are numbers"]),
    "a question twice": ("vqa", lambda c, q, a: q["questions"].append(q["questions"][4]), ["questions[9] (question_id 2001): stands twice, first as questions[4]"]),
    "an annotation twice": ("vqa", lambda c, q, a: a["annotations"].append(a["annotations"][0]), ["annotations[9] (question_id 1000): stands twice, first as annotations[0] with the same answers"]),
    "two annotations that disagree": ("vqa", lambda c, q, a: a["annotations"].append({**a["annotations"][0], "answers": ["?"]}), ["with other answers"]),
    "a question nobody answered": ("vqa", lambda c, q, a: a["annotations"].pop(3), ["questions[3] (question_id 2000): no annotation for it"]),
    "an answer to no question": ("vqa", lambda c, q, a: q["questions"].pop(3), ["annotations[3] (question_id 2000): such a question is not asked"]),
    "different images": ("vqa", lambda c, q, a: a["annotations"][0].update(image_id=2), ["annotations[0] (question_id 1000): is of image 2, its question of image 1"]),
    "an image out of the folder": ("vqa", lambda c, q, a: [swap(x, "image_id", lambda i: f"../{i}") for x in (q["questions"], a["annotations"])], ["leads out of the data folder"]),
    "no images": ("caption", lambda c, q, a: c.update(images=[]), ["the list 'images' is empty"]),
    "no captions": ("caption", lambda c, q, a: c.update(annotations=[]), ["the list 'annotations' is empty"]),
    "no questions": ("vqa", lambda c, q, a: (q.update(questions=[]), a.update(annotations=[])), ["the list 'questions' is empty"]),
    "no object": ("caption", lambda c, q, a: c["annotations"].insert(2, [1, "a dog"]), ["annotations[2]: is a list; right: an object with image_id, caption"]),
    "a field that is missing": ("vqa", lambda c, q, a: q["questions"][1].pop("image_id"), ["questions[1] (question_id 1001): has no 'image_id'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FITTING)
def test_rows_that_do_not_fit_together_are_named(data: Data, case: str) -> None:
    kind, edit, told = FITTING[case]
    edit(data.contents["c"], data.contents["q"], data.contents["a"])
    refuse(lambda: data.load(kind), *told)


def test_all_mistakes_are_told_at_once_and_many_are_counted(data: Data) -> None:
    rows = data.contents["c"]["annotations"]
    rows[0]["caption"], rows[3] = None, 7
    data.contents["c"]["images"][1] = {"id": 2, "file_name": ".."}
    refuse(lambda: data.load("caption"), "images[1]", "annotations[0]", "annotations[3]")
    data.contents["c"]["annotations"] += [{"image_id": 1, "caption": None}] * 1000
    refuse(
        lambda: data.load("caption"),
        *["[1]", "[0]", "[3]", *[f"[{i}]" for i in range(15, 22)]],
        "and 993 mistakes more",
    )


@pytest.mark.thorough
def test_the_command_line_prints_a_line_each(data: Data, tmp_path: Path) -> None:
    rows = data.contents["q"]["questions"]
    rows[0]["question"] = rows[1]["question"] = None
    with pytest.raises(UserError):
        data.load("vqa")
    ran = blip2sweep("task=shapes_vqa", f"task.data_dir={data.root}", "part=none", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert [line.partition(": questions")[2][:3] for line in ran.err.splitlines()] == ["[0]", "[1]"]
    assert all(line.startswith("error: ") for line in ran.err.splitlines())
    refused(blip2sweep("score", str(data.path("q")), "-r", str(data.path("q")), cwd=tmp_path), FILES["q"])
    assert not (tmp_path / "outputs").exists()


# ---- files


def whole(text: str) -> bytes:
    return text.encode()


GOOD = '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}'
BROKEN = {
    "nothing": (b"", "empty"),
    "spaces": (b" \n\t", "empty"),
    "cut": (whole(GOOD)[:60], "not JSON at line 1 column"),
    "more behind": (whole(GOOD) + b"}", "Extra data"),
    "zeros": (b"\0" * 50, "not JSON"),
    "Latin-1": (GOOD.replace("dog", "d\xf6g").encode("latin-1"), "not UTF-8 at byte"),
    "UTF-16": (GOOD.encode("utf-16"), "not UTF-8 at byte 0"),
    "deep lists": (b"[" * 200_000, "nested too deep"),
    "deep objects": (b'{"a":' * 200_000, "nested too deep"),
    "deep and whole": (whole(f'{{"images": {"[" * 200_000}{"]" * 200_000}}}'), "nested too deep"),
    "deep in a row": (whole(GOOD.replace('"a dog"', "[" * 500 + "]" * 500)), "annotations[0] (image_id 1): 'caption' is a list"),
    "a long number": (whole(GOOD.replace('"id": 1', '"id": ' + "9" * 5000)), "images[0]: 'id' is a number of more than 20 digits"),
    "a key twice": (whole(GOOD.replace('"caption"', '"caption": "x", "caption"')), "the key 'caption' stands twice in one object, near line 1"),
    "a list twice": (whole(GOOD[:-1] + ', "images": []}'), "the key 'images' stands twice"),
    "a text": (b'"images"', "holds 'images'; right: an object"),
    "a list": (b"[1]", "holds a list; right: an object"),
    "null": (b"null", "holds null"),
    "rows as object": (whole('{"images": {}, "annotations": {}}'), "'images' is an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_one_line(data: Data, case: str) -> None:
    content, told = BROKEN[case]
    data.raw = "c"
    data.path("c").write_bytes(content)
    refuse(lambda: data.load("caption"), told)
    try:
        read_references(data.path("c"))
    except UserError as error:
        lines(error)


def test_what_readers_forgive_is_no_mistake(data: Data) -> None:
    """A byte order mark, spaces before colons, texts with quotes and colons, odd values where nobody looks."""
    odd = {"info": {"v": float("nan")}, **data.contents["c"], "more": [{"a": {"b": [{"c": 1}]}}]}
    odd["annotations"] = [{**row, "caption": f'say "{row["caption"]}": yes \\":'} for row in odd["annotations"]]
    data.raw = "c"
    data.path("c").write_bytes(b"\xef\xbb\xbf" + json.dumps(odd, indent=1, separators=(",", " : ")).encode())
    assert len(data.load("caption").samples) == 3
    data.path("c").write_text(json.dumps(odd)[:-1] + f', "unused": {"9" * 5000}}}')
    assert data.load("caption").samples[0].references[0].endswith('": yes \\":')


def test_keys_are_looked_at_one_by_one_only_where_their_number_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file.json, "loads", None)
    assert json_file._key_twice(GOOD, json.JSONDecoder().decode(GOOD)) is None


# ---- any of them


def odd_values(rng: random.Random) -> Any:
    return copy.deepcopy(
        rng.choice(
            [*NO_TEXT.values(), *NO_ID.values(), *NO_NAME.values(), "a", "1", 1, 1.0, 0, -1, [], [{}], "x" * 6000]
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_whatever_stands_in_a_row_there_is_no_traceback(data: Data, seed: int) -> None:
    """Any field of any row replaced, removed or doubled: data, or lines that name a file."""
    rng, clean = random.Random(seed), copy.deepcopy(data.contents)
    told: list[tuple[str, ...]] = []
    for _ in range(60):
        data.contents = copy.deepcopy(clean)
        for _ in range(rng.randint(1, 3)):
            disturb(rng, data.contents)
        told += [said(lambda kind=kind: data.load(kind)) for kind in ("caption", "vqa")]
        told += [said(lambda which=which: read_references(data.path(which))) for which in "ca"]
    assert any(told)
    assert not all(told)  # some of what was changed nobody reads
    for line in (line for mistakes in told for line in mistakes):
        assert any(place in line for place in (*FILES.values(), "no such image", "mistakes more")), line
        assert len(line) < 1000


def said(act: Callable[[], object]) -> tuple[str, ...]:
    """The lines of what it says against it; none where it does."""
    try:
        act()
    except UserError as error:
        return lines(error)
    return ()


def disturb(rng: random.Random, contents: dict[str, Content]) -> None:
    content = contents[rng.choice("cqa")]
    name = rng.choice([k for k, v in content.items() if isinstance(v, list) and v])
    rows, i = content[name], rng.randrange(len(content[name]))
    row = rows[i]
    what = rng.random()
    if what < 0.7 and isinstance(row, dict) and row:
        row[rng.choice(list(row))] = odd_values(rng)
    elif what < 0.8 and isinstance(row, dict) and row:
        del row[rng.choice(list(row))]
    elif what < 0.9:
        rows[i] = odd_values(rng)
    else:
        rows.append(copy.deepcopy(row))
