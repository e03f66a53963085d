"""Processor seconds of scoring 5,000 made-up samples of each kind of task, by each of its rules, and of planning VQAv2.

    OMP_NUM_THREADS=1 python scripts/bench_tasks.py
    OMP_NUM_THREADS=1 python scripts/bench_tasks.py --captions         # needs Java; 1,000 and 5,000 captions, ptb and none

A scorer is made first, as a worker does once for all cells; what is timed is the statistics of one cell's predictions.
planned: official question and annotation files of 214,354 questions about 40,504 images, read, checked and put into a
key's fingerprint, as planning does once for all cells.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

from blip2sweep.rows import Id
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample
from blip2sweep.tasks.settings import declared
from blip2sweep.tasks.task import task_of
from scripts.benchmarks import recall

SAMPLES, QUESTIONS, IMAGES = 5000, 214_354, 40_504
WORDS = "yes no two 2 a the dog red cat, man's left. on table blue 3 U.S. dont skiing 1,000 surf board".split()


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def said(rng: random.Random, most: int = 3) -> str:
    """A text of some words, a third of them of a vocabulary of 20,000."""
    words = [f"word{rng.randint(0, 20_000)}" if rng.random() < 1 / 3 else rng.choice(WORDS) for _ in range(most)]
    return " ".join(words[: rng.randint(1, most)])


def asked(rng: random.Random, i: int) -> dict[str, Sample]:
    """A sample of each kind of task with questions."""
    here, ten = Path("x.jpg"), tuple(said(rng) for _ in range(10))
    types = ("verify", "query", "choose", "logical", "compare")
    gqa = {"semantic": rng.choice(("rel", "attr", "obj")), "steps": rng.randint(1, 6), "group": f"g{i % 300}",
           "entailed": [j for j in (i + 1, i + 2) if j < SAMPLES], "balanced": True}  # fmt: skip
    category = rng.choice(("random", "popular", "adversarial"))
    return {
        "vqa": Sample(i, i // 5, here, "what?", ten, rng.choice(("yes/no", "number", "other"))),
        "gqa": Sample(i, i // 5, here, "what?", ten[:1], rng.choice(types), details=gqa),
        "yes_no": Sample(i, i // 6, here, "is it?", (rng.choice(("yes", "no")),), details={"category": category}),
    }


def data(kind: str, samples: tuple[Sample, ...]) -> TaskData:
    """The samples scored by every rule; other settings have their defaults."""
    rules = {name: values if name == "rule" else values[:1] for name, values in declared(task_of(kind)).items()}
    return TaskData(kind, kind, samples, "", scoring=rules)


def scored(kind: str, samples: tuple[Sample, ...], texts: list[str]) -> tuple[TaskData, float]:
    """The data, and the seconds of the statistics of texts."""
    own = data(kind, samples)
    scorer = own.rules.scorer(own)
    return own, seconds(lambda: scorer.statistics(predictions(samples, texts)))


def predictions(samples: tuple[Sample, ...], texts: list[str]) -> Predictions:
    ids, images = [s.id for s in samples], [s.image_id for s in samples]
    return Predictions(ids, images, texts, [1] * len(texts), [None] * len(texts), [0] * len(texts))


def questions() -> Iterator[tuple[str, float]]:
    rng = random.Random(0)
    rows = [asked(rng, i) for i in range(SAMPLES)]
    texts = [said(rng) for _ in rows]
    for kind in rows[0]:
        own, took = scored(kind, tuple(row[kind] for row in rows), texts)
        yield f"{kind}, {len(own.variants)} rules", took


def captions() -> Iterator[tuple[str, float]]:
    rng = random.Random(0)
    for n in (1000, 5000):
        samples = tuple(Sample(i, i, Path("x.jpg"), None, tuple(said(rng, 12) for _ in range(5))) for i in range(n))
        own = data("caption", samples)
        for tokenizer in ("ptb", "none"):
            chosen = own.scored_by({"tokenizer": (tokenizer,)}, "cider")
            scorer = chosen.rules.scorer(chosen)
            first, second = ([said(rng, 12) for _ in samples] for _ in range(2))
            start = time.perf_counter()
            scorer.statistics(predictions(samples, first))
            middle = time.perf_counter()
            scorer.statistics(predictions(samples, second))
            yield f"{n} captions, {tokenizer}: first cell, wall", middle - start
            yield f"{n} captions, {tokenizer}: second cell, wall", time.perf_counter() - middle


def planned(folder: Path) -> float:
    """Seconds to read VQAv2's val2014 in its full size."""
    write_vqav2(folder)
    section = {
        "name": "vqav2", "kind": "vqa", "format": "vqav2", "data_dir": str(folder), "split": "val2014", "limit": None,
        "main_metric": "vqa_accuracy",
    }  # fmt: skip
    return seconds(lambda: load_task(section))


def write_vqav2(folder: Path) -> None:
    for name in ("annotations", "val2014"):
        (folder / name).mkdir()
    for i in range(IMAGES):
        (folder / "val2014" / f"COCO_val2014_{i:012d}.jpg").touch()
    ids: list[tuple[Id, Id]] = [(1000 * (i % IMAGES) + i // IMAGES, i % IMAGES) for i in range(QUESTIONS)]
    asked = [{"question_id": q, "image_id": i, "question": "What is it?"} for q, i in ids]
    for name, content in (
        ("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked}),
        ("v2_mscoco_val2014_annotations.json", {"annotations": annotated(ids)}),
    ):
        (folder / "annotations" / name).write_text(json.dumps(content))


def annotated(ids: list[tuple[Id, Id]]) -> list[dict[str, object]]:
    rng, kinds = random.Random(0), ("yes/no", "number", "other")
    answers = [
        [{"answer_id": k + 1, "answer": said(rng), "answer_confidence": "yes"} for k in range(10)] for _ in range(500)
    ]
    same = {"question_type": "what", "multiple_choice_answer": "yes"}
    return [
        {**same, "question_id": q, "image_id": i, "answer_type": kinds[n % 3], "answers": answers[n % 500]}
        for n, (q, i) in enumerate(ids)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", action="store_true", help="captions alone")
    args = parser.parse_args()
    if args.captions:
        for what, took in captions():
            print(f"{what}: {took:.2f} s", flush=True)
        return
    for what, took in questions():
        print(f"{SAMPLES} samples of {what}: {took:.2f} s", flush=True)
    print(
        f"{SAMPLES} pictures and {recall.CAPTIONS * SAMPLES} captions of retrieval, k 128: {recall.seconds(SAMPLES):.2f} s",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        print(f"{QUESTIONS} questions of VQAv2 planned: {planned(Path(folder)):.2f} s", flush=True)


if __name__ == "__main__":
    main()
