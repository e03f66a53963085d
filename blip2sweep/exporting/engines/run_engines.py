#!/usr/bin/env python3
"""Answers the samples with the engines of a folder: run_engines.py ENGINES [--images FOLDER] [--warm-up 5].

It writes ENGINES/predictions.jsonl, a line for each sample with its latency in milliseconds: from the picture's file to
the text, one sample at a time, on a warm engine. It needs TENSORRT_LLM, as build_engines.sh does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", type=Path)
    parser.add_argument("--images", type=Path, help="folder of the pictures, where they are not where they were")
    parser.add_argument("--warm-up", type=int, default=5, help="samples that are answered first without a clock")
    given = parser.parse_args()
    samples = [json.loads(line) for line in (HERE / "samples.jsonl").read_text().splitlines()]
    pictures = [given.images / Path(s["image"]).name if given.images else Path(s["image"]) for s in samples]
    if missing := [str(p) for p in pictures if not p.is_file()]:
        sys.exit(f"{len(missing)} pictures are not there, such as {missing[0]}; right: --images FOLDER")
    write(samples, pictures, runner(given.engines), given.engines / "predictions.jsonl", given.warm_up)


def runner(engines: Path) -> Callable[[Path, str], str]:
    """(picture, prompt) -> text, by TensorRT-LLM's own runner of models with pictures."""
    sys.path.insert(0, str(Path(os.environ["TENSORRT_LLM"]) / "examples/models/core/multimodal"))
    from tensorrt_llm.runtime import MultimodalModelRunner
    from utils import add_common_args  # type: ignore[import-not-found]

    settings = dict(line.split("=", 1) for line in (HERE / "engines.env").read_text().splitlines() if "=" in line)
    new = int(settings["MAX_NEW_TOKENS"])
    words = ["--engine_dir", str(engines), "--hf_model_dir", str(HERE / "checkpoint"), "--max_new_tokens", str(new)]
    model = MultimodalModelRunner(add_common_args(argparse.ArgumentParser()).parse_args([*words, "--batch_size", "1"]))

    def answer(picture: Path, prompt: str) -> str:
        seen = model.load_test_data([str(picture)], None)
        return str(model.run([prompt], seen, None, new)[1][0][0])

    return answer


def write(
    samples: list[dict[str, str]], pictures: list[Path], answer: Callable[[Path, str], str], to: Path, warm_up: int
) -> None:
    """Answer all samples. The file is whole or not there."""
    for sample, picture in list(zip(samples, pictures, strict=True))[:warm_up]:
        answer(picture, sample["prompt"])
    lines, taken = [], []
    for sample, picture in zip(samples, pictures, strict=True):
        began = time.perf_counter()
        text = answer(picture, sample["prompt"]).strip()
        taken.append(1000 * (time.perf_counter() - began))
        lines.append(json.dumps({"id": sample["id"], "text": text, "latency_ms": round(taken[-1], 3)}))
    part = to.with_suffix(".part")
    part.write_text("".join(f"{line}\n" for line in lines))
    part.replace(to)
    ordered = sorted(taken)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    print(
        f"wrote {to}: {len(lines)} texts, median {statistics.median(taken):.1f} ms, 90 % within {p90:.1f} ms, {warm_up} warm"
    )


if __name__ == "__main__":
    main()
