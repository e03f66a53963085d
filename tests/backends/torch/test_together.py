"""Cells of one language recipe are answered together where they are few: their answers are those of cells alone, and what
goes wrong with one leaves the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.backend import Answered
from blip2sweep.backends.shares import Joiner, round_of, share_of
from blip2sweep.backends.torch import model_state, together
from blip2sweep.backends.torch.answers import Answers
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.encode import encode
from blip2sweep.backends.torch.sharing import Account
from blip2sweep.cache.tensors import Memo
from blip2sweep.machine import stopping
from blip2sweep.machine.stopping import Stopped
from blip2sweep.models.language import Prefilled
from blip2sweep.models.load import Loaded
from blip2sweep.models.opt import Opt
from tests.in_process import jobs

IMAGES = 4
GRID = ("part=all", "per_part.vit.bits=3,none", "per_part.qformer.bits=4,none", "per_part.llm.bits=3,8")
FEW = ("part=vit,qformer", "quant.bits=3")
KINDS = {
    "captions": GRID,
    "questions": ("task=shapes_vqa", *FEW),
    "beams": ("generation=paper", *FEW),
    "llava": ("model=tiny-llava", "part=vision,connector", "quant.bits=3", "generation.max_new_tokens=6"),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """Models by name and dtype. Whoever has one leaves it as it was loaded."""
    real, known = model_state.load, dict[str, Loaded]()

    def load(section: Any, *rest: Any, **more: Any) -> Loaded:
        name = f"{section['name']} {section['dtype']}"
        known[name] = known.get(name) or real(section, *rest, **more)
        return known[name]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model_state, "load", load)
        yield


class Ran:
    """Jobs through one back end. answers, rounds: by key; errors: of cells that failed. pictures: of each run of the
    language model. accounts: of what was done before each one's turn."""

    def __init__(self, these: list[dict[str, Any]], alone: bool = False, **settings: Any) -> None:
        self.backend = TorchBackend({"device": "cpu", "threads": 1, **settings})
        self.backend.together.ended = alone
        self.answers: dict[str, Answered] = {}
        self.rounds: dict[str, list[Answered]] = {}
        self.errors: dict[str, Exception] = {}
        self.pictures: list[int] = []
        self.accounts: list[Account] = []
        with self._watched():
            self.backend.expect(these)
            for job in self.turns(these):
                try:
                    self.answers[job["key"]] = self.backend(job)
                    self.rounds.setdefault(job["key"], []).append(self.answers[job["key"]])
                except Exception as error:
                    self.errors[job["key"]] = error
        if self.backend.state is not None:  # all share a model
            self.backend.state.patch.restore()

    def turns(self, these: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """Those that are asked for, in order."""
        return these

    @contextmanager
    def _watched(self) -> Iterator[None]:
        computed, of = Answers._computed, self.backend.together.of

        def counting(asking: Answers) -> Any:
            self.pictures.append(len(asking.pictures))
            return computed(asking)

        def accounted(*args: Any) -> Any:
            shared = of(*args)
            self.accounts += [shared.account] if shared else []
            return shared

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Answers, "_computed", counting)
            patched.setattr(self.backend.together, "of", accounted)
            yield

    def cost(self, name: str) -> list[Any]:
        return [a.cost[name] for a in self.answers.values()]


def check_same(found: Ran, expected: Ran, but: tuple[str, ...] = ()) -> None:
    assert found.answers.keys() == expected.answers.keys() - {*but}
    for key, answered in found.answers.items():
        predictions, other = answered.predictions, expected.answers[key].predictions
        assert (predictions.text, predictions.tokens) == (other.text, other.tokens)
        assert predictions.nll_sum == pytest.approx(other.nll_sum, rel=1e-5)
        assert answered.layers_changed == expected.answers[key].layers_changed


@pytest.fixture(scope="module")
def captions() -> tuple[list[dict[str, Any]], Ran]:
    """Nine cells: the baseline, and two language recipes behind four ways to see; and each of them alone."""
    these = jobs(*KINDS["captions"], limit=IMAGES)
    return these, Ran(these, alone=True)


# ---- the same answers, in fewer passes


