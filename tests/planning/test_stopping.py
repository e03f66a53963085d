"""Which cells may stop before they have seen all images, what is done for whom, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blip2sweep.commands.run import settings
from blip2sweep.errors import UserError
from blip2sweep.metrics.stopping import Rule
from blip2sweep.planning.packs import read_pack, write_packs
from blip2sweep.planning.plan import Plan, make_plan
from blip2sweep.planning.stopping import rule_of, why_whole
from blip2sweep.planning.sweep import new_sweep
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.stopped import asked, with_earlier
from tests.composing import jobs, plan

GRID = ("task=shapes_vqa", "part=vit", "quant.bits=2,3")
KNOWN = (*GRID, "evaluation.stop=known")


# ---- the rule


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({}, None),
        ({"stop": None}, None),
        ({"stop": "none"}, None),
        ({"stop": "known"}, Rule("known", 0.05)),
        ({"stop": "known", "half_width": "3%"}, Rule("known", 0.03)),
        ({"stop": "known", "half_width": " 2.5 %"}, Rule("known", 0.025)),
        ({"stop": "verdict", "tolerance": 0.02}, Rule("verdict", 0.02)),
    ],
)
def test_a_rule_is_read(section: dict[str, object], rule: Rule | None) -> None:
    assert rule_of({"evaluation": section}) == rule


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"stop": "maybe"}, "evaluation.stop=maybe: no such rule; right: none, known or verdict"),
        ({"stop": True}, "evaluation.stop=True: no such rule"),
        *(({"stop": "known", "half_width": bad}, f"evaluation.half_width={bad}: right: more than 0 % and less than 100 %")
          for bad in ("0%", "100%", "5", "-1%", "wide", "nan", "inf%", "")),
        ({"stop": "verdict", "tolerance": "0"}, "evaluation.tolerance=0: right: more than 0 %"),
        ({"stop": "verdict", "half_width": "3%"}, "evaluation.half_width=3%: evaluation.stop=verdict has no such margin, so it would be ignored; right: evaluation.stop=known, or"),
        ({"stop": "known", "tolerance": "3%"}, "evaluation.tolerance=3%: evaluation.stop=known has no such margin, so it would be ignored; right: evaluation.stop=verdict, or"),
        ({"half_width": "3%"}, "evaluation.half_width=3%: evaluation.stop=none has no such margin"),
        ({"tolerance": "3%"}, "evaluation.tolerance=3%: evaluation.stop=none has no such margin"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(section: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as refused:
        rule_of({"evaluation": section})
    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


# ---- the cells


def test_baselines_see_all_images_and_no_key_moves() -> None:
    made, plain = plan(*KNOWN), plan(*GRID)
    assert list(made.cells) == list(plain.cells)
    assert made.stopping.request is not None
    assert made.stopping.request["images"] == {k: 500 for k in made.cells if k not in made.baselines}
    assert made.remarks[1:] == [
        "evaluation.stop=known: 2 cells may stop, once known to ±5 % of the baseline; on all images: 1 (baselines and "
        "controls)"
    ]
    assert plain.stopping.request is None
    assert plain.remarks == [plain.summary()]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["task=shapes_vqa"], None),
        (["task=shapes_caption"], None),
        (["task=shapes_caption", "backend=dummy"], None),
        (["task=shapes_caption", "task.limit=64"], "64 images or fewer"),
        (["task=shapes_caption", "task.limit=65"], None),
        (["task=shapes_caption", "task.on_bad_image=skip"], "task.on_bad_image=skip"),
        (["task=shapes_caption", "task.main_metric=meteor"], "meteor is no mean over images of which more is better"),
        (["task=shapes_caption", "task.main_metric=nll"], "nll is no mean over images of which more is better"),
        (["task=shapes_vqa", "quant=nf4", "quant.packed=cpu"], "packed layers are measured"),
    ],
)
def test_some_cells_see_all_images_anyway(words: list[str], why: str | None) -> None:
    made = plan(*words, "part=vit", "quant.bits=4")
    cell = made.cells[str(made.keys[0])]
    assert why_whole(cell) == why


def test_training_chats_matches_and_other_back_ends_see_all_images_too() -> None:
    made = plan("task=shapes_vqa", "part=vit", "quant.bits=4")
    cell: Any = made.cells[str(made.keys[0])]
    matches: Any = SimpleNamespace(rules=SimpleNamespace(REQUESTS=("match",)), main_metric="recall_1")
    found = {
        "they are trained": replace(cell, training=object()),
        "they ask a chat model": replace(cell, chat={"model": "other"}),
        "every picture is compared with every text": replace(cell, task=matches),
        "backend=openvino answers a cell in one piece": replace(cell, backend={"name": "openvino"}),
    }
    assert {why: why_whole(other) for why, other in found.items()} == {why: why for why in found}


def test_a_second_run_is_of_all_images() -> None:
    words = ("task=shapes_caption", "part=vit", "quant=gptq", "quant.bits=3", "evaluation.stop=known")
    made = plan(*words, "analysis.noise_floor=true")
    assert made.stopping.request is not None
    assert made.stopping.request["images"] == {}
    assert "1 (analysis.noise_floor runs them twice)" in made.remarks[1]


# ---- what is done, and for whom


def write(folder: Path, made: Plan, key: str, **stopped: Any) -> None:
    """A result of a cell, stopped or not, whose predictions are elsewhere."""
    told = {"stopped": {"images": 96, "of": 500, **stopped}} if stopped else {}
    journal = Journal(folder)
    journal.write(
        "result",
        key=key,
        attempt=f"a{stopped.get('margin')}",
        predictions=None,
        replaces=[],
        starts=[],
        **told,
        columns=made.cells[key].columns(),
    )
    journal.close()


def planned(folder: Path, *words: str, rerun: tuple[str, ...] = ()) -> Plan:
    return make_plan(jobs(*words), Ledger(folder).refresh(), rerun)


def test_a_stricter_request_is_unfinished_and_a_looser_one_done(tmp_path: Path) -> None:
    made = plan(*KNOWN)
    base, two, three = made.cells
    write(tmp_path, made, base)
    write(tmp_path, made, two, reason="known to ±5 %", stop="known", margin=0.05)
    write(tmp_path, made, three, reason="below 50 %", stop="known", margin=0.05)
    same = planned(tmp_path, *KNOWN)
    assert same.done == {base, two, three}
    assert "3 already done (2 stopped, after 19 % of their images), 0 to run" in same.summary()
    assert planned(tmp_path, *KNOWN, "evaluation.half_width=10%").done == {base, two, three}
    assert planned(tmp_path, *GRID, "evaluation.stop=verdict").done == {base, two, three}
    stricter = planned(tmp_path, *KNOWN, "evaluation.half_width=2%")
    assert stricter.done == {base, three}  # a collapsed cell stops by every rule
    assert stricter.remarks[-1] == "1 cell stopped earlier than is asked for now, to go on from there"
    whole = planned(tmp_path, *GRID)
    assert whole.done == {base}
    assert whole.remarks[-1] == "2 cells stopped earlier than is asked for now, to go on from there"
    assert new_sweep(whole, "", None, Ledger(tmp_path).refresh()).rerun == {}  # they go on, and nothing is thrown away


def test_a_cell_that_is_computed_again_sees_all_images(tmp_path: Path) -> None:
    made = plan(*KNOWN)
    *_, key = made.cells
    write(tmp_path, made, key, reason="known to ±5 %", stop="known", margin=0.05)
    again = planned(tmp_path, *KNOWN, rerun=(key,))
    assert again.stopping.request is not None
    assert key not in again.stopping.request["images"]
    assert key not in again.done
    assert again.remarks[1:] == [again.stopping.lines[0]]
    assert list(new_sweep(again, "", None, Ledger(tmp_path).refresh()).rerun) == [key]


def test_workers_get_what_their_cells_are_asked(tmp_path: Path) -> None:
    made = plan(*KNOWN)
    told = settings(jobs(*KNOWN)[0].config, {}, None, made.stopping.request)
    packs = [[c.job()] for c in made.cells.values()]
    paths = write_packs(packs, tmp_path, "s", "r", tmp_path, told)
    of_packs = [read_pack(path)["settings"]["stop"]["images"] for path in paths]
    assert of_packs == [{}, *({key: 500} for key in list(made.cells)[1:])]
    config = jobs(*GRID)[0].config
    later = settings(config, {}, None, {"stop": "known", "margin": 0.05, "images": {"other": 80}})
    both = with_earlier(later, told, ["other"])
    assert both["stop"]["images"] == {**told["stop"]["images"], "other": 80}
    assert "stop" not in with_earlier(settings(config, {}), told, made.cells)
    closer = with_earlier({**later, "stop": {**later["stop"], "margin": 0.01}}, told, ["other"])
    assert [asked(closer, key)["margin"] for key in closer["stop"]["images"]] == [0.05] * len(
        told["stop"]["images"]
    ) + [0.01]
    assert with_earlier(settings(config, {}), told, ["other"])["stop"]["images"] == told["stop"]["images"]


# ---- a launch whose cells stop by rules of their own


def test_each_cell_stops_by_the_rule_of_its_own_job(tmp_path: Path) -> None:
    """As the rounds of a screening ask: one to ±20 %, one to ±3 %, one on all images."""
    words = ("task=shapes_vqa", "part=vit", "evaluation.stop=known")
    rough = jobs(*words, "quant.bits=2", "evaluation.half_width=20%")
    close = jobs(*words, "quant.bits=3", "evaluation.half_width=3%")
    whole = jobs("task=shapes_vqa", "part=vit", "quant.bits=4")
    made = make_plan([*rough, *close, *whole], Ledger(tmp_path).refresh())
    base, two, three, four = made.cells
    request = made.stopping.request
    assert request is not None
    own = {key: asked({"stop": request}, key) for key in (base, two, three, four)}
    assert {key: one and one["margin"] for key, one in own.items()} == {base: None, two: 0.2, three: 0.03, four: None}
    assert made.remarks[1] == (
        "evaluation.stop=known: 2 cells may stop, once known to ±3 to 20 % of the baseline; on all images: 1 (baselines and "
        "controls), 1 (evaluation.stop=none)"
    )
    write(tmp_path, made, base)
    for key in (two, three, four):
        write(tmp_path, made, key, reason="known to ±5 %", stop="known", margin=0.05)
    assert make_plan([*rough, *close, *whole], Ledger(tmp_path).refresh()).done == {base, two}
    assert make_plan([*whole, *close, *rough], Ledger(tmp_path).refresh()).done == {base, two}  # whichever comes first


def test_without_a_rule_of_the_first_job_the_roughest_is_that_of_the_sweep() -> None:
    """Not one that differs from process to process."""
    words = ("task=shapes_vqa", "part=vit", "evaluation.stop=known")
    widths = {b: f"evaluation.half_width={b}%" for b in (3, 4, 5, 8)}
    several = [job for b, width in widths.items() for job in jobs(*words, f"quant.bits={b}", width)]
    whole = jobs("task=shapes_vqa", "part=qformer", "quant.bits=4")
    request = make_plan([*whole, *several], Ledger(Path("/nonexistent")).refresh()).stopping.request
    assert request is not None
    assert request["margin"] == 0.08


@pytest.mark.thorough
def test_a_later_launch_keeps_the_margins_of_both(tmp_path: Path) -> None:
    words = ("task=shapes_vqa", "part=vit", "evaluation.stop=known")
    made = make_plan(
        [*jobs(*words, "quant.bits=2", "evaluation.half_width=20%"), *jobs(*words, "quant.bits=3")],
        Ledger(tmp_path).refresh(),
    )
    _, two, three = made.cells
    now = settings(jobs(*words)[0].config, {}, None, made.stopping.request)
    earlier = settings(jobs(*words)[0].config, {}, None, {"stop": "known", "margin": 0.1, "images": {"other": 80}})
    both = with_earlier(now, earlier, made.cells)
    assert {k: asked(both, k)["margin"] for k in ("other", two, three)} == {"other": 0.1, two: 0.2, three: 0.05}  # type: ignore[index]


def test_a_cell_that_is_asked_for_twice_stops_by_the_stricter_rule() -> None:
    loose, strict = (jobs(*KNOWN, f"evaluation.half_width={w}") for w in ("10%", "2%"))
    for both in ([*loose, *strict], [*strict, *loose]):
        request = make_plan(both, Ledger(Path("/nonexistent")).refresh()).stopping.request
        assert request is not None
        assert {(asked({"stop": request}, key) or request)["margin"] for key in request["images"]} == {0.02}
    verdict = jobs("task=shapes_vqa", "part=vit", "quant.bits=4", "evaluation.stop=verdict")
    with pytest.raises(
        UserError, match=r"evaluation\.stop=known,verdict: cells of one sweep stop by one rule; right: one"
    ):
        make_plan([*loose, *verdict], Ledger(Path("/nonexistent")).refresh())
