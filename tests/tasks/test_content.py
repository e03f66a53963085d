"""The content of images: in keys and rows, remembered between plans, compared by whoever decodes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from blip2sweep.analysis.cells import comparable
from blip2sweep.apply.calibration import same_samples
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache import disk as cache
from blip2sweep.cache.disk import Store
from blip2sweep.console import patience
from blip2sweep.errors import UserError
from blip2sweep.planning.cell import Cell
from blip2sweep.tasks import content, planned_task
from blip2sweep.tasks.scenes import write_split
from tests.command_line import blip2sweep, refused
from tests.composing import plan
from tests.in_process import jobs, run
from tests.synthetic import build_planned

N = 6


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who remembers nothing yet."""
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))
    torch.set_num_threads(1)
    return tmp_path / "user"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old ones."""
    monkeypatch.setattr(content, "RACY", 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six scenes to evaluate, six others to calibrate on."""
    write_split(tmp_path / "data", "val2014", N, seed=1)
    write_split(tmp_path / "data", "train2014", N, seed=2, first_id=101)
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that planning reads."""
    names, real = list[str](), content.hashlib.file_digest
    monkeypatch.setattr(content.hashlib, "file_digest", lambda f, kind: names.append(f.name) or real(f, kind))
    return names


def images(data: Path, split: str = "val2014") -> list[Path]:
    return sorted((data / split).iterdir())


def invert(path: Path) -> None:
    with Image.open(path) as image:
        ImageOps.invert(image.convert("RGB")).save(path, quality=85)


def cell(data: Path, *words: str) -> Cell:
    made = plan(f"task.data_dir={data}", *words)
    assert made.keys[0] is not None, made.reasons
    return made.cells[made.keys[0]]


GPTQ = ("part=llm", "quant=gptq", "calibration.n_samples=4")


# ---- identity


def test_other_pictures_under_the_same_names_are_another_cell(data: Path) -> None:
    before = cell(data, "part=none")
    for path in images(data):
        invert(path)
    after = cell(data, "part=none")
    assert before.task.fingerprint == after.task.fingerprint
    assert before.key != after.key
    for column in ("data", "data_images"):
        assert before.columns()[column] != after.columns()[column]
    assert before.columns()["exif"] == "applied"


@pytest.mark.parametrize("change", [invert, Path.touch, lambda p: p.write_bytes(p.read_bytes() + b"\0")])
def test_a_cell_follows_the_bytes_of_each_picture_and_nothing_else(data: Path, change: Callable[[Path], None]) -> None:
    before = cell(data, "part=none").key
    change(images(data)[-1])
    assert (cell(data, "part=none").key == before) is (change is Path.touch)


def test_a_picture_that_is_not_evaluated_changes_nothing(data: Path) -> None:
    before = cell(data, "part=none", "task.limit=3").key
    invert(images(data)[-1])
    assert cell(data, "part=none", "task.limit=3").key == before


def test_two_pictures_that_change_places_are_another_cell(data: Path) -> None:
    before, (a, b, *_) = cell(data, "part=none").key, images(data)
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)
    assert cell(data, "part=none").key != before


@pytest.mark.parametrize("part", ["vit", "qformer", "llm"])
def test_calibrated_cells_follow_the_pictures_they_see(data: Path, part: str) -> None:
    words = (f"part={part}", "quant=gptq,rtn", "calibration.n_samples=6")
    before = plan(f"task.data_dir={data}", *words)
    invert(images(data, "train2014")[2])
    after = plan(f"task.data_dir={data}", *words)
    same = [a == b for a, b in zip(before.keys, after.keys, strict=True)]
    assert same == [False, True]
    assert before.baselines == after.baselines
    told = [p.cells[p.keys[0] or ""].columns() for p in (before, after)]
    assert told[0]["calibration_data"] != told[1]["calibration_data"]
    assert told[0]["data"] == told[1]["data"]
    assert told[0]["recipe_json"] != told[1]["recipe_json"]


def test_calibration_on_text_alone_knows_no_pictures(data: Path) -> None:
    words = (*GPTQ, "calibration=text", "task.on_bad_image=error")
    before = cell(data, *words).key
    for path in images(data, "train2014"):
        invert(path)
    assert cell(data, *words).key == before


def test_a_plan_and_its_baseline_are_of_one_content(data: Path) -> None:
    made = plan(f"task.data_dir={data}", *GPTQ)
    assert len({c.identity["images"] for c in made.cells.values()}) == 1
    for path in images(data):
        invert(path)
    again = plan(f"task.data_dir={data}", *GPTQ)
    assert {c.baseline().key for c in again.cells.values()} == set(again.baselines)
    assert not set(again.baselines) & set(made.baselines)


# ---- what cannot be read


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files that this user may not read, as far as it can be played for one who may read all."""
    names, real = set[Path](), Path.open

    def opening(path: Path, *args: Any, **fields: Any) -> Any:
        if path in names:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **fields)

    monkeypatch.setattr(Path, "open", opening)
    return names


