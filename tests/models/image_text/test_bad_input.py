"""What planning says of checkpoints and configs that are no image-text models, or do not fit. One line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import LlavaForConditionalGeneration

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.architecture import architecture, implementation
from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.image_text import features
from blip2sweep.models.image_text.model import check_features
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import load
from blip2sweep.planning.cell_builder import _check_texts
from blip2sweep.planning.model import _check_library, planned_model
from blip2sweep.tasks import Generation, load_task
from tests.checkpoints import conf, edit
from tests.models.image_text.made import FIRST, Made
from tests.models.image_text.test_cells import planned
from tests.ragged_pictures import scenes


@pytest.fixture
def spoiled(small: Callable[[str], Made], tmp_path: Path) -> Callable[..., str]:
    """The mistakes of a copy of a small checkpoint after a change of its folder, as one text."""

    def one(name: str, change: Callable[[Path], object], **section: Any) -> str:
        m = small(name)
        folder = Path(shutil.copytree(m.section["path"], tmp_path / name))
        change(folder)
        found = mistakes(inspect(folder), {**m.section, **section})
        assert all(x.isprintable() for x in found)
        return "; ".join(found)

    return one


def of_processor(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "processor_config.json", **fields)


def of_images(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "preprocessor_config.json", **fields)


def of_config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **fields)


@pytest.mark.parametrize("name", FIRST)
def test_a_whole_folder_has_no_mistakes(name: str, small: Callable[[str], Made]) -> None:
    m = small(name)
    assert mistakes(inspect(Path(m.section["path"]), m.section["tied"]), m.section) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("llava-1.5-7b", of_processor(patch_size=16), "4 placeholders for a picture of which the model makes 16"),
        ("llava-v1.6-mistral-7b", of_processor(patch_size=16), "placeholders for a picture of which the model makes"),
        ("llava-onevision-0.5b", of_images(image_grid_pinpoints=[[32, 32]]), "the model fails on what the processor makes"),
        ("smolvlm-256m", of_processor(image_seq_len=5), "15 placeholders for a picture of which the model makes 12"),
        ("internvl3-1b", of_processor(image_seq_length=256), "placeholders for a picture of which the model makes"),
        ("gemma-3-4b", of_processor(image_seq_length=256), "256 placeholders for a picture of which the model makes 4"),
        ("paligemma-3b-224", of_images(image_seq_length=256), "256 placeholders for a picture"),
        ("qwen2.5-vl-3b", of_images(merge_size=1), "the model fails on what the processor makes of a picture"),
        ("qwen3-vl-2b", of_images(patch_size=4), "the model fails on what the processor makes of a picture"),
    ],
)  # fmt: skip
def test_placeholders_that_do_not_fit(
    name: str, change: Callable[[Path], object], said: str, spoiled: Callable[..., str]
) -> None:
    assert said in spoiled(name, change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "chat_template.jinja").unlink(), "the chat template is missing or fails"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}"), "leaves the picture out"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "the image processor cannot be read"),
        (of_config(model_type="llama"), "model_type is llama, not qwen3_vl"),
        (of_config(auto_map={"AutoModel": "modeling.Own"}), "auto_map names code of the folder's own (trust_remote_code)"),
        (of_config(image_token_id=7), "image_token_id is 7, which the processor does not write for a picture"),
        (of_config(image_token_id=None), "config.json: transformers cannot read it"),
    ],
)  # fmt: skip
def test_folders_that_are_no_checkpoint_of_the_model(
    change: Callable[[Path], object], said: str, spoiled: Callable[..., str]
) -> None:
    assert said in spoiled("qwen3-vl-2b", change)


@pytest.mark.parametrize("chat", ["USER: {}", "{image}{image}{}", "{image}"])
def test_a_text_around_the_users_has_one_place_for_each(chat: str, spoiled: Callable[..., str]) -> None:
    assert "has not one {image} and one {}" in spoiled("llava-1.5-7b", lambda folder: None, chat=chat)


@pytest.mark.parametrize("name", ["llava-1.5-7b", "smolvlm-256m", "qwen3-vl-2b"])
def test_a_checkpoint_may_say_half_precision(name: str, spoiled: Callable[..., str]) -> None:
    assert spoiled(name, of_config(dtype="bfloat16")) == ""


def test_a_snapshot_without_patch_size_is_completed(spoiled: Callable[..., str]) -> None:
    """LLaVA's before 2024."""

    def older(folder: Path) -> None:
        path = folder / "processor_config.json"
        kept = {"patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"}
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in kept}))

    assert spoiled("llava-1.5-7b", older) == ""


def test_a_chat_template_may_stand_with_the_tokenizer(spoiled: Callable[..., str]) -> None:
    def moved(folder: Path) -> None:
        template = (folder / "chat_template.jinja").rename(folder / "kept").read_text()
        edit(folder / "tokenizer_config.json", chat_template=template)

    assert spoiled("qwen3-vl-2b", moved) == ""


def test_nothing_ends_a_text(spoiled: Callable[..., str]) -> None:
    def endless(folder: Path) -> None:
        (folder / "generation_config.json").unlink()
        text = {**json.loads((folder / "config.json").read_text())["text_config"], "eos_token_id": None}
        edit(folder / "config.json", text_config=text)

    assert spoiled("smolvlm-256m", endless).endswith(
        "; neither generation_config.json nor config.json has an eos_token_id, so nothing would end a text (right: the "
        "number of the token that ends one, in generation_config.json)"
    )


