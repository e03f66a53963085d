"""Decoding steps as they are today against what could take their launches away: a static cache, a CUDA graph of a step,
a compiled pass.

A step of a small batch does little arithmetic and launches hundreds of kernels. Whether that decides, and up to which
batch, is measured here. Only OPT's step is built; that of other models differs in the modules alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, cast

import torch
from transformers import StaticCache

from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.models.ragged import Rows
from scripts.gpu_checks.running import Deadline, Found, OutOfTime
from scripts.gpu_checks.subject import Subject

REPEATS = 3
WORTH = 1.2  # a way of decoding is worth building from this ratio on, at the batch that is chosen by itself


class Step:
    """One step of greedy decoding, all of it on the device and in place: tokens, positions, mask, keys and values.

    prefilled: pictures and prompts that were read (blip2sweep/models/opt.py). It is not changed.
    """

    def __init__(self, prefilled: Any, new_tokens: int) -> None:
        model, mask = prefilled.language.model, prefilled.mask
        self.decoder, self.head = model.model.decoder, model.get_output_embeddings()
        self.prompt, self.new_tokens, self.layers = mask.shape[1], new_tokens, prefilled.cache.layers
        self.cache = StaticCache(config=model.config, max_cache_len=self.prompt + new_tokens)
        batch, device = len(mask), mask.device
        self.first = self.head(prefilled.hidden).float().argmax(-1, keepdim=True)
        self.read = torch.zeros(batch, 1, 1, self.prompt + new_tokens, dtype=torch.bool, device=device)
        self.read[:, 0, 0, : self.prompt] = mask.bool()
        self.place = mask.sum(1, keepdim=True)  # of the first new token: OPT counts no padding
        self.tokens, self.mask, self.positions = self.first.clone(), self.read.clone(), self.place.clone()
        self.at = torch.tensor([self.prompt], device=device)
        self.written = torch.zeros(batch, self.prompt + new_tokens, dtype=torch.long, device=device)
        for i, layer in enumerate(self.layers):
            self.cache.update(layer.keys, layer.values, i)

    def begin(self) -> None:
        """Back to the state behind the prompt."""
        for own, first in ((self.tokens, self.first), (self.mask, self.read), (self.positions, self.place)):
            own.copy_(first)
        self.at.fill_(self.prompt)
        self.written.zero_()
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.prompt)

    def __call__(self) -> None:
        """Read the last token, write the next one."""
        self.written.index_copy_(1, self.at, self.tokens)
        self.mask.index_fill_(3, self.at, True)
        out = self.decoder(
            input_ids=self.tokens, attention_mask=self.mask, position_ids=self.positions, past_key_values=self.cache,
            use_cache=True,
        )  # fmt: skip
        self.tokens.copy_(self.head(out.last_hidden_state[:, -1]).float().argmax(-1, keepdim=True))
        self.positions.add_(1)
        self.at.add_(1)

    def texts(self, run: Callable[[], object]) -> list[list[int]]:
        """The token ids of all rows, as many as were asked for. run: a step, or what stands for it."""
        self.begin()
        for _ in range(self.new_tokens - 1):
            run()
        self.written.index_copy_(1, self.at, self.tokens)
        return self.written[:, self.prompt :].tolist()


def captured(step: Step) -> Callable[[], object]:
    """A step as a CUDA graph: one launch for all of its kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step.begin()
        step()
    torch.cuda.current_stream().wait_stream(side)
    step.begin()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def compiled(decoder: Any) -> Iterator[None]:
    """Inside, the forward pass of a decoder is compiled, all blocks together."""
    decoder.forward = torch.compile(decoder.forward, dynamic=False)
    try:
        yield
    finally:
        del decoder.forward  # the class has the plain one
        torch._dynamo.reset()


def lacks_compiler(device: str) -> str | None:
    """What torch.compile wants and is not here; None where all of it is."""
    if device == "cuda" and find_spec("triton") is None:
        return "triton is not installed"
    return None if shutil.which("gcc") or shutil.which("cc") or shutil.which("g++") else "no C compiler"


