"""`model.path=FOLDER` alone: the anatomy of a folder comes from its config.json and from the model of conf/model that fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.config.grid import expand
from blip2sweep.models import fitting, own_config
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.config_file import read_config
from blip2sweep.models.own_folder import folder_name
from blip2sweep.models.shipped import model_anatomy, model_config
from blip2sweep.wire.model_section import ModelSection
from tests.checkpoints import TINY
from tests.composing import composer
from tests.models.own_folders import CLIP, LLAVA, T5, Write, asked_here, section, write

pytestmark = pytest.mark.thorough

__all__ = ["asked_here", "write"]  # fixtures


def test_a_llava_of_other_sizes(write: Write) -> None:
    path = write(LLAVA)
    found = section(path)
    assert (found["name"], found["dtype"], found.get("path")) == ("mine", "bfloat16", path)
    assert found.get("chat") == model_config("llava-1.5-7b").get("chat")
    parts = anatomy(found).parts
    assert [p.n_blocks for p in parts.values()] == [4, 1, 2]  # the fifth vision block is unread
    sizes = {x.name: (x.out_features, x.in_features) for p in parts.values() for x in p.linears}
    assert sizes["mlp.fc1"] == (64, 48)
    assert sizes["linear_1"] == (24, 48)
    assert sizes["self_attn.k_proj"] == (24, 24)  # the class of the config fills in heads and their width
    config, wrong = read_config(Path(path), found)
    assert config is not None
    assert not wrong


def test_what_is_typed_stands_over_the_folder(write: Write) -> None:
    found = section(write(LLAVA), "model.dtype=float16", "model.chat=template", "model.name=named")
    assert (found["name"], found["dtype"], found.get("chat")) == ("named", "float16", "template")


@pytest.mark.parametrize(("layer", "n"), [(-1, 0), (-2, 1), (-3, 2), (4, 1), (5, 0), ([-2, -4], 1), ([1, 2], 3)])
def test_unread_blocks_follow_the_state_that_is_read(write: Write, layer: int | list[int], n: int) -> None:
    assert fitting.unread(layer, 5) == n
    (vision,) = anatomy(section(write({**LLAVA, "vision_feature_layer": layer}))).role("vision")
    assert (vision.n_blocks, vision.stacks[0].unread) == (5 - n, n)


@pytest.mark.parametrize("name", ["internvl3-1b", "llava-onevision-0.5b"])
def test_models_that_read_the_last_state_have_folders_that_do_not(write: Write, name: str) -> None:
    config = model_config(name)["config"]
    own = [section(write({**config, "vision_feature_layer": i}, f"of{i}")) for i in (-1, -2)]
    assert [anatomy(one).role("vision")[0].stacks[0].unread for one in own] == [0, 1]


def test_a_model_whose_yaml_does_not_say_which_state_is_read() -> None:
    shipped = model_config("internvl3-1b")
    config = {k: v for k, v in shipped["config"].items() if k != "vision_feature_layer"}
    base = ModelSection(**{**shipped, "config": config})
    full = {**config, "vision_feature_layer": -2}
    own = own_config.OwnConfig(full, full, {})
    _, parts = fitting.parts(Path("mine"), own, {"mine": base}, {"mine": base})
    assert parts["vision"]["stacks"]["blocks"].get("unread") == 1
    assert fitting.sizes(base, parts, own)["vision_feature_layer"] == -2


@pytest.mark.parametrize(("heads", "folded"), [(4, True), (2, False)])
def test_values_with_fewer_heads_absorb_no_scale(write: Write, heads: int, folded: bool) -> None:
    """Whatever model the parts are lent from, `v_proj` is folded with `o_proj` only where their channels are the same."""
    text = {"num_attention_heads": 4, "num_key_value_heads": heads}
    language = anatomy(section(write(LLAVA, text_config=text))).parts["language"]
    assert any(f.before == "self_attn.v_proj" for f in language.folds) == folded
    assert {f.before for f in language.folds} >= {"input_layernorm", "post_attention_layernorm", "mlp.up_proj"}


@pytest.mark.parametrize("tie", [True, False])
def test_ties_follow_the_config(write: Write, tie: bool) -> None:
    (group,) = section(write({**LLAVA, "tie_word_embeddings": tie})).get("tied") or [[]]
    assert ("lm_head.weight" in group) == tie
    tiny = json.loads((TINY / "config.json").read_text())
    opt = section(write(tiny, "opt", text_config={"tie_word_embeddings": tie, "num_hidden_layers": 4}))
    assert any("lm_head" in name for names in opt.get("tied") or () for name in names) == tie


def test_a_blip_2_with_t5_or_of_other_depth(write: Write) -> None:
    tiny = json.loads((TINY / "config.json").read_text())
    t5 = section(write({**tiny, "text_config": T5}, "t5"))
    assert t5["family"] == "t5"
    assert [s.n for s in anatomy(t5).parts["llm"].stacks] == [2, 3]
    assert t5["config"]["text_config"]["tie_word_embeddings"] is False  # type: ignore[index]
    deep = anatomy(section(write(tiny, "deep", vision_config={"num_hidden_layers": 9})))
    assert [p.n_blocks for p in deep.parts.values()] == [9, 6, 6]


@pytest.mark.parametrize(
    ("cls", "model"), [("BlipForQuestionAnswering", "blip_vqa"), ("BlipForConditionalGeneration", "blip_caption")]
)
def test_classes_of_one_type(write: Write, cls: str, model: str) -> None:
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "encoder_hidden_size": 48,
    }
    vision = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    path = write({"model_type": "blip", "architectures": [cls], "text_config": text, "vision_config": vision})
    found = section(path)
    assert found.get("architecture") == model
    assert anatomy(found).role("vision")[0].n_blocks == 3


def test_instructblip_and_retrieval(write: Write) -> None:
    tiny = json.loads((TINY / "config.json").read_text())
    asking = {**tiny, "model_type": "instructblip", "architectures": ["InstructBlipForConditionalGeneration"]}
    found = section(write({**asking, "text_config": T5}, "asking"))
    assert (found.get("architecture"), found["family"]) == ("instructblip", "t5")
    assert found["parts"]["qformer"]["layers"]["mlp"]["intermediate.dense"]["unread"] == 1
    matching = section(write({**tiny, "architectures": ["Blip2ForImageTextRetrieval"]}, "matching"))
    assert matching.get("architecture") == model_config("blip2-itm-vit-g").get("architecture")


def test_a_tower_and_a_language_model_of_other_models(write: Write) -> None:
    """LLaVA with the SigLIP tower and the Qwen2 that conf/model has behind other connectors."""
    qwen = {**LLAVA["text_config"], "model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 2}
    path = write({**LLAVA, "text_config": qwen, "vision_config": {**CLIP, "model_type": "siglip_vision_model"}})
    found = section(path)
    layer = {x.name: x for x in anatomy(found).parts["language"].linears}["self_attn.k_proj"]
    assert (layer.out_features, layer.in_features, layer.bias) == (12, 24, True)
    assert not read_config(Path(path), found)[1]


QWEN = {"model_type": "qwen2", "num_key_value_heads": 3}
LLAMA_3 = {"vocab_size": 128320}


@pytest.mark.parametrize("text", [QWEN, LLAMA_3], ids=["kind", "vocabulary"])
@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_another_language_model_is_asked_as_its_own_template_says(
    write: Write, text: Mapping[str, Any], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(LLAVA, text_config=text)
    (Path(path) / file).write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert section(path).get("chat") == "template"
    assert f"{path}: another language model than that of llava-1.5-" in capsys.readouterr().err


def test_the_chat_of_the_model_that_fits(write: Write) -> None:
    """It stays for its own language model, whatever template the folder has; another kind cannot be asked in its words."""
    vicuna = write(LLAVA, "vicuna", text_config={"vocab_size": 32064})
    (Path(vicuna) / "chat_template.jinja").write_text("{{ messages }}")
    assert section(vicuna).get("chat") == model_config("llava-1.5-7b").get("chat")
    assert section(write(LLAVA, "qwen", text_config=QWEN)).get("chat") == "template"
    assert section(write(LLAVA, "said", text_config=QWEN), "model.chat='{image}{}'").get("chat") == "{image}{}"


def test_the_sizes_of_flan_t5_xxl(write: Write) -> None:
    known = model_config("blip2-flan-t5-xxl")
    path = write({**known["config"], "model_type": "blip-2", "dtype": "float32"}, "fine-tuned")
    found = section(path)
    assert anatomy(found).parts == model_anatomy("blip2-flan-t5-xxl").parts
    assert (found["name"], found["dtype"]) == ("fine-tuned", "float32")


def test_the_fields_of_a_flat_config(write: Write) -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 151936}  # fmt: skip
    vision = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 64}
    path = write({"model_type": "qwen2_5_vl", "tie_word_embeddings": True, "vision_config": vision, **text})
    found = section(path)
    layer = anatomy(found).parts["language"].linears[0]
    assert (layer.out_features, layer.in_features) == (64, 64)
    assert not read_config(Path(path), found)[1]


def test_a_copy_of_the_default_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_config, "ask", None)
    copy = shutil.copytree(TINY, tmp_path / "copy")
    assert section(str(copy)) == {**composer().config(())["model"], "path": str(copy)}


def test_a_named_model_keeps_its_sizes(write: Write) -> None:
    path = write(LLAVA)
    assert section(path, "model=tiny") == {**composer().config(())["model"], "path": path}


def test_several_folders_are_a_sweep(write: Write) -> None:
    paths = [write(LLAVA, "a"), write(LLAVA, "b", vision_config={"num_hidden_layers": 3})]
    made = composer()
    jobs = expand([f"model.path={','.join(paths)}", "part=vision", "blocks=each"], made)
    names = [made.config(job)["model"]["name"] for job in jobs]
    assert names == ["a"] * 4 + ["b"] * 2


def test_names() -> None:
    snapshot = "/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/abc"
    assert folder_name(Path(snapshot)) == "llava-1.5-7b-hf"
    assert folder_name(Path("a/b/")) == "b"


def test_a_folder_with_the_name_of_a_known_model(write: Write) -> None:
    assert section(write(LLAVA, "x/llava-1.5-7b"))["name"] == "x/llava-1.5-7b"
    known = {**model_config("llava-1.5-7b")["config"], "dtype": "bfloat16"}
    assert section(write(known, "y/llava-1.5-7b"))["name"] == "llava-1.5-7b"
