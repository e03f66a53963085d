"""OpenVINO's guide to BLIP without its weights: sizes and latencies of BLIP-base's shapes, with random weights.

    python scripts/blip_openvino.py                          # captions and questions, as `+study=blip_openvino` has them
    python scripts/blip_openvino.py --kind vqa --calibration 32 --samples 30 --threads 1

16 bits: every number of the model. 8 bits: the vision tower and the question encoder in W8A8 (NNCF: SmoothQuant, fast bias
correction) measured on --calibration samples, the decoder's weights in 8 bits; embeddings, heads and norms keep 16.
Sizes are those of the files with numbers (.bin), by graph. Latency is that of one picture at a time, from pixels to a text
of --words tokens: random weights end no text. Each sample is timed with every variant in turns, after three that are not
counted; torch runs the same in float32. Pictures and questions are those of the embedded task.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

import openvino as ov
import torch

from blip2sweep.backends.openvino.backend import HINTS
from blip2sweep.backends.openvino.session import OpenVinoSession
from blip2sweep.exporting.ir.convert import converted, finish
from blip2sweep.exporting.nncf import Compression
from blip2sweep.exporting.nncf_inputs import GraphInputs
from blip2sweep.models.architecture import implementation
from blip2sweep.models.graphs import Graphs, HasGraphs
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids
from blip2sweep.recipe import resolve_recipe
from blip2sweep.recipe.back_end import left
from blip2sweep.tasks import Generation, TaskData, load_task
from blip2sweep.tasks.calibration import Calibration, choose
from scripts.benchmarks import blip, models

UNCOUNTED = 3
WORDS = {"caption": 10, "vqa": 3}
PROMPTS = {"caption": "a picture of", "vqa": "{}"}
DECODER = {
    "caption": {"per_part": {"language": {"method": "nncf_int8_asym"}}},
    "vqa": {"rules": {"decoder": {"target": "language.decoder:all:all", "method": "nncf_int8_asym"}}},
}
Models = Mapping[str, ov.Model]


class Variant(NamedTuple):
    """A model that is timed. sizes: bytes of its numbers, by graph."""

    loaded: Loaded
    sizes: dict[str, int]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=(*WORDS, "both"), default="both")
    parser.add_argument("--calibration", type=int, default=300, help="samples of the training split")
    parser.add_argument("--samples", type=int, default=100, help="samples whose latency is taken")
    parser.add_argument("--words", type=int, help="tokens written; default: 10 of a caption, 3 of an answer")
    parser.add_argument("--hints", choices=tuple(HINTS), default="exact", help="see conf/backend/openvino.yaml")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a few numbers in place of BLIP-base's, to try the script")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    found = {kind: measured(kind, args) for kind in (WORDS if args.kind == "both" else (args.kind,))}
    print(json.dumps(found, indent=1) if args.json else "\n\n".join(shown(kind, x) for kind, x in found.items()))
    return 0


def measured(kind: str, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="blip2sweep-blip-") as name:
        folder = Path(name)
        section = blip.write(kind, folder / "model", args.small)
        loaded, own = load(section, folder / "model"), implementation(section)
        assert isinstance(own, HasGraphs)
        graphs = own.graphs(loaded.model, loaded.processor, loaded.family)
        plain = {graph.name: converted(graph, {}) for graph in graphs.graphs}
        began = time.perf_counter()
        small = compressed(kind, loaded, graphs, plain, args)
        seconds = time.perf_counter() - began
        properties = {**HINTS[args.hints], "INFERENCE_NUM_THREADS": args.threads}
        variants = {
            "16 bits": variant(loaded, graphs, plain, folder / "16", properties),
            "8 bits": variant(loaded, graphs, small, folder / "8", properties),
        }
        sides = {**{name: x.loaded for name, x in variants.items()}, "torch, float32": loaded}
        times = timed(sides, task_of(kind, "val2014", args.samples), args.words or WORDS[kind], PROMPTS[kind])
        return {
            "bytes": {name: x.sizes for name, x in variants.items()},
            "ms": times,
            "seconds_compressing": round(seconds, 1),
            "conditions": {**vars(args), "openvino": ov.get_version(), "cpu": ov.Core().get_property("CPU", "FULL_DEVICE_NAME")},
        }  # fmt: skip


def task_of(kind: str, split: str, limit: int | None) -> TaskData:
    config = models.task(f"shapes_{kind}", "pkg://blip2sweep.assets/shapes", limit)
    form = "coco" if kind == "caption" else "vqav2"
    return load_task({**config, "kind": kind, "format": form, "split": split})


def compressed(kind: str, loaded: Loaded, graphs: Graphs, plain: Models, args: argparse.Namespace) -> Models:
    """The graphs as NNCF makes them of the study's recipe."""
    options = {
        "part": "all",
        "blocks": "all",
        "layers": "all",
        "quant": {"method": "nncf_ptq", "bits": 8},
        **DECODER[kind],
    }
    data = choose(task_of(kind, "train2014", None), args.calibration, 0)
    chosen = Calibration({}, data, "train", args.calibration, 0, "part", 1.0, False, PROMPTS[kind], args.threads)
    schemes = left(resolve_recipe(options, loaded.anatomy))
    return Compression(graphs, plain, schemes, lambda: GraphInputs(loaded, graphs, plain, chosen)).all()