def test_images_that_may_not_be_read_are_named_or_count_as_empty(data: Path, forbidden: set[Path]) -> None:
    whole = cell(data, "part=none", "task.on_bad_image=skip").key
    forbidden |= {*images(data)[1:3]}
    with pytest.raises(
        UserError, match=r"000000000002\.jpg: cannot be read \(Permission denied\), the first of 2 such images; right: "
    ) as told:
        plan(f"task.data_dir={data}", "part=none,llm")
    assert "\n" not in str(told.value)
    assert cell(data, "part=none", "task.on_bad_image=skip").key != whole
    these = jobs("part=none", f"task.data_dir={data}", "task.on_bad_image=skip")
    assert [len(p.id) for p, _ in run(these).values()] == [N - 2]


def test_pictures_to_calibrate_on_have_to_be_readable_though_others_are_skipped(
    data: Path, forbidden: set[Path]
) -> None:
    forbidden.add(images(data, "train2014")[0])
    with pytest.raises(UserError, match=r"000000000101\.jpg: cannot be read"):
        plan(f"task.data_dir={data}", "part=llm", "quant=gptq", "calibration.n_samples=6", "task.on_bad_image=skip")


def replaced(kind: str, path: Path) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling"])
def test_what_is_no_file_is_named_and_never_waited_for(data: Path, kind: str) -> None:
    replaced(kind, images(data)[1])
    with pytest.raises(UserError, match=r"000000000002\.jpg: ", check=lambda error: "\n" not in str(error)):
        plan(f"task.data_dir={data}", "part=none")


def test_a_command_says_it_in_one_line(data: Path, tmp_path: Path) -> None:
    replaced("folder", images(data)[0])
    refused(blip2sweep("part=none", f"task.data_dir={data}", cwd=tmp_path), "000000000001.jpg: ")
    assert not (tmp_path / "outputs").exists()


# ---- remembered


def test_planning_again_opens_no_picture(data: Path, settled: None, opened: list[str], user: Path) -> None:
    before = cell(data, *GPTQ).key
    assert len(opened) == len(set(opened)) == N + 4
    assert cell(data, *GPTQ).key == before
    assert cell(data, *GPTQ, "task.limit=3").key != before
    assert len(opened) == N + 4
    assert len(list((user / "images").iterdir())) == 2  # one entry a folder
    invert(images(data)[0])
    assert cell(data, *GPTQ).key != before
    assert opened[N + 4 :] == [str(images(data)[0])]


def test_a_picture_that_was_just_written_is_read_again(data: Path, opened: list[str], user: Path) -> None:
    for _ in range(2):
        cell(data, "part=none")
    assert len(opened) == 2 * N
    assert not user.exists()


