"""BLEU, METEOR, ROUGE-L and CIDEr of captions as per-sample statistics, equal to those of pycocoevalcap 1.2.

Each scorer computes what depends on the references once: tokens, n-gram counts, document frequencies, TF-IDF vectors.
The statistics of a caption for a sample are computed once for that pair, because cells of a sweep share most of their
captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from blip2sweep.metrics.bleu import Bleu
from blip2sweep.metrics.cider import Cider
from blip2sweep.metrics.core import CAPTIONS
from blip2sweep.metrics.domains import DOMAIN_CIDER, DOMAIN_STATISTIC, DomainCider
from blip2sweep.metrics.meteor import Meteor, shared_meteor
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.metrics.rouge import rouge_l
from blip2sweep.metrics.tokenizer import TOKENIZERS
from blip2sweep.metrics.variants import Declared, with_variants

TOKENIZER: Declared = {"tokenizer": tuple(TOKENIZERS)}  # the scoring setting of captions
CAPTION_METRICS = tuple(m.name for m in CAPTIONS)


def _told(metric: Metric) -> Metric:
    """A metric without a tokenizer says so in its version and in words."""
    if not metric.name.endswith("_none"):
        return metric
    version = metric.version.replace("ptb-3.4.1", "lower-1")
    return replace(metric, version=version, label=metric.label.replace("(none)", "(no tokenizer)"))


METRICS = tuple(_told(m) for m in with_variants((*CAPTIONS, *DOMAIN_CIDER), TOKENIZER))

Pair = tuple[int, str]  # sample index, tokenised caption


class CaptionScorer:
    """Scores caption sets for one fixed list of n samples.

    references: n lists of one or more raw captions. metrics: which of CAPTION_METRICS will be asked for. meteor: the
    METEOR process, by default the one shared by everything in this process. tokenizer: of TOKENIZERS. domains: of each
    sample, where they have some; `cider_domains` is a statistic then. CIDEr's document frequencies are those of these
    references, so scores of different sample sets are not comparable.

    Raises ValueError for an unknown metric or a sample without references, UserError if Java is missing.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        metrics: Sequence[str] = CAPTION_METRICS,
        meteor: Meteor | None = None,
        tokenizer: str = "ptb",
        domains: Sequence[str] = (),
    ) -> None:
        _check(references, metrics)
        self._tokenize, self._domains = TOKENIZERS[tokenizer], domains
        self._tokens: dict[str, str] = {}
        self._references = self._tokenised(references)
        self._meteor = meteor or shared_meteor()
        names = {m.statistic for m in CAPTIONS if m.name in metrics}
        self._rows = self._scorers(names | ({DOMAIN_STATISTIC} if domains else set()))
        self._cache: dict[str, dict[Pair, FloatArray]] = {name: {} for name in self._rows}

    def statistics(self, candidates: Sequence[str], places: Sequence[int] | None = None) -> dict[str, FloatArray]:
        """The statistics of n raw captions, in the order of the references: statistic name -> (n, k) float64.

        places: the numbers of the samples that these captions are of, where they are not all. Raises ValueError for
        another number of captions than samples, JavaError if a Java program fails.
        """
        samples = range(len(self._references)) if places is None else places
        if len(candidates) != len(samples):
            raise ValueError(f"{len(candidates)} captions for {len(samples)} samples; give one a sample")
        self.prepare(candidates)
        pairs = [(index, self._tokens[caption]) for index, caption in zip(samples, candidates, strict=True)]
        return {name: self._statistic(name, pairs) for name in self._rows}

    def prepare(self, captions: Sequence[str]) -> None:
        """Tokenise the captions of any number of cells in one JVM start, so that ``statistics`` need not."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._tokens]
        self._tokens.update(zip(new, self._tokenize(new), strict=True))

    def _tokenised(self, references: Sequence[Sequence[str]]) -> list[list[str]]:
        self.prepare([text for texts in references for text in texts])
        return [[self._tokens[text] for text in texts] for texts in references]

    def _scorers(self, names: set[str]) -> dict[str, Callable[[list[Pair]], FloatArray]]:
        makers: dict[str, Callable[[], Callable[[list[Pair]], FloatArray]]] = {
            "bleu": lambda: Bleu(self._references),
            "meteor": lambda: self._meteor_rows,
            "rouge_l": lambda: self._rouge_rows,
            "cider": lambda: Cider(self._references),
            DOMAIN_STATISTIC: lambda: DomainCider(self._references, self._domains),
        }
        return {name: make() for name, make in makers.items() if name in names}

    def _meteor_rows(self, pairs: list[Pair]) -> FloatArray:
        return self._meteor.statistics([self._references[i] for i, _ in pairs], [text for _, text in pairs])

    def _rouge_rows(self, pairs: list[Pair]) -> FloatArray:
        return np.array([(rouge_l(caption, self._references[index]), 1.0) for index, caption in pairs])

    def _statistic(self, name: str, pairs: list[Pair]) -> FloatArray:
        cache = self._cache[name]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in cache]
        if new:
            cache.update(zip(new, self._rows[name](new), strict=True))
        return np.array([cache[pair] for pair in pairs])


def _check(references: Sequence[Sequence[str]], metrics: Sequence[str]) -> None:
    unknown = sorted(set(metrics) - set(CAPTION_METRICS))
    if unknown:
        raise ValueError(f"unknown caption metric {unknown[0]!r}; there are {', '.join(CAPTION_METRICS)}")
    if not references:
        raise ValueError("no references: give at least one sample")
    for index, texts in enumerate(references):
        if isinstance(texts, str) or len(texts) == 0:
            raise ValueError(f"references[{index}] is {texts!r}; give a list of one or more captions")
