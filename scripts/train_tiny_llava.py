"""Train the embedded tiny LLaVA on the scenes of the embedded BLIP-2 and write everything that ships with it.

    OMP_NUM_THREADS=1 python scripts/train_tiny_llava.py                             # about half an hour on one thread
    python scripts/train_tiny_llava.py --from outputs/tiny-llava/trained             # rescale, save, measure, card again

Stages: train (`<out>/trained`, fp32; a killed run continues where it last saved, every 500 steps), rescale and bf16
save with the log and SHA256SUMS (`<assets>/tiny-llava`), scores, sweeps of blip2sweep for the drop-off (`<out>/sweep-…`),
card (`README.md` beside the model).
The data is the one that scripts/train_tiny.py made (`<assets>/shapes`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from blip2sweep.tasks.scenes import write_split
from scripts.tiny.batches import BatchSpec
from scripts.tiny.card import drop_table, score_table, scores, third_table, write_card
from scripts.tiny.evaluate import Split
from scripts.tiny.loop import Settings, train
from scripts.tiny.rescale import Knobs
from scripts.tiny.ship import FRESH_SEED, load, plain_facts, proven, save, set_up, sha256
from scripts.tiny_llava import sweep
from scripts.tiny_llava.model import make_processor
from scripts.tiny_llava.rescale import LlavaKnobs, rescale
from scripts.tiny_llava.runner import LlavaRunner
from scripts.tiny_llava.training import COOL_STEPS, LlavaTrainer

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "scripts" / "tiny_llava" / "card.md"
N_FRESH, RESCALE_SEED = 500, 0
KNOBS = LlavaKnobs(  # chosen on the shipped set: 8 bits free, 4-bit per-tensor costly, per-channel cheap, 2 bits gone
    vision=Knobs(outliers=(0.1, 0.03, 5, 8), shift=3.5, mix=8),
    offset=6,
    language=Knobs(outliers=(0.1, 0.03, 6, 10), shift=0, mix=6),
    pairs=0.5,
    hidden=0.5,
)


def make_rescaled(trained: Path, folder: Path, assets: Path) -> dict[str, list]:
    """Rescale and save; returns the proof that the function stayed."""
    shipped, calibration = Split(assets / "shapes", "val2014"), Split(assets / "shapes", "train2014")
    after, processor = load(trained)
    rescale(LlavaRunner(after, processor, calibration), KNOBS, RESCALE_SEED)
    runner = LlavaRunner(after, processor, shipped)
    shown = proven(LlavaRunner(*load(trained), shipped), runner)
    save(runner, folder, {"seed": RESCALE_SEED, **dataclasses.asdict(KNOBS)})
    return shown


def write_sums(trained: Path, folder: Path) -> None:
    """The training's log, and the SHA-256 of everything but the card; of the trained fp32 file too."""
    shutil.copyfile(trained / "log.jsonl", folder / "training.jsonl")
    named = {file.name: file for file in sorted(folder.iterdir()) if file.name not in ("README.md", "SHA256SUMS")}
    lines = [f"{sha256(file)}  {name}\n" for name, file in named.items()]
    (folder / "SHA256SUMS").write_text("".join(lines))


def runners(folder: Path, assets: Path, fresh_root: Path) -> dict[str, LlavaRunner]:
    """The saved model on the shipped set, and on a fresh one."""
    write_split(fresh_root, "val2014", N_FRESH, FRESH_SEED)
    roots = {"shipped": assets / "shapes", "fresh": fresh_root}
    return {name: LlavaRunner(*load(folder), Split(root, "val2014")) for name, root in roots.items()}


def card_facts(trained: Path, folder: Path, spec: BatchSpec) -> dict[str, object]:
    """The plain fields of the card."""
    return {
        **plain_facts(trained, folder, spec),
        "command": f"OMP_NUM_THREADS=1 python scripts/train_tiny_llava.py --steps {spec.steps} --seed {spec.seed}",
        "batch": spec.batch,
        "cool_steps": COOL_STEPS,
        "sweeps": "\n".join(f"    … {' '.join(typed)}" for typed in sweep.commands()),
        "trained_sha256": sha256(trained / "model.safetensors"),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000, help="training steps in all")
    parser.add_argument("--cell-steps", type=int, default=300, help="first steps, without text")
    parser.add_argument("--ramp", type=int, default=3350, help="steps of text until three in four scenes are hard")
    parser.add_argument("--batch", type=int, default=16, help="scenes a step of text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/tiny-llava"), help="training state and results")
    parser.add_argument("--assets", type=Path, default=ROOT / "blip2sweep" / "assets", help="where it goes")
    parser.add_argument("--workers", type=int, default=1, help="processes of the drop-off's sweeps")
    parser.add_argument("--from", dest="trained", type=Path, help="a trained fp32 folder: skip training")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    set_up()
    spec = BatchSpec(seed=args.seed, steps=args.steps, cell_steps=args.cell_steps, batch=args.batch, ramp=args.ramp)
    folder, trained = args.assets / "tiny-llava", args.trained or args.out / "trained"
    if not args.trained:
        processor = make_processor()
        train(LlavaTrainer(processor, spec, Settings()), processor, trained)
    shown = make_rescaled(trained, folder, args.assets)
    write_sums(trained, folder)
    scored = scores(runners(folder, args.assets, args.out / "fresh"))
    swept = sweep.run(folder, args.out / f"sweep-{sha256(folder / 'model.safetensors')[:8]}", args.workers)
    cells = list(sweep.cells(swept))
    results = {"scores": scored, "cells": cells, "proof": shown}
    (args.out / "results.json").write_text(json.dumps(results) + "\n")
    write_card(folder / "README.md", CARD, card_facts(trained, folder, spec), results)
    print(score_table(scored), drop_table(cells, "cider"), third_table(cells), sep="\n\n")


if __name__ == "__main__":
    main()
