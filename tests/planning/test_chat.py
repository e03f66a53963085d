"""The chat model of a cell: what enters its key, what is refused."""

from __future__ import annotations

import pytest

from blip2sweep.commands.run import settings
from blip2sweep.commands.run_checks import asks_of, check_chat, check_measured_by_torch
from blip2sweep.config.overrides import check_keys, parse
from blip2sweep.errors import UserError
from blip2sweep.planning.cell import Cell
from tests.composing import composer, jobs, plan

WORDS = ("task=shapes_vqa", "task.kind=incontext", "chat=local", "chat.model=m", "task.limit=3", "part=none")


def cell(*words: str) -> Cell:
    (found,) = plan(*WORDS, *words).cells.values()
    return found


SAME = {
    "the address": ("chat.base_url=http://elsewhere:1/v1",),
    "how it is asked": ("chat.timeout=5", "chat.retries=0", "chat.concurrency=9", "chat.online=true"),
    "prices": ("chat.price_in=1", "chat.price_out=2"),
    "the reading of replies": ("task.parse=sane",),
    "what is published anyway": ("chat.temperature=0", "chat.max_tokens=10", "chat.shots=3"),
}
OTHER = {
    "the model": ("chat.model=n",),
    "the variant": ("chat.variant=questions",),
    "no worked examples": ("chat.shots=0",),
    "the temperature": ("chat.temperature=0.5",),
    "the length of replies": ("chat.max_tokens=11",),
    "the own answer": ("generation.num_beams=2",),
}


@pytest.mark.parametrize("words", SAME.values(), ids=SAME)
def test_a_key_has_nothing_of(words: tuple[str, ...]) -> None:
    assert cell(*words).key == cell().key


@pytest.mark.parametrize("words", OTHER.values(), ids=OTHER)
def test_a_key_has(words: tuple[str, ...]) -> None:
    assert cell(*words).key != cell().key


def test_a_seed_counts_where_replies_are_drawn() -> None:
    drawn = ("chat.temperature=0.5", "chat.seed=1")
    assert cell(*drawn).key != cell(drawn[0]).key
    with pytest.raises(UserError, match=r"chat\.seed=1: used by no cell"):
        cell("chat.seed=1")
    assert cell("chat.variant=questions", "chat.seed=1").key != cell("chat.variant=questions").key


def test_each_chat_model_has_a_baseline_and_a_key_of_its_own() -> None:
    made = plan(*WORDS[:-1], "part=vit", "quant.bits=3", "chat.model=a,b", "chat.shots=0,3")
    assert len(made.cells) == 8
    assert len(made.baselines) == 4
    columns = [c.columns() for c in made.cells.values()]
    assert {(c["chat_model"], c["chat_variant"], c["chat_shots"]) for c in columns} == {  # type: ignore[typeddict-item]
        (model, "caption", shots) for model in "ab" for shots in (0, 3)
    }


def test_what_the_model_says_is_shared_by_chat_models_and_by_nothing_else() -> None:
    origins = [
        cell(*w).job()["chat"]["origin"] for w in ((), ("chat.model=n",), ("chat.shots=0",), ("chat.variant=noun",))
    ]
    assert len({*origins}) == 1
    assert cell("task.limit=4").job()["chat"]["origin"] != origins[0]


def test_other_tasks_know_nothing_of_a_chat() -> None:
    (plain,) = plan("task=shapes_vqa", "part=none", "task.limit=3").cells.values()
    job = plain.job()
    assert not {"chat"} & {*plain.identity, *job}
    assert "variant" not in job["task"]
    assert "chat" not in settings(jobs("task=shapes_vqa", "part=none")[0].config, {})


def test_a_lemmatiser_counts_where_messages_tell_the_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2sweep.planning.chosen_chat.lemmatiser_version", lambda _: "tagger-1")
    words = ("chat.variant=questions", "chat.lemmatize=spacy")
    assert cell(*words).key != cell(words[0]).key
    assert cell(*words).chat["lemmatiser"] == "tagger-1"  # type: ignore[index]
    assert "lemmatiser" not in (cell(words[0]).chat or {})
    with pytest.raises(UserError, match=r"chat\.lemmatize=spacy: used by no cell"):
        cell("chat.lemmatize=spacy")


