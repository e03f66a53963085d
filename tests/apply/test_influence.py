"""The influence of blocks: against a plain forward of transformers, in plans, as a file, as a verb."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2sweep.apply.influence import measure
from blip2sweep.commands.influence import print_influence
from blip2sweep.config.standalone import compose_cell
from blip2sweep.errors import UserError
from blip2sweep.models import checkpoints
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded, load
from blip2sweep.planning import influence as planned
from tests.apply.calibration.test_calibration import samples
from tests.checkpoints import TINY, t5_config, tiny_config, write_t5
from tests.command_line import blip2sweep
from tests.composing import plan

DROP = "drop_blocks=vit:2@influence+qformer:1@influence"
VALUES = {"vit": [0.5, 0.1, 0.3, 0.1, 0.9, 0.8], "qformer": [3, 2, 1, 0.5, 4, 5], "llm": [6, 5, 4, 3, 2, 1]}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


def test_it_is_one_less_the_cosine_of_what_transformers_hands_on(opt: Loaded) -> None:
    chosen = samples(n=6)
    found = measure(opt, chosen, ["vit", "qformer", "llm"])
    assert {part: len(x) for part, x in found.items()} == {"vit": 6, "qformer": 6, "llm": 6}
    rows = load_pixels(opt, chosen.data).rows
    assert rows is not None
    with torch.inference_mode():
        states = opt.model.vision_model(pixel_values=rows.values, output_hidden_states=True).hidden_states
    for value, before, after in zip(found["vit"], states, states[1:], strict=False):
        assert value == pytest.approx(_turned(before, after), abs=1e-6)


def _turned(before: Tensor, after: Tensor) -> float:
    x, y = before.double(), after.double()
    return float((1 - (x * y).sum(-1) / x.norm(dim=-1) / y.norm(dim=-1)).mean())


def test_a_block_that_hands_on_what_it_gets_has_none(opt: Loaded) -> None:
    from blip2sweep.apply.patch import Patch
    from blip2sweep.recipe import resolve_recipe

    config = {"part": "none", "blocks": "all", "layers": "all", "quant": {}, "drop_blocks": "vit:3+llm:1"}
    with Patch(opt).apply(resolve_recipe(config, opt.anatomy)):
        found = measure(opt, samples(n=4), ["vit", "llm"])
    assert [i for i, x in enumerate(found["vit"]) if abs(x) < 1e-6] == [3]
    assert [i for i, x in enumerate(found["llm"]) if abs(x) < 1e-6] == [1]


@pytest.mark.thorough
def test_both_stacks_of_t5_are_measured(tmp_path: Path) -> None:
    t5 = load(t5_config(), write_t5(tmp_path))
    (found,) = measure(t5, samples("vqa", n=4), ["llm"]).values()
    assert len(found) == 4
    assert all(0 < x < 2 for x in found)


# ---- planned


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The questions that a child process would answer."""
    found: list[object] = []

    def ask(module: str, folder: Path, question: dict[str, object], *rest: object) -> object:
        found.append(question)
        return {part: VALUES[part] for part in question["parts"]}  # type: ignore[attr-defined]

    monkeypatch.setattr(planned, "ask", ask)
    return found


@pytest.mark.thorough
def test_it_is_measured_once_and_a_plan_has_numbers(asked: list[object], tmp_path: Path) -> None:
    words = [DROP, "part=none", f"output_dir={tmp_path}"]
    made = [plan(*words, output_dir=tmp_path) for _ in range(2)]
    assert made[0].keys == made[1].keys == plan("drop_blocks=vit:1+3+qformer:3", "part=none").keys  # ties: the first
    assert len(asked) == 1
    (file,) = (tmp_path / "influence").iterdir()
    told = json.loads(file.read_text())
    assert (told["model"], told["samples"], told["parts"]) == ("tiny", 128, VALUES)
    assert plan(*words, "calibration.n_samples=16", output_dir=tmp_path).keys == made[0].keys
    assert len(asked) == 2
    assert len(list((tmp_path / "influence").iterdir())) == 2