def variant(loaded: Loaded, graphs: Graphs, made: Models, folder: Path, properties: Mapping[str, object]) -> Variant:
    """Write and compile the graphs of a variant."""
    folder.mkdir()
    sizes, sessions = dict[str, int](), dict[str, OpenVinoSession]()
    for graph in graphs.graphs:
        xml, model = folder / f"{graph.name}.xml", made[graph.name].clone()
        finish(model, graph, torch.float16)
        ov.save_model(model, xml, compress_to_fp16=False)
        sizes[graph.name] = xml.with_suffix(".bin").stat().st_size
        sessions[graph.name] = OpenVinoSession(xml, properties)
    images, language = graphs.stages(sessions)
    return Variant(replace(loaded, images=images, language=language), sizes)


def timed(sides: Mapping[str, Loaded], data: TaskData, words: int, prompt: str) -> dict[str, dict[str, float]]:
    """{side: milliseconds of one sample}."""
    loaded, generation = next(iter(sides.values())), Generation(prompt, 1, words, words)
    pixels = load_pixels(loaded, data)
    numbers = {image: i for i, image in enumerate(pixels.ids)}
    prompts = loaded.language.prompt_ids([prompt.replace("{}", s.question or "") for s in data.samples])
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    asked = [*zip(data.samples, prompts, strict=True)]
    for sample, ids in [*asked[:UNCOUNTED], *asked]:
        for name, side in sides.items():
            rows = cast("Rows", pixels.rows).take([numbers[sample.image_id]])
            took[name].append(one(side, rows, ids, generation))
    return {name: summary(x[UNCOUNTED:]) for name, x in took.items()}


def one(loaded: Loaded, rows: Rows, prompt: Ids, generation: Generation) -> tuple[float, float]:
    """(seconds of the image stages, seconds of the language stage)."""
    began = time.perf_counter()
    for stage in loaded.images:
        rows = stage.run(rows)
    seen = time.perf_counter()
    loaded.language.prefill(rows, [prompt]).generate(generation)
    return seen - began, time.perf_counter() - seen


def summary(took: list[tuple[float, float]]) -> dict[str, float]:
    whole = sorted(1e3 * sum(x) for x in took)
    tenth = len(whole) // 10
    return {
        "median": statistics.median(whole), "p10": whole[tenth], "p90": whole[-1 - tenth],
        "vision": statistics.median(1e3 * x[0] for x in took), "language": statistics.median(1e3 * x[1] for x in took),
    }  # fmt: skip


def shown(kind: str, found: dict[str, Any]) -> str:
    before, after = found["bytes"].values()
    rows = [(name, before[name], after[name]) for name in before]
    rows.append(("all", sum(before.values()), sum(after.values())))
    lines = [f"{blip.KINDS[kind][0]}: bytes of 16 bits, of 8 bits, ratio"]
    lines += [f"  {name:<10} {a:>12,} {b:>12,} {a / b:6.3f}" for name, a, b in rows]
    lines.append("ms a picture: median (p10 … p90), of vision, of language")
    for name, x in found["ms"].items():
        spread = f"{x['median']:9.1f} ({x['p10']:.1f} … {x['p90']:.1f})"
        lines.append(f"  {name:<15} {spread} {x['vision']:9.1f} {x['language']:9.1f}")
    lines.append(f"compressed in {found['seconds_compressing']} s; {json.dumps(found['conditions'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
