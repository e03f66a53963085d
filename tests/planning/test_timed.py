"""Which cells are timed: those whose kernels really run, that were not timed here before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.dummy import Dummy
from blip2sweep.commands.run import plan_sweep, settings
from blip2sweep.compression.step import DROP, RECOVER, SPARSITY
from blip2sweep.errors import UserError
from blip2sweep.machine.devices import Devices
from blip2sweep.planning.plan import Plan
from blip2sweep.planning.timed import Timed, check_some_timed, timed_cells, why_untimed
from blip2sweep.planning.timing_costs import BUDGET, FEWEST, MOST, with_timing
from blip2sweep.recipe import simulated
from blip2sweep.results.ledger import Journal, Ledger
from tests.composing import jobs, plan
from tests.results.test_latency import measured, write

SMALL = ("task=shapes_vqa", "task.limit=4")
HERE = Devices((), "cpu of here")
SIMULATED = "quantization is simulated without quant.packed"


def why_not(*words: str) -> list[str | None]:
    made = plan(*SMALL, *words)
    return [why_untimed(made.cells[key]) for key in made.keys if key]


def timed(made: Plan, folder: Path, devices: Devices | None = HERE) -> Timed:
    return timed_cells(made, Ledger(folder).refresh(), devices)


# ---- the rule


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["part=none"], [None]),
        (["part=vit", "quant.bits=none,4"], [None, SIMULATED]),
        (["part=vit", "quant=nf4", "quant.packed=cpu"], [None]),
        (["part=vit", "quant=w8a8", "quant.packed=cpu"], [None]),
        (
            ["part=vit", "quant.bits=4", "rules.a.target=vit:all:mlp", "rules.a.method=nf4", "rules.a.packed=cpu"],
            [SIMULATED],
        ),
        (["part=none", "drop_blocks=vit:1,llm:0"], [None, None]),
        (["part=llm", "quant.bits=4", "drop_blocks=vit:1"], [SIMULATED]),
        (["part=llm", "quant=nf4", "quant.packed=cpu", "drop_blocks=vit:1"], [None]),
    ],
)
def test_kernels_that_really_run(words: list[str], found: list[str | None]) -> None:
    assert why_not(*words) == found


class Spec:
    packed: str | None = None


class Packed:
    packed = "cuda"


@pytest.mark.parametrize(
    ("kind", "spec", "found"),
    [
        (DROP, Spec(), None),
        (RECOVER, Spec(), None),
        (SPARSITY, Spec(), "sparsity is simulated without sparsity.packed"),
        (SPARSITY, Packed(), None),
    ],
)
def test_of_a_single_step(kind: str, spec: Any, found: str | None) -> None:
    assert simulated._why(kind, spec) == found


def test_a_step_from_outside_says_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, telling = type("Step", (), {}), type("Step", (), {"simulates": staticmethod(lambda spec: spec)})
    for module, found in [(silent, "step own does not say whether its kernels run"), (telling, "why")]:
        monkeypatch.setattr(simulated, "step", lambda kind, module=module: module)
        assert simulated._why("own", "why") == found  # type: ignore[arg-type]


def test_another_back_end_has_its_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("backend=dummy", "part=vit", "quant.bits=none,4")
    assert why_not(*words) == [None, SIMULATED]
    monkeypatch.setattr(Dummy, "RUNS_ALL", True)
    assert why_not(*words) == [None, None]
    monkeypatch.delattr(Dummy, "measure")
    assert why_not(*words) == ["backend=dummy measures no latency"] * 2


# ---- a plan


def test_what_is_timed_and_why_the_rest_is_not(tmp_path: Path) -> None:
    made = plan(*SMALL, "part=vit,llm", "quant.bits=none,2,4")
    made.timed = timed(made, tmp_path)
    assert made.timed.keys == tuple(made.baselines)
    assert made.timed.text() == f"latency: 1 cell to time; not timed: 4 ({SIMULATED})"
    assert made.summary().endswith("5 to run, 1 to time")
    assert made.remarks == [made.summary(), made.timed.text()]
    assert made.to_launch == made.todo


def test_what_is_done_is_launched_only_where_it_is_to_be_timed(tmp_path: Path) -> None:
    words = (*SMALL, "part=none", "drop_blocks=none,vit:1,llm:1")
    journal, keys = Journal(tmp_path), list(plan(*words).cells)
    for key in keys:
        journal.write("result", key=key, predictions=None, columns={"semantics": 1, "recipe_json": "[]"})
    for key, device in zip(keys, ["cpu of here", "a gpu"], strict=False):
        write(journal, measured(device=device), key=key)
    made = plan(*words, output_dir=tmp_path)
    assert made.todo == []
    for devices, left in [(HERE, keys[1:]), (Devices(("a gpu",), "cpu of here"), [keys[0], keys[2]]), (None, keys[2:])]:
        made.timed = timed(made, tmp_path, devices)
        assert list(made.timed.keys) == left
        assert made.timed.known == 3 - len(left)
        assert [c.key for c in made.to_launch] == left
    assert made.summary().endswith("3 already done, 0 to run, 1 to time")


def test_a_sweep_of_which_nothing_would_be_timed_is_refused() -> None:
    made = plan(*SMALL, "part=vit,llm", "quant.bits=2,4")
    with pytest.raises(
        UserError, match=rf"analysis\.latency=true: no cell .* \({SIMULATED}\); right: leave it out, or"
    ):
        check_some_timed(made)
    check_some_timed(plan(*SMALL, "part=vit,llm", "quant.bits=none,4"))


def test_only_where_it_is_asked_for_settings_name_the_cells(tmp_path: Path) -> None:
    asked = [*SMALL, "part=none", f"output_dir={tmp_path / 'out'}"]
    plain, _ = plan_sweep(jobs(*asked))
    assert plain.timed is None
    assert "latency" not in settings(jobs(*asked)[0].config, {}, plain.timed)
    made, _ = plan_sweep(jobs(*asked, "analysis.latency=true"))
    assert list(made.cells) == list(plain.cells)  # it is no part of a key
    assert settings(jobs(*asked)[0].config, {}, made.timed)["latency"] == list(made.cells)


# ---- costs


def test_timing_costs_what_it_cost_before_else_a_guess(tmp_path: Path) -> None:
    made = [c.job() for c in plan(*SMALL, "part=none", "drop_blocks=none,vit:1").cells.values()]
    first, second = (j["key"] for j in made)
    seconds = {first: 4.0, second: 4000.0}
    ledger = Ledger(tmp_path).refresh()
    assert with_timing(seconds, made, ledger, [], []) == seconds
    found = with_timing(seconds, made, ledger, [first, second], [second])
    assert found[first] == 4 + max(FEWEST, min(BUDGET, MOST))  # 1 s an image
    assert found[second] == FEWEST * 1000  # and no inference
    journal = Journal(tmp_path)
    journal.write("result", key=second, predictions=None, columns=dict(made[1]["columns"]))
    write(journal, measured(seconds=7.0), measured(batch=8, seconds=7.0), key=second)
    assert with_timing(seconds, made, ledger.refresh(), [first], []) == {first: 11.0, second: 4000.0}
