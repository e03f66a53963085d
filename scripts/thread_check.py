"""Whether results depend on how many CPU threads a machine gives: every method on every part of the tiny model.

    OMP_WAIT_POLICY=PASSIVE python scripts/thread_check.py                      # 1, 2 and 4 threads, both tasks
    python scripts/thread_check.py --threads 1,3 --tasks shapes_caption --limit 100 --only gptq,awq
    python scripts/thread_check.py --bits 2

Each number of threads has a process of its own, which runs all cells as a worker does. Compared with the first number:
quantized weights bit for bit, and texts. Likelihoods of one and the same model are sums of float32 in another order; their
largest difference, in nats a sample, is said. Ends with code 1 where a weight or a text differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout, installed or not

PARTS = "part=vit,qformer,llm,all"
STATIC = ("quant=rtn", "quant.bits=8", "quant.input.bits=8", "quant.input.strategy=tensor", "quant.input.dynamic=false")
Grid = dict[str, tuple[str, ...]]  # {label: overrides}
Cell = dict[str, Any]  # label, weights {path: digest}, texts, likelihoods


def grid(bits: int) -> Grid:
    """What calibrates, in all its ways, then what sees weights alone."""
    width = f"quant.bits={bits}"
    measured: Grid = {m: (f"quant={m}", width) for m in ("gptq", "awq", "awq_prescale", "smoothquant")}
    groups: Grid = {
        f"{m}, groups": (*measured[m], "quant.strategy=group", "quant.group_size=32") for m in ("gptq", "awq")
    }
    upstream: Grid = {
        f"{m}, upstream={u}": (*measured[m], f"calibration.upstream={u}") for m in measured for u in ("full", "model")
    }
    plain: Grid = {m: (f"quant={m}", width) for m in ("minmax", "rtn", "mse", "hqq")}
    plain |= {f"{m}, tensor": (*plain[m], "quant.strategy=tensor") for m in ("rtn", "mse")}
    fixed: Grid = {m: (f"quant={m}",) for m in ("nf4", "fp4", "int8", "float8", "w8a8")}
    rounded: Grid = {f"{m}, 4-bit inputs": (f"quant={m}", width, "quant.input.bits=4") for m in ("rtn", "awq")}
    return measured | groups | upstream | {"static inputs": STATIC} | plain | fixed | rounded


def jobs(label: str, words: Sequence[str], task: str, limit: int) -> list[dict[str, Any]]:
    from blip2sweep.config.grid import expand
    from blip2sweep.config.overrides import normalise
    from blip2sweep.config.standalone import composer
    from blip2sweep.planning.plan import PlannedJob, make_plan
    from blip2sweep.recipe.chain import Prefixes
    from blip2sweep.results.ledger import Ledger

    made = composer()
    arguments = [normalise(w) for w in (*words, PARTS, f"task={task}", f"task.limit={limit}")]
    planned = make_plan([PlannedJob(j, made.config(j)) for j in expand(arguments, made)], Ledger(Path("/nonexistent")))
    found = sorted((c.job() for c in planned.cells.values()), key=Prefixes())
    return [{**j, "label": "full precision" if j["key"] == j["baseline"] else label} for j in found]


def run(args: argparse.Namespace) -> dict[str, Cell]:
    """{task part label: cell}, in this process."""
    import torch

    from blip2sweep.backends.torch.backend import TorchBackend

    torch.set_num_threads(args.one)
    chosen = {k: w for k, w in grid(args.bits).items() if not args.only or k.partition(",")[0] in args.only.split(",")}
    runner, found = TorchBackend({"device": "cpu"}), {}
    for task in args.tasks.split(","):
        these: dict[str, Any] = {}
        for label, words in chosen.items():
            for job in jobs(label, words, task, args.limit):
                these.setdefault(job["key"], job)  # what means the same under a later label is there
        runner.expect(list(these.values()))
        for job in these.values():
            predictions = runner(job).predictions
            loaded = runner.quantized(job)
            weights = {n: digest(p) for n, p in loaded.model.named_parameters() if n.endswith("weight")}
            found[f"{task} {job['columns']['part']} {job['label']}"] = {
                "label": job["label"], "calibrated": bool(job["calibration"]), "weights": weights,
                "texts": predictions.outputs, "likelihoods": list(predictions.nll_sum or ()),
            }  # fmt: skip
            print(f"{args.one} threads: {task} {job['columns']['part']} {job['label']}", file=sys.stderr, flush=True)
    return found


def digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().cpu().numpy().tobytes()).hexdigest()[:16]


def elsewhere(threads: int, given: Sequence[str]) -> dict[str, Cell]:
    """The same in a process of its own on a machine that is set to so many threads."""
    with tempfile.NamedTemporaryFile() as file:
        words = [sys.executable, __file__, *given, "--one", str(threads), "--to", file.name]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        found: dict[str, Cell] = json.loads(Path(file.name).read_text())
        return found


def differences(first: Cell, other: Cell) -> tuple[int, int, float]:
    """Weights and texts that differ, and the largest difference of a likelihood."""
    pairs = [(a, b) for a, b in zip(first["likelihoods"], other["likelihoods"], strict=True) if None not in (a, b)]
    weights = sum(x != other["weights"][n] for n, x in first["weights"].items())
    texts = sum(a != b for a, b in zip(first["texts"], other["texts"], strict=True))
    return weights, texts, max((abs(a - b) for a, b in pairs), default=0.0)


def rows(runs: Sequence[dict[str, Cell]]) -> Iterator[tuple[str, bool, int, int, int, int, float]]:
    """A method's cells, comparisons, and what of these differs."""
    labels = dict.fromkeys((c["label"], c["calibrated"]) for c in runs[0].values())
    for label, calibrated in labels:
        names = [n for n, c in runs[0].items() if c["label"] == label]
        found = [differences(runs[0][n], other[n]) for n in names for other in runs[1:]]
        texts = sum(len(runs[0][n]["texts"]) for n in names) * (len(runs) - 1)
        yield (
            label,
            calibrated,
            len(names),
            texts,
            sum(f[0] for f in found),
            sum(f[1] for f in found),
            max(f[2] for f in found),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2,4")
    parser.add_argument("--tasks", default="shapes_caption,shapes_vqa")
    parser.add_argument("--limit", type=int, default=200, help="samples of each task")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--only", help="methods; default: all")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args.to.write_text(json.dumps(run(args)))
        return 0
    found = list(rows([elsewhere(int(t), sys.argv[1:]) for t in args.threads.split(",")]))
    print("| | calibrated | cells | texts compared | layers with other weights | other texts | likelihoods, most |")
    print("|---|---|---|---|---|---|---|")
    for label, calibrated, cells, compared, weights, texts, most in found:
        print(
            f"| {label} | {'yes' if calibrated else 'no'} | {cells} | {compared} | {weights} | {texts} | {most:.1e} |"
        )
    return int(any(weights or texts for *_, weights, texts, _ in found))


if __name__ == "__main__":
    sys.exit(main())
