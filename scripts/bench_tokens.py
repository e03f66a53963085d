"""Processor seconds of the language stage as it is, and as it was: references in one pass, a picture with every question,
all tokens of a prompt through all of the last block, texts written by transformers' steps with a cache that has no room.

    OMP_NUM_THREADS=1 python scripts/bench_tokens.py                 # the embedded models
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --last-block --reading    # what the last block alone saves of prompts
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --writing --bits 3    # what steps and a cache with room save alone
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --alone --bits 3    # the same, timed around the writing of tokens
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --only llava    # a random model with 576 tokens a picture
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --dtype bfloat16 --bits 3 --rounds 1    # what differs there

Pictures are encoded before; both ways run in turns, in random order, in one process. tokens: that the first block of the
language model reads for a sample. differ: texts, and likelihoods in their last digits.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.config.standalone import composer
from blip2sweep.models import last_block as blocks
from blip2sweep.models import opt, pieces
from blip2sweep.models.image_text import prefilled
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import Generation, load_task
from scripts.benchmarks import models

CAPTION, VQA = "shapes_caption", "shapes_vqa"
ASKED = {"tiny": "Question: {} Answer:", "tiny-llava": "{}", models.LLAVA: "{}"}
BLOCKS = {"tiny": "language_model.model.decoder.layers"}  # of the others:
OF_LLAVA = "model.language_model.layers"
Record = dict[str, Any]


class Case(NamedTuple):
    model: str
    task: str
    samples: int


CASES = {
    "tiny": [Case("tiny", CAPTION, 500), Case("tiny", VQA, 1500)],
    "tiny-llava": [Case("tiny-llava", VQA, 1500)],
    "llava": [Case(models.LLAVA, VQA, 24)],
}


@contextmanager
def loaded_model(name: str, dtype: str) -> Iterator[Loaded]:
    config: Any = {**models.model_config(name), "dtype": dtype}
    with tempfile.TemporaryDirectory() as folder:
        path = ROOT / "blip2sweep" / "assets" / name
        if name in models.RANDOM:
            path = Path(folder)
            models.write_model(config, path, "cpu")
            config = {**config, "path": str(path)}
        yield load(config, path)


def measure(loaded: Loaded, case: Case, bits: int | None, args: argparse.Namespace) -> str:
    """A line of the table."""
    data = load_task(composer().config((f"task={case.task}", f"task.limit={case.samples}"))["task"])
    writing = args.writing or args.alone
    alone, most = args.last_block or writing, 1 if args.reading else 10 if case.task == VQA else 32
    generation = Generation(ASKED[case.model] if case.task == VQA else None, 1, most)
    features = evaluate(loaded, data, generation, nll_references=0).features
    whole, references = pieces.ROWS, 0 if args.reading or writing else 1

    def run(new: bool) -> Evaluation:
        same = new or alone
        pieces.ROWS = whole if same else case.samples
        with as_it_was(last_block=not (new or writing), writing=not (new or args.last_block)):
            return evaluate(loaded, data, generation, features=features, anew=not same, nll_references=references)

    tokens = [_tokens(loaded, case, partial(run, new)) for new in (False, True)]
    told = "full precision" if bits is None else f"{bits} bits"
    return (
        f"| {case.model} | {case.task}, {case.samples} | {told} | {tokens[0]:.1f} → {tokens[1]:.1f} "
        f"| {_seconds(run, args.rounds, args.alone)} | {_differ(run(False).records, run(True).records)} |"
    )


@contextmanager
def as_it_was(*, last_block: bool, writing: bool) -> Iterator[None]:
    """Inside, all tokens pass the last block, and texts are written by transformers' steps and cache."""
    with ExitStack() as changes:
        if last_block:
            changes.enter_context(patch.object(blocks, "_last_block", lambda model: None))
        for module in (opt, prefilled) if writing else ():
            changes.enter_context(patch.object(module, "make_room", lambda cache: None))
        if writing:
            changes.enter_context(patch.object(opt, "own_step", lambda model, cache: None))
        yield


def _seconds(run: Callable[[bool], object], rounds: int, alone: bool) -> str:
    """Medians of both ways, and of their ratio in a round. alone: of the writing of tokens, without reading and what follows."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for new in random.sample((False, True), 2):
            with _timed_writing() if alone else nullcontext() as own:
                start = time.process_time()
                run(new)
                seconds[new].append(time.process_time() - start if own is None else sum(own))
    before, after = (statistics.median(seconds[new]) for new in (False, True))
    ratio = statistics.median(a / b for a, b in zip(seconds[False], seconds[True], strict=True))
    return f"{before:.3f} → {after:.3f} | {ratio:.2f}"


@contextmanager
def _timed_writing() -> Iterator[list[float]]:
    """The processor seconds in which tokens are written inside, one number for each batch."""
    found: list[float] = []

    def timed(write: Callable[..., object]) -> Callable[..., object]:
        def writing(*given: Any) -> object:
            start = time.process_time()
            out = write(*given)
            found.append(time.process_time() - start)
            return out

        return writing

    with ExitStack() as changes:
        for owner, name in ((opt.Prefilled, "greedy"), (prefilled.Prefilled, "_greedy")):
            changes.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield found


def _differ(old: Sequence[Record], new: Sequence[Record]) -> str:
    """How many texts differ, and the most that a likelihood does where there are some."""
    texts = sum(a["text"] != b["text"] for a, b in zip(old, new, strict=True))
    pairs = [(a["nll_sum"], b["nll_sum"]) for a, b in zip(old, new, strict=True) if a.get("nll_sum") is not None]
    return f"{texts}, {max(abs(a - b) for a, b in pairs):.0e}" if pairs else f"{texts}"


def _tokens(loaded: Loaded, case: Case, run: Callable[[], object]) -> float:
    """The tokens of a sample that the first block reads, padding and references included."""
    seen: list[int] = []
    block = loaded.model.get_submodule(BLOCKS.get(case.model, OF_LLAVA))[0]
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    run()
    hook.remove()
    return sum(seen) / case.samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, help="one group of rows; by default the embedded models")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--last-block", action="store_true", help="as it was in the last block of prompts alone")
    parser.add_argument("--writing", action="store_true", help="as it was in writing alone; nothing is scored")
    parser.add_argument("--alone", action="store_true", help="as --writing, timed around the writing of tokens")
    parser.add_argument(
        "--reading", action="store_true", help="prompts are read, one token is written, nothing is scored"
    )
    parser.add_argument("--bits", type=int, default=4, help="of a quantized cell beside that of full precision")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | task, samples | | tokens a sample | CPU seconds | ratio | differ |\n|---|---|---|---|---|---|---|")
    for group in [args.only] if args.only else ["tiny", "tiny-llava"]:
        with loaded_model(CASES[group][0].model, args.dtype) as loaded:
            for case, bits in product(CASES[group], (None, args.bits)):
                part, quant = "none" if bits is None else "all", {"method": "rtn", "bits": bits}
                options = {"part": part, "blocks": "all", "layers": "all", "quant": quant}
                with Patch(loaded).apply(resolve_recipe(options, loaded.anatomy)):
                    print(measure(loaded, case, bits, args), flush=True)


if __name__ == "__main__":
    main()
