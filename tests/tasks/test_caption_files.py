"""Caption data sets beside COCO: Karpathy's files, nocaps' domains, own files; and every wrong one in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.miniatures import write
from tests.composing import plan
from tests.data_files import edit, load, refused

NAMES = ("coco_caption", "flickr30k_caption", "nocaps", "rsicd_caption")
NOCAPS, FLICKR = "nocaps_val_4500_captions.json", "dataset_flickr30k.json"
Content = dict[str, Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, NAMES)
    return tmp_path


# ---- what is read


def test_ids_images_and_captions_of_each(data: Path) -> None:
    flickr = load(data, "flickr30k_caption").samples
    assert [s.id for s in flickr] == list(range(20, 32))
    assert flickr[0].image == data / "flickr30k_caption/flickr30k-images" / f"{1000092795 + 97 * 20}.jpg"
    coco = load(data, "coco_caption").samples
    assert [s.id for s in coco] == [1000 + 7 * i for i in range(22, 34)]
    assert [len(s.references) for s in coco] == [5] * 11 + [6]
    nocaps = load(data, "nocaps").samples
    assert (nocaps[0].id, nocaps[0].image.name, len(nocaps[0].references)) == (0, "0013ea2087020901.jpg", 10)
    assert [s.details["domain"] for s in nocaps[:4]] == ["in-domain", "near-domain", "near-domain", "out-domain"]


def test_copies_of_a_sentence_stay(data: Path) -> None:
    samples = load(data, "rsicd_caption").samples
    assert {len(s.references) for s in samples} == {5}
    assert {len(set(s.references)) for s in samples} == {1, 3, 5}


def test_splits_have_their_own_names_or_karpathys(data: Path) -> None:
    plain, prefixed = (load(data, "flickr30k_caption", split=s).fingerprint for s in ("val", "karpathy_val"))
    assert plain == prefixed != load(data, "flickr30k_caption", split="train").fingerprint


def test_of_nocaps_one_domain_or_none_is_read(data: Path) -> None:
    whole = load(data, "nocaps")
    out = load(data, "nocaps", domain="out-domain", limit=3)
    assert [s.id for s in out.samples] == [s.id for s in whole.samples if s.details["domain"] == "out-domain"][:3]
    assert [m for m in out.rules.scores(out) if "domain" in m] == ["cider_out_domain"]
    plain = load(data, "nocaps", domain=None)
    assert not any(s.details for s in plain.samples)
    assert not any("domain" in m for m in plain.rules.scores(plain))


def test_own_files_by_name(data: Path) -> None:
    folder = data / "flickr30k_caption"
    (folder / FLICKR).rename(folder / "own.json")
    (folder / "flickr30k-images").rename(folder / "pictures")
    before = load(data, "flickr30k_caption", annotations="own.json", images="pictures")
    (folder / "annotations").mkdir()
    (folder / "own.json").rename(folder / "annotations" / "own.json")
    after = load(data, "flickr30k_caption", annotations="own.json", images=str(folder / "pictures"))
    assert before.fingerprint == after.fingerprint
    (folder / "annotations" / "own.json").rename(folder / FLICKR)
    assert load(data, "flickr30k_caption", annotations=None, images="pictures").fingerprint == before.fingerprint


def test_a_folder_of_images_keeps_what_the_file_names_below_it(data: Path) -> None:
    folder = data / "coco_caption"
    (folder / "images").mkdir()
    (folder / "val2014").rename(folder / "images" / "val2014")
    assert load(data, "coco_caption", images="images").samples[0].image.parent == folder / "images" / "val2014"
    (folder / "images" / "val2014").rename(folder / "flat")
    assert load(data, "coco_caption", images="flat").samples[0].image.parent == folder / "flat"


def test_a_cell_is_scored_with_and_without_a_tokenizer_under_one_key(data: Path) -> None:
    words = ("task=rsicd_caption", f"task.data_dir={data}/rsicd_caption", "part=none")
    both = plan(*words, "task.tokenizer=[ptb,none]")
    assert both.keys == plan(*words, "task.tokenizer=ptb").keys == plan(*words).keys
    (cell,) = both.cells.values()
    assert cell.task.rules.scores(cell.task)[6::7] == ("cider", "cider_none")
    assert (cell.task.main_metric, next(iter(plan(*words).cells.values())).task.main_metric) == ("cider", "cider_none")


# ---- calibration


def test_a_karpathy_file_calibrates_on_its_training_split(data: Path) -> None:
    words = ("task=flickr30k_caption", f"task.data_dir={data}/flickr30k_caption", "part=llm", "quant=gptq")
    (cell,) = (c for c in plan(*words, "calibration.n_samples=16").cells.values() if c.calibration)
    assert cell.calibration is not None
    assert {s.id for s in cell.calibration.data.samples} == set(range(16))


def test_equal_ids_of_two_data_sets_are_no_shared_images(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP2SWEEP_DATA", str(data))
    edit(
        data / "coco_caption/annotations/dataset_coco.json", lambda c: c["images"][0].update(cocoid=3)
    )  # nocaps has it
    (data / "coco_caption").rename(data / "coco")
    words = ("task=nocaps", "part=llm", "quant=gptq", "calibration=coco", "calibration.n_samples=16")
    assert plan(*words).keys
    refused(lambda: plan("task=nocaps", "part=llm", "quant=gptq"), "task nocaps names no train_split")


# ---- what is refused


def test_the_wrong_file_for_a_task_is_one_line(data: Path) -> None:
    coco, own = data / "coco_caption/annotations/captions_val2014.json", data / "nocaps" / NOCAPS
    own.write_text(coco.read_text())
    refused(
        lambda: load(data, "nocaps"),
        "no image has a 'domain', so this is not nocaps; right: the official file, from nocaps.org",
    )
    for name, file in (("flickr30k_caption", FLICKR), ("rsicd_caption", "dataset_rsicd.json")):
        (data / name / file).write_text(coco.read_text())
        refused(
            lambda name=name: load(data, name),
            f"{file}: no image has 'sentences', so this is no Karpathy file; right: the official file",
        )
    refused(
        lambda: load(data, "coco_caption", annotations="captions_val2014.json"),
        "captions_val2014.json: no image has 'sentences'",
    )
    refused(
        lambda: load(data, "nocaps", annotations="nocap.json"),
        "task.annotations=nocap.json: no such file nocap.json in",
    )


def test_unknown_splits_and_domains_name_what_there_is(data: Path) -> None:
    refused(
        lambda: load(data, "flickr30k_caption", split="tets"),
        "no image of",
    )
    refused(lambda: load(data, "flickr30k_caption", split="tets"), "did you mean 'test'? known: test, train, val")
    refused(lambda: load(data, "nocaps", domain="outdomain"), "task.domain=outdomain: did you mean 'out-domain'?")
    refused(
        lambda: load(data, "flickr30k_caption", domain="all"),
        "task.domain=all: kind caption and format karpathy have tokenizer",
    )
    refused(
        lambda: load(data, "nocaps", tokenizer="ptbb"),
        "task.tokenizer=ptbb: kind caption does not score so; right: one or several of ptb, none",
    )


def test_all_mistakes_of_a_karpathy_file_are_told(data: Path) -> None:
    def spoil(content: Content) -> None:
        images = content["images"]
        images[1]["imgid"] = images[0]["imgid"]
        images[2]["sentences"] = []
        del images[3]["filename"]
        images[4]["sentences"] = [{"raw": " "}]

    edit(data / "flickr30k_caption" / FLICKR, spoil)
    refused(
        lambda: load(data, "flickr30k_caption"),
        "images[2] (imgid 2): 'sentences' is an empty list",
        "images[3] (imgid 3): has no 'filename'",
        "images[1] (imgid 0): stands twice, first as images[0]",
        "images[4] (imgid 4): no caption of this image has a word",
    )


def test_all_mistakes_of_nocaps_are_told(data: Path) -> None:
    def spoil(content: Content) -> None:
        content["images"][1]["id"] = 0
        content["images"][2]["domain"] = "far-domain"
        del content["images"][3]["domain"]

    edit(data / "nocaps" / NOCAPS, spoil)
    refused(
        lambda: load(data, "nocaps"),
        "images[1] (id 0): stands twice, first as images[0]",
        "images[3] (id 3): has no 'domain'",
        "images[2] (id 2): 'domain' is 'far-domain'; right: in-domain, near-domain, out-domain",
    )


def test_images_without_captions_and_captions_without_images(data: Path) -> None:
    path = data / "nocaps" / NOCAPS
    edit(path, lambda c: c.update(annotations=c["annotations"][20:]))
    refused(lambda: load(data, "nocaps"), "images[0] (id 0): has no caption", "images[1] (id 1): has no caption")
    edit(
        path,
        lambda c: c.update(images=c["images"][2:], annotations=[*c["annotations"], {"image_id": 99, "caption": "a"}]),
    )
    refused(lambda: load(data, "nocaps"), "(image_id 99): names no image of the list 'images'")
    edit(path, lambda c: c.pop("annotations"))
    refused(lambda: load(data, "nocaps"), "no list 'annotations'; right: the official file, from nocaps.org")


def test_missing_images_are_counted(data: Path) -> None:
    for name, folder, count in (("flickr30k_caption", "flickr30k-images", 12), ("nocaps", "val", 16)):
        images = sorted((data / name / folder).iterdir())
        images[-1].unlink()
        refused(lambda name=name: load(data, name), f"no such image (1 of {count} named by")
        refused(lambda name=name: load(data, name, images="gone"), f"no such image ({count} of {count} named by")
    refused(lambda: load(data, "nocaps", images="../x"), "task.images=../x: outside of the data folder")


def test_a_folder_with_several_karpathy_files_needs_a_name(data: Path) -> None:
    folder = data / "flickr30k_caption"
    (folder / "dataset_flickr8k.json").write_text((folder / FLICKR).read_text())
    assert load(data, "flickr30k_caption").samples
    refused(
        lambda: load(data, "flickr30k_caption", annotations=None),
        "one file dataset_*.json is wanted, there is dataset_flickr30k.json, dataset_flickr8k.json; right: task.annotations=NAME",
    )
