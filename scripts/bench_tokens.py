"""Processor seconds of the language stage as it is, and as it was: references in one pass, a picture with every question.

    OMP_NUM_THREADS=1 python scripts/bench_tokens.py                 # the embedded models
    OMP_NUM_THREADS=1 python scripts/bench_tokens.py --only llava    # a random model with 576 tokens a picture

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import Evaluation, evaluate
from blip2sweep.config.standalone import composer
from blip2sweep.models import pieces
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import Generation, load_task
from scripts.benchmarks import models

CAPTION, VQA = "shapes_caption", "shapes_vqa"
ASKED = {"tiny": "Question: {} Answer:", "tiny-llava": "{}", models.LLAVA: "{}"}
BLOCKS = {"tiny": "language_model.model.decoder.layers"}  # of the others:
OF_LLAVA = "model.language_model.layers"


class Case(NamedTuple):
    model: str
    task: str
    samples: int
    bits: int | None = None


CASES = {
    "tiny": [Case("tiny", CAPTION, 500), Case("tiny", CAPTION, 500, 4), Case("tiny", VQA, 1500), Case("tiny", VQA, 1500, 4)],
    "tiny-llava": [Case("tiny-llava", VQA, 1500), Case("tiny-llava", VQA, 1500, 4)],
    "llava": [Case(models.LLAVA, VQA, 24)],
}  # fmt: skip


@contextmanager
def loaded_model(name: str) -> Iterator[Loaded]:
    config: Any = models.model_config(name)
    with tempfile.TemporaryDirectory() as folder:
        path = ROOT / "blip2sweep" / "assets" / name
        if name in models.RANDOM:
            path = Path(folder)
            models.write_model(config, path, "cpu")
            config = {**config, "path": str(path)}
        yield load(config, path)


def measure(loaded: Loaded, case: Case, rounds: int) -> str:
    """A line of the table."""
    data = load_task(composer().config((f"task={case.task}", f"task.limit={case.samples}"))["task"])
    generation = Generation(ASKED[case.model] if case.task == VQA else None, 1, 10 if case.task == VQA else 32)
    features = evaluate(loaded, data, generation, nll_references=0).features
    whole = pieces.ROWS

    def run(new: bool) -> tuple[float, Evaluation]:
        pieces.ROWS = whole if new else case.samples
        start = time.process_time()
        found = evaluate(loaded, data, generation, features=features, anew=not new)
        return time.process_time() - start, found

    tokens = [_tokens(loaded, case, partial(run, new)) for new in (False, True)]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for new in random.sample((False, True), 2):
            seconds[new].append(run(new)[0])
    before, after = (statistics.median(seconds[new]) for new in (False, True))
    ratio = statistics.median(a / b for a, b in zip(seconds[False], seconds[True], strict=True))
    old, new = (run(n)[1].records for n in (False, True))
    texts = sum(a["text"] != b["text"] for a, b in zip(old, new, strict=True))
    worst = max(abs(a["nll_sum"] - b["nll_sum"]) for a, b in zip(old, new, strict=True))
    bits = "full precision" if case.bits is None else f"{case.bits} bits"
    return (
        f"| {case.model} | {case.task}, {len(old)} | {bits} | {tokens[0]:.1f} → {tokens[1]:.1f} "
        f"| {before:.3f} → {after:.3f} | {ratio:.2f} | {texts}, {worst:.0e} |"
    )


def _tokens(loaded: Loaded, case: Case, run: Callable[[], object]) -> float:
    """The tokens of a sample that the first block reads, padding and references included."""
    seen: list[int] = []
    block = loaded.model.get_submodule(BLOCKS.get(case.model, OF_LLAVA))[0]  # type: ignore[index]
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    run()
    hook.remove()
    return sum(seen) / case.samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, help="one group of rows; by default the embedded models")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | task, samples | | tokens a sample | CPU seconds | ratio | differ |\n|---|---|---|---|---|---|---|")
    for group in [args.only] if args.only else ["tiny", "tiny-llava"]:
        with loaded_model(CASES[group][0].model) as loaded:
            for case in CASES[group]:
                quant = {"method": "rtn", "bits": case.bits}
                part = "none" if case.bits is None else "all"
                recipe = resolve_recipe(
                    {"part": part, "blocks": "all", "layers": "all", "quant": quant}, loaded.anatomy
                )
                with Patch(loaded).apply(recipe):
                    print(measure(loaded, case, args.rounds), flush=True)


if __name__ == "__main__":
    main()
