"""Variants of metrics: their names, and the combinations of settings that they stand for."""

from __future__ import annotations

from blip2sweep.metrics.metric import ratio
from blip2sweep.metrics.statistics import METRICS
from blip2sweep.metrics.variants import variants, with_variants

DECLARED = {"rule": ("official", "lavis", "evalai"), "lemmatize": ("none", "spacy")}


def suffixes(**chosen: list[str]) -> list[str]:
    return [v.suffix for v in variants(DECLARED, chosen)]


def test_defaults_have_no_suffix_and_the_first_values_come_first() -> None:
    assert suffixes() == [""]
    assert suffixes(rule=["lavis", "official"]) == ["_lavis", ""]
    assert suffixes(lemmatize=["none", "spacy"], rule=["official", "evalai"]) == [
        "",
        "_spacy",
        "_evalai",
        "_evalai_spacy",
    ]
    assert [v.suffix for v in variants({}, {})] == [""]
    (one,) = variants(DECLARED, {"lemmatize": ["spacy"]})
    assert one.values == {"rule": "official", "lemmatize": "spacy"}


def test_every_possible_variant_of_a_metric() -> None:
    plain = ratio("vqa_accuracy", "vqa", (0, 1), True, "1", label="VQA accuracy", per_sample=True, order=1)
    made = with_variants([plain], DECLARED)
    assert made[0] is plain
    assert [m.name for m in made[1:]] == [
        "vqa_accuracy_spacy", "vqa_accuracy_lavis", "vqa_accuracy_lavis_spacy", "vqa_accuracy_evalai", "vqa_accuracy_evalai_spacy"
    ]  # fmt: skip
    last = made[-1]
    assert (last.statistic, last.label, last.unit) == (
        "vqa_evalai_spacy",
        "VQA accuracy (evalai, spacy)",
        "VQA accuracy",
    )
    assert (last.plain, last.ratio, last.per_sample, last.order) == ("vqa_accuracy", (0, 1), True, 1)


def test_a_variant_of_a_variant_is_one_of_the_same_metric() -> None:
    """An answer is read from a reply by one rule, and scored by another."""
    both = METRICS["vqa_accuracy_lavis_sane"]
    assert (both.plain, both.label) == ("vqa_accuracy", "VQA accuracy (lavis, sane)")
    assert METRICS["vqa_accuracy_sane"].label == "VQA accuracy (sane)"
    assert not [m.name for m in METRICS.values() if ") (" in m.label or METRICS[m.plain or m.name].plain]
