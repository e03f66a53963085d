"""CIDEr of nocaps' domains: that of each domain's samples alone, with the document frequencies of these samples.

So the value of a domain equals `cider` of a run on the samples of this domain, which is what LAVIS reports of nocaps.
The mean of `cider` over the samples of a domain is another number: its document frequencies are those of all samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blip2sweep.metrics.cider import Cider
from blip2sweep.metrics.core import CAPTIONS
from blip2sweep.metrics.metric import FloatArray, Metric, ratio

DOMAINS = ("in-domain", "near-domain", "out-domain")
DOMAIN_STATISTIC = "cider_domains"


def _domain_cider(k: int, domain: str) -> Metric:
    """CIDEr of the k-th domain: `cider_out_domain`. It details `cider`, so that no table is about it."""
    name, cider = f"cider_{domain.replace('-', '_')}", CAPTIONS[-1]
    return ratio(name, DOMAIN_STATISTIC, (2 * k, 2 * k + 1), True, cider.version, label=f"CIDEr, {domain}")


DOMAIN_CIDER = tuple(_domain_cider(k, domain) for k, domain in enumerate(DOMAINS))


class DomainCider:
    """The "cider_domains" statistic, (n, 6): of each domain the score of a sample (0-10) and 1, zeros elsewhere.

    references: n lists of tokenised captions. domains: n of DOMAINS.
    """

    def __init__(self, references: Sequence[Sequence[str]], domains: Sequence[str]) -> None:
        self._domains = domains
        members = {d: [i for i, own in enumerate(domains) if own == d] for d in DOMAINS}
        self._place = {i: place for ids in members.values() for place, i in enumerate(ids)}
        self._ciders = {d: Cider([references[i] for i in ids]) for d, ids in members.items() if ids}

    def __call__(self, pairs: Sequence[tuple[int, str]]) -> FloatArray:
        """The rows of (sample index, tokenised caption) pairs: (len(pairs), 6) float64."""
        rows = np.zeros((len(pairs), 2 * len(DOMAINS)))
        for row, (index, caption) in zip(rows, pairs, strict=True):
            domain = self._domains[index]
            first = 2 * DOMAINS.index(domain)
            row[first : first + 2] = self._ciders[domain].score(self._place[index], caption), 1.0
        return rows