WRONG = {
    "chat.lemmatize=nltk": "chat.lemmatize=nltk: right: none or spacy",
    "chat.model=null": "chat.model: not set",
    "chat.variant=captions": "chat.variant=captions: unknown; did you mean 'caption'",
    "chat.shots=2": "chat.shots=2: right: 3 or 0",
    "chat.temperature=3": "chat.temperature=3.0: right: a number from 0 to 2",
    "chat.max_tokens=0": "chat.max_tokens=0: right: a positive integer",
    "chat.timeout=0": "chat.timeout=0.0: right: seconds",
    "chat.retries=-1": "chat.retries=-1: right: an integer",
    "chat.concurrency=0": "chat.concurrency=0: right: a positive",
    "chat.price_in=-1": "chat.price_in=-1.0: right: the price",
    "chat.base_url=localhost": "chat.base_url=localhost: no address of a server",
    "chat.base_url=https://me:pw@host/v1": "chat.base_url=https://…@host: holds more than an address",
}


@pytest.mark.parametrize("word", WRONG)
def test_settings_that_are_wrong_are_one_line(word: str) -> None:
    with pytest.raises(UserError) as found:
        cell(word.replace("=https", "='https") + ("'" if "=https" in word else ""))
    assert str(found.value).startswith(WRONG[word])
    assert "\n" not in str(found.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(UserError) as found:
        cell("chat.shots=2", "chat.variant=x", "chat.timeout=0")
    for word in ("chat.variant=x", "chat.shots=2", "chat.timeout=0"):
        assert word in str(found.value)


def test_a_task_that_asks_a_chat_model_needs_one_and_others_need_none() -> None:
    with pytest.raises(UserError, match="chat=none: this task asks a chat model; right: chat=openai"):
        plan("task=shapes_vqa", "task.kind=incontext", "part=none")
    with pytest.raises(UserError, match="chat=openai: used by no cell"):
        plan("task=shapes_vqa", "chat=openai", "part=none")
    with pytest.raises(UserError, match=r"chat\.variant=noun: used by no cell"):
        plan("task=shapes_vqa", "chat.variant=noun", "part=none")
    with pytest.raises(UserError, match=r"chat\.shots=0: used by no cell"):
        cell("chat.variant=questions", "chat.shots=0")
    with pytest.raises(UserError, match=r"task\.parse=clever: kind incontext does not score so"):
        cell("task.parse=clever")
    with pytest.raises(UserError, match=r"task\.parse=sane: kind vqa"):
        plan("task=shapes_vqa", "task.parse=sane", "part=none")


@pytest.mark.parametrize("name", ["propagation", "noise_floor"])
def test_rounds_are_not_measured_block_by_block(name: str) -> None:
    words = [*WORDS, f"analysis.{name}=true"]
    with pytest.raises(UserError, match=rf"analysis\.{name}=true: cells that ask a chat model are not measured so"):
        check_measured_by_torch(jobs(*words)[0].config, plan(*words))


def test_a_sweep_has_one_endpoint() -> None:
    for word in ("chat.base_url=http://a/v1,http://b/v1", "chat.online=true,false"):
        with pytest.raises(UserError, match=r"several values, and a sweep has one chat\."):
            check_keys(parse([word]), composer().options)


@pytest.mark.thorough
def test_workers_that_ask_need_an_address_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for words, said in (
        (("chat=openai", "chat.model=m"), "OPENAI_API_KEY: not set"),
        (("chat.base_url=null",), "chat.base_url: not set"),
    ):
        asked = [*WORDS, *words, "chat.online=true"]
        with pytest.raises(UserError, match=said):
            check_chat(jobs(*asked), plan(*asked))
    offline = [*WORDS, "chat=openai"]
    check_chat(jobs(*offline), plan(*offline))
    assert asks_of(jobs(*offline)[0].config)


@pytest.mark.thorough
def test_jobs_with_two_endpoints_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    both = [w if w != "chat=local" else "chat=openai,local" for w in WORDS]
    said = r"chat=openai,local: .* one endpoint \(chat\.base_url=https://api\.openai\.com/v1 and http://localhost:8000/v1\)"
    for words in (both, [*both, "chat.online=true"]):
        with pytest.raises(UserError, match=said):
            check_chat(jobs(*words), plan(*words))
    same = [*both, "chat.base_url=http://localhost:8000/v1"]
    check_chat(jobs(*same), plan(*same))