@torch.inference_mode()
def decoding(subject: Subject, batches: tuple[int, ...], compiles: bool, found: Found, deadline: Deadline) -> None:
    """Milliseconds of a step in each way, by batch, and what they would decide. The compiler comes last: it takes longest,
    and sees the largest batch alone."""
    pictures = _pictures(subject)
    lacking = lacks_compiler(subject.device) if compiles else "left out of a rehearsal"
    found |= {"compiler": lacking or "here", "batches": {str(batch): Found() for batch in batches}}
    rows = {batch: pictures.take([i % len(pictures) for i in range(batch)]) for batch in batches}
    for batch in sorted(batches, reverse=True):  # the one that decides comes first
        if not deadline.near:
            _one(_Batch(subject, rows[batch], found["batches"][str(batch)]))
    found["would_decide"] = would_decide(found["batches"])
    if lacking is None and not deadline.near:
        try:
            _compiled(_Batch(subject, rows[max(batches)], found["batches"][str(max(batches))]))
            found["would_decide"] = would_decide(found["batches"])
        except (OutOfTime, Exception) as error:  # the other ways are measured, and decide without it
            found["compiler"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _pictures(subject: Subject) -> Rows:
    data = subject.data.part(subject.data.samples[:32])
    rows = evaluate(subject.loaded, data, subject.generation, nll_references=0).features.rows
    assert rows is not None
    return rows


class _Batch:
    """One batch: a step on it, what the back end's own decoding writes of it, and where its figures go."""

    def __init__(self, subject: Subject, rows: Rows, found: Found) -> None:
        self.subject, self.found, language = subject, found, cast("Any", subject.loaded.language)
        self.rows, self.ends = rows, set(language.base.ends)
        self.prompts = language.prompt_ids([subject.generation.prompt or ""] * len(rows))
        self.eager: list[list[int]] = []
        own = 1000 * min(self._own() for _ in range(REPEATS)) / (subject.new_tokens - 1)
        found.setdefault("eager_ms", own)  # all ratios are against one of them
        self.step = Step(language.prefill(rows, self.prompts), subject.new_tokens)

    def _own(self) -> float:
        """Seconds of the back end's decoding, without the prompt's."""
        prefilled: Any = self.subject.loaded.language.prefill(self.rows, self.prompts)
        start = self.subject.now()
        self.eager = prefilled.greedy(self.subject.generation)
        return self.subject.now() - start

    def timed(self, name: str, run: Callable[[], object]) -> None:
        """Texts that differ from the back end's own, milliseconds of a step, and the ratio. run: what stands for a step."""
        texts, own = self.step.texts(run), self.found
        differing = (
            _until_end(a, self.ends) != _until_end(b, self.ends) for a, b in zip(texts, self.eager, strict=True)
        )
        own[f"{name}_differing"] = sum(differing)
        seconds = []
        for _ in range(REPEATS):
            start = self.subject.now()
            self.step.texts(run)
            seconds.append(self.subject.now() - start)
        own[f"{name}_ms"] = 1000 * min(seconds) / (self.step.new_tokens - 1)
        own[f"{name}_ratio"] = own["eager_ms"] / own[f"{name}_ms"]


def _one(batch: _Batch) -> None:
    batch.timed("static", batch.step)
    if batch.subject.device == "cuda":
        batch.timed("graph", captured(batch.step))
    else:
        batch.found["graph"] = "no CUDA"


def _compiled(batch: _Batch) -> None:
    with compiled(batch.step.decoder):
        start = batch.subject.now()
        batch.step.texts(batch.step)
        batch.found["compile_seconds"] = batch.subject.now() - start
        batch.timed("compiled", batch.step)
        if batch.subject.device == "cuda":
            batch.timed("compiled_graph", captured(batch.step))


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    """What is written behind an end is padding in one way and goes on in another."""
    return ids[: next((i for i, x in enumerate(ids) if x in ends), len(ids))]


def would_decide(batches: dict[str, Found]) -> str:
    """By the largest batch, which is what the back end chooses: the fastest way, where it is worth building."""
    size, own = max(batches.items(), key=lambda pair: int(pair[0]))
    ratios = {k.removesuffix("_ratio"): v for k, v in own.items() if k.endswith("_ratio")}
    if not ratios:
        return "nothing: no time for the largest batch"
    best = max(ratios, key=lambda way: ratios[way])
    if ratios[best] < WORTH:
        return f"eager steps: at {size} rows {best} is {ratios[best]:.2f} times as fast, and {WORTH} is wanted"
    return f"{best}: {ratios[best]:.2f} times as fast at {size} rows; {own[f'{best}_differing']} of {size} texts differ"