def test_a_write_that_leaves_size_and_time_alone_is_seen(data: Path, settled: None) -> None:
    first, before = images(data)[0], cell(data, "part=none").key
    was, kept = first.stat(), first.read_bytes()
    first.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    os.utime(first, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (first.stat().st_size, first.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert cell(data, "part=none").key != before


def test_a_file_that_changes_while_it_is_read_is_read_again(
    data: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real, grown = images(data)[0], content.hashlib.file_digest, list[int]()

    def growing(file: Any, kind: str) -> Any:
        found = real(file, kind)
        if file.name == str(first) and len(grown) < most:
            grown.append(1)
            first.write_bytes(first.read_bytes() + b"\0")
        return found

    monkeypatch.setattr(content.hashlib, "file_digest", growing)
    most = 2
    seen = cell(data, "part=none").key
    assert cell(data, "part=none").key == seen
    most = 10**6
    first.touch()
    with pytest.raises(UserError, match=r"000000000001\.jpg: cannot be read \(changes while it is read\)"):
        cell(data, "part=none")


def test_links_are_what_they_lead_to(data: Path, tmp_path: Path, settled: None, opened: list[str]) -> None:
    """A link inside the folder that comes to mean another picture, and a folder that is a link to another one."""
    (first, second, third, *_), plain = images(data), cell(data, "part=none").key
    first.rename(first.with_name("one"))
    first.symlink_to("one")
    assert cell(data, "part=none").key == plain
    shutil.copy2(second, third)
    os.utime(third, ns=(0, 0))
    os.utime(first.with_name("one"), ns=(0, 0))
    before = cell(data, "part=none").key
    first.unlink()
    first.symlink_to(third.name)
    assert cell(data, "part=none").key != before
    shutil.copytree(data, tmp_path / "other", symlinks=True)
    link = tmp_path / "link"
    link.symlink_to(data)
    before = cell(link, "part=none").key
    invert(images(tmp_path / "other")[1])
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert cell(link, "part=none").key != before


def entries(user: Path) -> list[Path]:
    return sorted((user / "images").glob("*.entry"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "words", "folder"])
def test_a_damaged_memory_is_none(data: Path, settled: None, opened: list[str], user: Path, damage: str) -> None:
    before, (entry,) = cell(data, "part=none").key, (*entries(user),) if cell(data, "part=none") else ()
    kept = entry.read_bytes()
    at = kept.rindex(b'"]') - 3  # in a digest
    changed = {
        "flip": kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :],
        "cut": kept[:-9],
        "empty": b"",
        "words": b"?",
    }
    entry.unlink()
    if damage == "folder":
        entry.mkdir()
    else:
        entry.write_bytes(changed[damage])
    assert cell(data, "part=none").key == before
    assert len(opened) == 2 * N
    assert damage == "folder" or entry.read_bytes() == kept


@pytest.mark.parametrize(
    "told", [[], "text", {"COCO_val2014_000000000001.jpg": [1, 2]}, {"COCO_val2014_000000000001.jpg": 3}]
)
def test_a_memory_of_another_form_is_none(data: Path, settled: None, user: Path, told: Any) -> None:
    before, (entry,) = cell(data, "part=none").key, entries(user)
    Store(user / "images", 10**6).put(entry.stem, json.dumps(told).encode())
    assert cell(data, "part=none").key == before


@pytest.mark.parametrize("place", ["file", "nowhere", "full"])
def test_a_cache_that_cannot_be_written_stops_nothing(
    data: Path,
    tmp_path: Path,
    settled: None,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    place: str,
) -> None:
    before = cell(data, "part=none").key
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(
        cache.USER, {"file": str(tmp_path / "file"), "nowhere": "/proc/nowhere", "full": "/dev/full"}[place]
    )
    assert [cell(data, "part=none").key for _ in range(2)] == [before, before]
    assert not [w for w in recwarn if "cache" in str(w.message)]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_what_takes_long_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, terminal: bool
) -> None:
    monkeypatch.setattr(patience, "SECONDS", seconds)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    cell(data, "part=none")
    told = capsys.readouterr()
    assert told.out == ""
    assert ("hashing 6 images, once" in told.err) is (seconds < 0)


def test_where_the_memory_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.USER)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, folder in (("/x/cache", Path("/x/cache/blip2sweep")), ("relative", tmp_path / ".cache/blip2sweep")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache.user_folder() == folder
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache.user_folder() is None
    assert cache.of_user("images") is None


def test_two_runs_at_once_lose_nothing_but_time(data: Path, settled: None, user: Path) -> None:
    """Each writes what it hashed beside what the other has written meanwhile."""
    first, second = (content._Memory() for _ in range(2))
    hashed = [content._hashed(p) for p in images(data)]
    assert first.get(images(data)[0]) is second.get(images(data)[0]) is None  # both have looked
    for memory, i in ((first, 0), (second, 1)):
        memory.put(images(data)[i], hashed[i])
        memory.save()
    third = content._Memory()
    assert [third.get(images(data)[i]) for i in (0, 1, 2)] == [hashed[0], hashed[1], None]


# ---- compared where images are decoded

CHANGED = "images changed between planning and running"


def test_a_worker_refuses_a_folder_that_was_swapped_and_says_which_file(data: Path, settled: None) -> None:
    these = jobs("part=vit", "quant.bits=4", f"task.data_dir={data}")
    kept, want = data.with_name("kept"), run(these)
    shutil.copytree(data, kept)
    for path in images(data)[2:4]:
        invert(path)
    one = TorchBackend({"device": "cpu"})
    one.expect(these)
    for job in these:
        with pytest.raises(UserError, match=f"{CHANGED} .*000000000003.jpg and 1 more.; right: the same command again"):
            one(job)
    shutil.rmtree(data)
    kept.rename(data)
    assert [one(job).predictions for job in these] == [p for p, _ in want.values()]


def test_a_memory_that_a_file_system_without_times_made_false_is_corrected(
    data: Path, settled: None, user: Path
) -> None:
    """Another image of a file system may come to stand at the same place, with the same times and inodes."""
    words = ("part=none", f"task.data_dir={data}")
    truth, (entry,) = jobs(*words)[0]["key"], entries(user)
    store = Store(user / "images", 10**6)
    known = json.loads(store.get(entry.stem) or b"")
    known[images(data)[1].name][4] = "0" * 64
    store.put(entry.stem, json.dumps(known).encode())
    wrong = jobs(*words)
    assert wrong[0]["key"] != truth
    with pytest.raises(UserError, match=rf"{CHANGED} \(.*000000000002.jpg\)"):
        run(wrong)
    assert jobs(*words)[0]["key"] == truth


@pytest.mark.thorough
def test_what_was_made_of_the_wrong_pictures_is_forgotten_though_another_error_came_first(data: Path) -> None:
    """Two batches: the first of other pictures, which leaves states of the ViT; the second cannot be read."""
    these = jobs("part=vit", "blocks=each", "quant.bits=2", f"task.data_dir={data}")[:4]
    want, kept = run(these, batch_size=2), {p: p.read_bytes() for p in images(data)}
    one = TorchBackend({"device": "cpu", "batch_size": 2})
    one.expect(these)
    for path in images(data)[:4]:
        invert(path)
    images(data)[5].write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable image"):
        one(these[0])
    for path, bytes_ in kept.items():
        path.write_bytes(bytes_)
    assert [one(job).predictions for job in these] == [p for p, _ in want.values()]


def test_running_out_of_memory_says_nothing_of_an_image(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these = jobs("part=none", f"task.data_dir={data}", "task.on_bad_image=skip")

    def short(content: bytes) -> Any:
        raise MemoryError

    monkeypatch.setattr("blip2sweep.models.images.decode", short)
    with pytest.raises(MemoryError):
        run(these)


@pytest.mark.parametrize("gone", [False, True])
def test_skipping_bad_images_skips_none_that_was_good_when_planned(data: Path, gone: bool) -> None:
    these = jobs("part=none", f"task.data_dir={data}", "task.on_bad_image=skip")
    one = TorchBackend({"device": "cpu"})
    one.task(these[0])
    images(data)[1].unlink() if gone else images(data)[1].write_bytes(b"nothing")
    with pytest.raises(UserError, match=CHANGED):
        one(these[0])


def test_one_worker_tells_apart_what_was_planned_before_and_after_a_change(data: Path) -> None:
    before, one = jobs("part=none", f"task.data_dir={data}")[0], TorchBackend({"device": "cpu"})
    first = one(before).predictions
    for path in images(data):
        invert(path)
    after = jobs("part=none", f"task.data_dir={data}")[0]
    second = one(after).predictions
    assert first.text != second.text
    assert second == TorchBackend({"device": "cpu"})(after).predictions
    with pytest.raises(UserError, match=CHANGED):
        one(before)


@pytest.mark.parametrize("upstream", ["part", "model"])
def test_calibration_refuses_other_pictures_and_other_words(data: Path, upstream: str) -> None:
    words = (
        f"task.data_dir={data}",
        "part=llm",
        "quant=gptq",
        "calibration.n_samples=6",
        f"calibration.upstream={upstream}",
    )
    job = next(j for j in jobs(*words) if j["calibration"])
    last = images(data, "train2014")[-1]
    kept = last.read_bytes()
    invert(last)
    one = TorchBackend({"device": "cpu"})
    with pytest.raises(UserError, match=CHANGED):
        one(job)
    last.write_bytes(kept)
    assert one(job).predictions.text
    annotations = data / "annotations" / "captions_train2014.json"
    annotations.write_text(annotations.read_text().replace("a ", "the "))
    with pytest.raises(RuntimeError, match="calibration samples of task changed"):
        same_samples(job["calibration"])


def test_annotations_that_changed_are_refused_by_worker_and_scorer(data: Path) -> None:
    job = jobs("part=none", f"task.data_dir={data}")[0]
    annotations = data / "annotations" / "captions_val2014.json"
    annotations.write_text(annotations.read_text().replace("a ", "the "))
    for refuse in (lambda: TorchBackend({"device": "cpu"})(job), lambda: planned_task(job["task"])):
        with pytest.raises(UserError, match=r"its annotations in .* changed since it was planned"):
            refuse()


def test_how_far_activations_moved_is_told_of_the_planned_pictures_alone(data: Path) -> None:
    these = jobs("part=llm", "quant.bits=4", f"task.data_dir={data}")
    job = next(j for j in these if j["key"] != j["baseline"])
    one = TorchBackend({"device": "cpu", "propagation": True})
    assert one(job).artifacts["propagation"]
    invert(images(data)[0])
    with pytest.raises(UserError, match=CHANGED):
        TorchBackend({"device": "cpu", "propagation": True})(job)


def test_a_job_of_an_earlier_version_is_refused(data: Path) -> None:
    job = jobs("part=none", f"task.data_dir={data}")[0]
    job = {**job, "task": {k: v for k, v in job["task"].items() if k != "planned"}}
    with pytest.raises(UserError, match=r"was planned by an earlier version; right: the same command again"):
        TorchBackend({"device": "cpu"})(job)
    with pytest.raises(UserError, match=r"was planned by an earlier version; right: the same command again"):
        same_samples({"name": "task", "fingerprint": "0"})


def test_samples_that_are_a_part_hold_what_was_planned_of_all(data: Path) -> None:
    whole = cell(data, "part=none").task
    planned = replace(whole, planned=whole.content)
    part = planned.part(planned.samples[:2])
    assert part.planned == content.images_digest(part.images) != whole.content
    invert(images(data)[-1])
    with pytest.raises(UserError, match=CHANGED):
        planned.part(planned.samples[:2])


# ---- in the table


def test_rows_of_other_pictures_stand_apart(data: Path, tmp_path: Path) -> None:
    cells = [cell(data, "part=none")]
    for path in images(data):
        invert(path)
    build_planned(tmp_path / "outputs", [*cells, cell(data, "part=none")], lambda job: 0.0)
    table = pd.read_parquet(tmp_path / "outputs" / "table.parquet")
    assert len(table) == table["data"].nunique() == table["data_images"].nunique() == 2
    with pytest.raises(UserError, match="cells of 2 kinds of data are not compared"):
        comparable(table)


def test_cells_calibrated_on_other_pictures_are_no_points_of_one_line(data: Path, tmp_path: Path) -> None:
    words = ("part=llm", "quant=gptq", "quant.bits=8,4", "calibration.n_samples=4", "calibration.seed=0,1")
    cells = {c.key: c for c in plan(f"task.data_dir={data}", *words).cells.values()}
    one = {c.key for c in cells.values() if not c.recipe.empty}
    for path in images(data, "train2014"):
        invert(path)
    cells |= {c.key: c for c in plan(f"task.data_dir={data}", *words).cells.values()}
    build_planned(tmp_path, cells.values(), lambda job: 0.1)
    rows = comparable(pd.read_parquet(tmp_path / "table.parquet"))
    rows = rows[rows["parts"] != ""]
    settings = {s: set(own["key"]) for s, own in rows.groupby("setting")}
    assert len(settings) == 4  # of which seed is the same data as another seed of the same pictures, nobody can tell
    assert all(keys <= one or not keys & one for keys in settings.values())