def test_bits_do_not_measure_again(asked: list[object], tmp_path: Path) -> None:
    made = plan(DROP, "part=all", "quant.bits=2,4", f"output_dir={tmp_path}")
    assert (len(set(made.keys)), len(asked)) == (2, 1)


def test_a_damaged_file_is_said_in_one_line(asked: list[object], tmp_path: Path) -> None:
    plan(DROP, "part=none", f"output_dir={tmp_path}")
    (file,) = (tmp_path / "influence").iterdir()
    for text in (file.read_text()[:-40], '{"parts": {"vit": [1]}}', '{"parts": {"vit": "x"}}'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"is damaged; right: the same command without that file"):
            plan(DROP, "part=none", f"output_dir={tmp_path}")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["drop_blocks=vit:6@influence"], "'6' of 6 blocks cannot be dropped; right: a number from 1 to 5"),
        (["drop_blocks=vit:2@influenze"], "no order of blocks; .*influence"),
        (["drop_blocks=vit:2@last", "calibration.n_samples=8"], "used by no cell"),
        (["drop_blocks=vit:2@influence", "calibration.upstream=full"], "used by no cell"),
        (["drop_blocks=vit:2@influence", "calibration=text"], "has no images, which vit needs"),
        (["drop_blocks=vit:2@influence", "calibration.n_samples=100000"], "right: at most as many"),
    ],
)
def test_what_is_wrong_is_one_line(asked: list[object], tmp_path: Path, words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match, check=lambda e: "\n" not in str(e)):
        plan(*words, "part=none", f"output_dir={tmp_path}")


@pytest.mark.parametrize("text", ["vit:2@influence+llm:99@influence", "vit:1@influence+llm:all"])
def test_what_is_wrong_is_told_before_anything_is_measured(asked: list[object], tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="right: "):
        plan(f"drop_blocks={text}", "part=none", f"output_dir={tmp_path}")
    assert asked == []
    assert not (tmp_path / "influence").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["part=none", "drop_blocks=foo"], "drop_blocks=foo: 'foo' names no blocks of a part"),
        (["drop_blocks=vit:99@influence"], "'99' of 6 blocks cannot be dropped"),
        (["part=vitt"], "no part 'vitt'"),
    ],
)
def test_the_verb_refuses_what_planning_refuses(
    asked: list[object], tmp_path: Path, words: list[str], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        list(print_influence(compose_cell(words, None, {"output_dir": str(tmp_path)})))
    assert asked == []


@pytest.mark.thorough
def test_a_child_process_measures_it_and_a_verb_prints_it(opt: Loaded, tmp_path: Path) -> None:
    ran = blip2sweep("influence", "calibration.n_samples=8", cwd=tmp_path)
    assert ran.code == 0, ran
    told = " ".join(ran.err.split())
    assert "measuring the influence of the blocks of tiny on 8 calibration samples, once" in told
    assert "recover may train on their images" in told
    (file,) = (tmp_path / "outputs" / "influence").iterdir()
    found = json.loads(file.read_text())["parts"]
    order = sorted(range(6), key=lambda i: found["vit"][i])
    assert f"vit: {' '.join(f'{x:.4f}' for x in found['vit'])} | {','.join(map(str, order))}" in ran.out
    again = blip2sweep("plan", "drop_blocks=vit:2@influence", "part=none", "calibration.n_samples=8", cwd=tmp_path)
    assert again.code == 0, again
    assert f"vit:{'-'.join(map(str, sorted(order[:2])))}=dropped" in again.out.replace("+", "-")
    assert "measuring" not in again.err


def test_a_child_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "RuntimeError: no room on the device")
    plan("drop_blocks=vit:1", "part=none")  # the checkpoint is checked by another child
    monkeypatch.setattr(checkpoints.child.subprocess, "run", lambda *args, **given: broken)
    with pytest.raises(UserError, match=r"ended with code 1 \(RuntimeError: no room", check=lambda e: "\n" not in str(e)):  # fmt: skip
        plan(DROP, "part=none", f"output_dir={tmp_path}")
    assert not (tmp_path / "influence").exists()
