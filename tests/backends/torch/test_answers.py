"""Questions of different lengths in one batch by beams, a T5 model through the runner, a model on several devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from transformers import DynamicCache

from blip2sweep.backends.torch.answers import Answer, Answers
from blip2sweep.backends.torch.batching import Batches, Clock, Run
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.backends.torch.sharing import AnswerCache
from blip2sweep.compression.quantize.layer import input_quantizer
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.scheme import Activations
from blip2sweep.models.decoder import select
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.text import Prompt
from blip2sweep.planning.plan import PlannedJob, make_plan
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.results.ledger import Ledger
from blip2sweep.tasks import Generation, load_task
from blip2sweep.tasks.task import task_of
from tests import composing
from tests.checkpoints import TINY, conf, t5_config, tiny_config, write_t5
from tests.in_process import own_text, run

if TYPE_CHECKING:
    from blip2sweep.backends.torch.sharing import Shared
    from blip2sweep.models.ragged import Rows

BEAMS = Generation("Question: {} Answer:", 3, 8, None, -1.0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(params=["opt", "t5"])
def loaded(request: pytest.FixtureRequest, t5_folder: Path) -> Loaded:
    return load(tiny_config(), TINY) if request.param == "opt" else load(t5_config(), t5_folder)


@pytest.mark.parametrize("generation", [BEAMS, replace(BEAMS, repetition_penalty=2.0)])
def test_beams_over_questions_of_different_lengths_are_those_of_model_generate(
    loaded: Loaded, generation: Generation
) -> None:
    data = load_task({**conf("task/shapes_vqa"), "limit": 9})
    longer = [
        replace(s, question="In this picture, " * (i % 3) + (s.question or "")) for i, s in enumerate(data.samples)
    ]
    data = replace(data, samples=tuple(longer))
    prompts = [f"Question: {s.question} Answer:" for s in data.samples]
    assert len({len(ids) for ids in loaded.language.prompt_ids(prompts)}) > 4
    found = evaluate(loaded, data, generation, batch_size=9)
    alone = [own_text(loaded, s.image, p, generation) for s, p in zip(data.samples, prompts, strict=True)]
    assert [r["text"] for r in found.records] == alone
    assert len(set(alone)) > 2


@pytest.mark.thorough
@pytest.mark.parametrize("generation", ["seed", "paper"])
def test_a_t5_model_shares_as_an_opt_model_does(t5_folder: Path, generation: str) -> None:
    these = t5_jobs(t5_folder, f"generation={generation}", "part=vit,llm", "quant.bits=2,8")
    shared, alone = run(these), run(these, cache="off")
    assert len(these) == 5
    for key, (predictions, _) in alone.items():
        assert shared[key][0].text == predictions.text
        assert shared[key][0].nll_sum == pytest.approx(predictions.nll_sum, rel=1e-5)
    costs = [info["cost"] for _, info in shared.values()]
    assert sum(c["hits_bridge"] > 0 for c in costs) == 2  # of the language model's cells
    assert len({tuple(p.text) for p, _ in alone.values()}) > 2


def t5_jobs(folder: Path, *words: str) -> list[dict[str, Any]]:
    model = {**t5_config(), "path": str(folder), "hub_id": None}
    configs = [{**j.config, "model": model} for j in composing.jobs("task=shapes_vqa", "task.limit=12", *words)]
    plan = make_plan([PlannedJob((), c) for c in configs], Ledger(Path("/nonexistent")).refresh())
    return sorted((c.job() for c in plan.cells.values()), key=Prefixes())


def test_prompts_of_the_same_tokens_and_other_texts_share_no_answer(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may read the text by a second tokenizer, which knows more words. Prompts without a text go by tokens."""
    data = load_task({**conf("task/shapes_vqa"), "limit": 2})
    features = evaluate(loaded, data, BEAMS).features
    run = Run(loaded, Batches(2), Batches(2), Clock(loaded.device))
    questions: list[str] = []

    class Stores:
        answered, hits, together = AnswerCache[Answer](), dict[str, float](), staticmethod(lambda *_: None)

        def language_key(self, _pictures: Rows, question: object) -> str:
            questions.append(str(question))
            return questions[-1]

    monkeypatch.setattr(Answers, "_computed", lambda self: [Answer(None, None)] * len(self.prompts))
    for prompt in (Prompt([5, 6], "one"), Prompt([5, 6], "other"), [5, 6]):
        monkeypatch.setattr(loaded.language, "prompt_ids", lambda texts, p=prompt: [p] * len(texts))
        Answers(run, features, BEAMS, task_of(data.kind), data.samples, 0).all(cast("Shared", Stores()))
    assert len({*questions}) == 3
    assert "[[5, 6], [5, 6]]" in questions[-1]


# ---- a model on several devices, as far as a machine with one can tell: meta stands for the other


def test_rows_of_the_cache_are_chosen_where_each_layer_is() -> None:
    cache = DynamicCache()
    for layer, device in enumerate(("cpu", "meta")):
        cache.update(*(torch.arange(4.0, device=device).reshape(4, 1, 1, 1) for _ in range(2)), layer)
    select(cache, torch.tensor([3, 1]))
    assert cache.layers[0].keys.flatten().tolist() == [3, 1]
    assert cache.layers[1].values.shape == (2, 1, 1, 1)
    assert cache.layers[1].values.device.type == "meta"


def test_what_calibration_measured_goes_where_the_layer_is() -> None:
    scheme = Activations(8, strategy="tensor", symmetric=False, dynamic=False)
    made = Prepared("k", None, prescale=torch.ones(4), low=torch.tensor(-1.0), high=torch.tensor(1.0))
    found = input_quantizer(torch.nn.Linear(4, 4, device="meta"), scheme, made)
    assert found.prescale is not None
    assert found.low is not None
    assert {found.prescale.device.type, found.low.device.type} == {"meta"}
    assert found.activations == scheme