def test_the_text_config_may_say_what_ends_a_text(small: Callable[[str], Made], tmp_path: Path) -> None:
    section = small("llava-1.5-7b").section
    folder = Path(shutil.copytree(section["path"], tmp_path / "copy"))
    (folder / "generation_config.json").unlink()
    assert mistakes(inspect(folder), section) == []
    assert load(section, folder).language.reference_ids(["a"], True)[0][-1] == 2


def test_a_tokenizer_that_joins_prompt_and_answer(spoiled: Callable[..., str]) -> None:
    def joining(folder: Path) -> None:
        rules = json.loads((folder / "tokenizer.json").read_text())
        like = {**rules["added_tokens"][-1], "special": False}
        rules["added_tokens"].append({**like, "id": len(rules["model"]["vocab"]), "content": "t: a"})
        (folder / "tokenizer.json").write_text(json.dumps(rules))

    said = spoiled("qwen3-vl-2b", joining)
    assert "the tokenizer joins the end of the prompt" in said
    assert "right: a chat template, or model.chat, that ends in a special token or a line break" in said


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("llama", "no image-text-to-text model of the installed transformers"),
        ("instructblipvideo", "takes video and text and no pictures"),
        ("internvl_chat", "no image-text-to-text model"),  # known to code of the hub alone
    ],
)
def test_models_that_read_no_pictures(model_type: str, said: str) -> None:
    section = conf("model/llava-1.5-7b")
    with pytest.raises(UserError, match=said):
        implementation({**section, "config": {**section["config"], "model_type": model_type}})


def test_a_config_without_a_tower() -> None:
    section = conf("model/llava-1.5-7b")
    language = {k: v for k, v in section["parts"].items() if k != "vision"}
    with pytest.raises(UserError, match="0 stacks of parts with the role vision"):
        anatomy({**section, "parts": language})


def test_an_adapter_that_nobody_knows() -> None:
    section = {**conf("model/llava-1.5-7b"), "adapter": {"features": "tuple", "beam": 1, "image_token": 3}}
    with pytest.raises(UserError, match=r"adapter.beam: unknown.*adapter.image_token=3.*adapter.features=tuple; right"):
        implementation(section)


def test_texts_that_hold_the_pictures_token(small: Callable[[str], Made], tmp_path: Path) -> None:
    m, data = small("llava-1.5-7b"), scenes(tmp_path / "scenes", 2)
    with pytest.raises(UserError, match=r"generation.prompt='a<image>': holds <image>"):
        planned(m, data, "part=vision generation.prompt='a<image>'")
    task = load_task({**conf("task/shapes_vqa"), "limit": 3})
    asked = replace(task, samples=[replace(s, question="is <image> red?") for s in task.samples])
    with pytest.raises(UserError, match=r"<image> stands for the picture, and the texts of 3 samples hold it"):
        _check_texts(asked, Generation("{}", 1, 4), "<image>")
    with pytest.raises(UserError, match="a text holds <image>, which stands for the picture"):
        m.loaded.language.prompt_ids(["look: <image>"])


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_picture_that_the_processor_does_not_take_is_no_bad_image(
    on_bad_image: str, small: Callable[[str], Made], tmp_path: Path
) -> None:
    m, data = small("qwen3-vl-2b"), scenes(tmp_path / "scenes", 2)
    task = load_task({**conf("task/shapes_caption"), "data_dir": str(data)})
    path = list(task.images.values())[1]
    Image.new("RGB", (900, 2)).save(path)
    with pytest.raises(UserError) as told:
        load_pixels(m.loaded, task, on_bad_image=on_bad_image)
    said = str(told.value)
    assert said.startswith(f"{path}: the model's processor fails on this image (ValueError: absolute aspect ratio")
    assert said.endswith("; right: a task without it, or another model")
    assert said.isprintable()


BLIND = (
    "llava takes no features of pictures (mm_encoder_outputs), so it would write without having seen them; "
    "right: transformers 5.18 or newer"
)


def test_a_forward_pass_that_would_ignore_pictures_is_refused() -> None:
    """As those of transformers 5.17, whose keywords swallow what they do not know."""

    class Older(LlavaForConditionalGeneration):
        def forward(self, input_ids: object = None, **kwargs: object) -> None: ...  # type: ignore[override]

    check_features(LlavaForConditionalGeneration, "llava")
    with pytest.raises(UserError) as told:
        check_features(Older, "llava")
    assert str(told.value).endswith(f": {BLIND}")


@pytest.mark.parametrize("release", ["5.17.0", "5.17.3", "4.57.1", "5.18.0", "5.18.0.dev0", "6.0"])
def test_planning_refuses_them_in_the_same_words(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "version", lambda name: release)
    section = conf("model/llava-1.5-7b")
    if release in ("5.18.0", "5.18.0.dev0", "6.0"):
        architecture(section).check_library(section)  # type: ignore[attr-defined]
        return
    with pytest.raises(UserError) as told:
        planned_model(section)
    assert str(told.value) == f"transformers {release}: {BLIND}"


def test_blip2_is_planned_with_an_older_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "version", lambda name: "5.17.0")
    _check_library(conf("model/tiny"))