@pytest.mark.parametrize("kind", [*list(KINDS)[:-1], pytest.param("llava", marks=pytest.mark.thorough)])
def test_answers_are_those_of_cells_alone(kind: str) -> None:
    these = jobs(*KINDS[kind], limit=IMAGES)
    alone, found = Ran(these, alone=True), Ran(these)
    check_same(found, alone)
    assert len({tuple(a.predictions.nll_sum or ()) for a in found.answers.values()}) > 2
    assert len(alone.pictures) == len(these) > len(found.pictures)
    assert sum(found.pictures) == sum(alone.pictures)


def test_a_run_of_the_language_model_answers_a_batch_of_cells(captions: tuple[list[Any], Ran]) -> None:
    these, alone = captions
    assert Ran(these).pictures == [IMAGES, 4 * IMAGES, 4 * IMAGES]
    assert Ran(these, batch_size=3 * IMAGES).pictures == [IMAGES, 3 * IMAGES, 3 * IMAGES, IMAGES, IMAGES]
    check_same(few := Ran(these, batch_size=2 * IMAGES - 1), alone)
    assert few.pictures == alone.pictures  # two cells would not fit


class Rounds(Ran):
    """Rounds, wave by wave: those of one come next when its first is asked for. segments: those that are expected."""

    def __init__(self, waves: list[list[dict[str, Any]]], segments: list[dict[str, Any]], **settings: Any) -> None:
        self.waves = waves
        super().__init__(segments, **settings)

    def turns(self, these: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for wave in self.waves:
            self.backend.comes(wave)
            yield from wave


def waves(these: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Cells of one language recipe side by side: their first images, then more of them, and what is left of some."""
    one, two = these[::2], these[1::2]
    return [
        [round_of(job, 0, 2) for job in one],
        [round_of(one[0], 2, 3), *(round_of(job, 2, 3, IMAGES) for job in one[1:3]), round_of(one[3], 2, 3)],
        [round_of(one[0], 3, IMAGES), round_of(one[3], 3, IMAGES)],
        [round_of(job, 0, 2, 3) for job in two],
        [round_of(job, 3, IMAGES) for job in reversed(two)],
    ]


@pytest.fixture(scope="module")
def side_by_side(captions: tuple[list[dict[str, Any]], Ran]) -> Rounds:
    these = captions[0][1:]
    return Rounds(waves(these), [round_of(job, *step) for job in these for step in ((0, 2), (2, 3), (3, IMAGES))])


def test_rounds_that_come_run_together(captions: tuple[list[Any], Ran], side_by_side: Rounds) -> None:
    """However far each of them goes."""
    (these, alone), joined = captions, Joiner()
    assert side_by_side.pictures == [4 * 2, 1 + 2 + 2 + 1, 2, 4 * 3, 4]
    for job in these[1:]:
        found = joined.rounds(job, side_by_side.rounds[job["key"]])
        expected = alone.answers[job["key"]]
        assert (found.predictions.text, found.layers_changed) == (expected.predictions.text, expected.layers_changed)
        assert found.predictions.nll_sum == pytest.approx(expected.predictions.nll_sum, rel=1e-5)


def test_each_round_pays_for_itself(captions: tuple[list[Any], Ran], side_by_side: Rounds) -> None:
    accounts = side_by_side.accounts
    assert sum(a.lent for a in accounts) == pytest.approx(sum(a.spent for a in accounts))
    assert [a.spent > 0 for a in accounts] == [False, *[True] * 3] * 2 + [False, True] + [False, *[True] * 3] * 2
    rounds = [one for answered in side_by_side.rounds.values() for one in answered]
    assert all(one.cost["hits_language"] == 0 and one.cost["seconds_language"] > 0 for one in rounds)
    assert all(one.cost["seconds"] > 0 for one in rounds)
    assert not side_by_side.backend.together._accounts


def test_what_rounds_share_is_kept_until_the_first_cell_is_done(side_by_side: Rounds) -> None:
    """Although cells go in another order than they are expected: no picture runs twice through a vision part."""
    rounds = [one for answered in side_by_side.rounds.values() for one in answered]
    assert sum(one.cost["hits_bridge"] for one in rounds) == 4 * IMAGES  # all of the second language recipe


def test_rounds_that_nobody_said_would_come_are_alone(captions: tuple[list[Any], Ran]) -> None:
    these = [round_of(job, 0, 2) for job in captions[0]]
    assert Ran(these).pictures == [2] * len(these)
    assert Rounds([these[:1], [these[1], these[2]]], these).pictures == [2] * 3  # of two language recipes


def test_what_fills_half_a_batch_gains_nothing(captions: tuple[list[Any], Ran]) -> None:
    job = captions[0][1]
    backend = TorchBackend({"device": "cpu", "threads": 1, "batch_size": 2 * IMAGES - 1})
    assert [backend.fills(one) for one in (job, round_of(job, 0, IMAGES - 1))] == [True, False]
    assert backend.loading > 0  # of the cell that runs next
    assert backend.alike(job) == backend.alike(round_of(captions[0][3], 0, 2))
    assert len({backend.alike(captions[0][i]) for i in range(3)}) == 3
    assert backend.alike({**job, "chat": {}}) is None
    assert backend.alike({**job, "model": {"name": "another"}}) is None  # and it is not loaded


def test_a_cell_that_had_its_turn_is_not_made_again_for_one_that_was_put_off(captions: tuple[list[Any], Ran]) -> None:
    """Such as one that waited for its baseline."""
    these, encoded = captions[0], list[int]()
    backend = TorchBackend({"device": "cpu", "threads": 1})
    backend.expect(these)
    for job in (these[3], these[1]):  # of one language recipe
        backend(job)
        encoded.append(len(backend.together._accounts))
    assert encoded == [2, 2]
    assert backend.state is not None
    backend.state.patch.restore()


# ---- what each cell cost


def test_each_cell_pays_for_itself(captions: tuple[list[Any], Ran]) -> None:
    """What is lent is what others pay, and columns of hits and layers are those of cells alone."""
    these, alone = captions
    found = Ran(these)
    assert sum(a.lent for a in found.accounts) == pytest.approx(sum(a.spent for a in found.accounts))
    assert sum(a.spent > 0 for a in found.accounts) == 6  # of two times four, without those whose turn it was
    for name in ("hits_language", "hits_bridge", "hits_vision_blocks", "layers_written"):
        assert sum(found.cost(name)) == sum(alone.cost(name))
    assert found.cost("hits_language") == [0] * len(these)
    assert all(seconds > 0 for seconds in found.cost("seconds_language") + found.cost("seconds"))


# ---- who is alone


def test_in_half_precision_each_is_alone() -> None:
    these = jobs(*FEW, "model.dtype=bfloat16", limit=2)
    assert Ran(these).pictures == [2] * 4  # the baseline twice


@pytest.mark.parametrize(
    "own", [{"chat": {}}, {"recovery": {}}, {"share": {}}, {"task": {"round": {}}}, {"task": {"share": "0/2"}},
            {"recipe": [{"packed": "int8"}]}, {"recipe": [{"input": {"bits": 8}}]}],
)  # fmt: skip
def test_some_cells_are_alone(own: dict[str, Any]) -> None:
    job: Any = {"key": "k", "task": {"places": "0-64"}, "recipe": [{"target": "llm:all:all"}]}
    assert together.takes_part(job)
    assert not together.takes_part({**job, **own})


def test_a_process_that_shares_cells_runs_each_alone(captions: tuple[list[Any], Ran], tmp_path: Any) -> None:
    these, _ = captions
    assert Ran([share_of(job, 1, 2, tmp_path) for job in these]).pictures == [IMAGES // 2] * len(these)


def test_what_is_calibrated_is_not_made_ready_before_its_turn() -> None:
    calibrated = ("quant=gptq", "calibration.n_samples=4", "blocks=0", "quant.bits=3")
    found = Ran(these := jobs("part=vit", *calibrated, limit=2))
    assert found.pictures == [2, 2]
    base, cell = sorted(these, key=lambda job: job["key"] != job["baseline"])
    assert found.backend.alike(base) is not None
    assert found.backend.alike(cell) is None  # nor round by round with others
    assert found.backend.alike({**base, "recipe": [{"step": "drop"}]}) is None


def test_where_weights_cannot_be_remembered_each_is_alone(captions: tuple[list[Any], Ran]) -> None:
    these, alone = captions
    check_same(found := Ran(these, cache_memory_gb=1e-4), alone)
    assert found.pictures == alone.pictures


def test_where_features_cannot_be_kept_nothing_further_is_encoded_before_its_turn(
    captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    these, alone = captions
    monkeypatch.setattr("blip2sweep.backends.torch.model_state.FEATURES", 0.0)
    check_same(found := Ran(these), alone)
    assert found.backend.together.ended
    assert found.pictures == [IMAGES, 2 * IMAGES, *[IMAGES] * 6]


def test_a_cell_does_not_wait_long_for_others_nor_where_its_worker_has_to_end(
    captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    these, alone = captions
    with stopping.told_by(lambda: True):
        assert Ran(these).pictures == alone.pictures
    monkeypatch.setattr(together, "LONGEST", -1.0)
    assert Ran(these).pictures == alone.pictures


def test_where_images_cannot_be_read_each_is_alone_and_pays_for_itself(
    captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    these, alone = captions
    monkeypatch.setattr(together, "encode", lambda *args: replace(encode(*args), bad=(-1,)))
    check_same(found := Ran(these), alone)
    assert found.pictures == alone.pictures
    assert [a.spent > 0 for a in found.accounts].count(True) == 1
    assert sum(a.lent for a in found.accounts) == pytest.approx(sum(a.spent for a in found.accounts))


def test_for_a_cell_that_was_encoded_early_its_output_alone_is_kept() -> None:
    memo = Memo(torch.device("cpu"), 0, 10**6)
    memo.expect([["state", "first"], ["state", "second"]])
    memo.advance(0)
    memo.needs_less(1, ["state", "unknown"])
    assert [memo.remaining_uses(key) for key in ("state", "first", "second")] == [0, 0, 1]
    memo.put("second", (torch.zeros(4),))
    assert ("second" in memo, "state" in memo, memo.room) == (True, False, 10**6 - 16)


# ---- what goes wrong


def test_a_later_cell_that_fails_fails_alone(captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    these, alone = captions
    broken, apply = these[3]["recipe_hash"], Patch.apply

    def failing(patch: Patch, recipe: Any, *rest: Any) -> Any:
        if recipe.hash == broken:
            raise FloatingPointError("not finite")
        return apply(patch, recipe, *rest)

    monkeypatch.setattr(Patch, "apply", failing)
    found = Ran(these)
    check_same(found, alone, but=(these[3]["key"],))
    assert [str(e) for e in found.errors.values()] == ["not finite"]
    assert sorted(found.pictures) == [IMAGES, 3 * IMAGES, 4 * IMAGES]


def test_where_cells_together_do_not_fit_each_is_alone(
    captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    these, alone = captions
    prefill, tried = Opt.prefill, list[int]()

    def narrow(self: Opt, pictures: Any, prompts: Any) -> Prefilled:
        tried.append(len(pictures))
        if len(pictures) > IMAGES:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(self, pictures, prompts)

    monkeypatch.setattr(Opt, "prefill", narrow)
    check_same(found := Ran(these), alone)
    assert tried == [IMAGES, 4 * IMAGES, *[IMAGES] * (len(these) - 1)]
    assert found.cost("oom_halvings") == [0] * len(these)
    assert sum(a.lent for a in found.accounts) == pytest.approx(sum(a.spent for a in found.accounts))


def test_a_worker_that_ran_out_of_memory_runs_each_alone(captions: tuple[list[Any], Ran]) -> None:
    backend, first = TorchBackend({"device": "cpu", "threads": 1}), round_of(captions[0][1], 0, 1)
    assert not backend.fills(first)
    loading = backend.loading
    cost = backend(captions[0][0], batch_size=2).cost
    assert cost["seconds_load"] == loading < cost["seconds"]  # type: ignore[operator]
    assert (backend.together.ended, backend.fills(first), backend.loading) == (True, True, 0)


def test_a_worker_whose_cells_are_alone_runs_each_alone(captions: tuple[list[Any], Ran]) -> None:
    backend = TorchBackend({"device": "cpu", "threads": 1, "alone": True})
    assert backend.alike(captions[0][1]) is None
    assert backend.together.ended


def test_a_worker_that_is_asked_to_stop_stops(captions: tuple[list[Any], Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Any:
        raise Stopped

    monkeypatch.setattr(together, "encode", stopped)
    backend = TorchBackend({"device": "cpu", "threads": 1})
    backend.expect(captions[0])
    with pytest.raises(Stopped):
        backend(captions[0][1])
    assert backend.state is not None
    backend.state.patch.restore()
