"""Train the embedded tiny BLIP-2 and write everything that ships with it.

    OMP_NUM_THREADS=1 python scripts/train_tiny.py                      # about half an hour on one thread
    python scripts/train_tiny.py --from outputs/tiny/trained            # rescale, save, measure and card again

Stages: data (`<assets>/shapes`), train (`<out>/trained`, fp32; a killed run continues where it last saved, every 500
steps), rescale and bf16 save (`<assets>/tiny`), evaluation (`<out>/results.json`), card (`<assets>/tiny/README.md`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from blip2sweep.tasks.scenes import write_split
from scripts.tiny.batches import BatchSpec
from scripts.tiny.card import drop_off, drop_table, score_table, scores, third_table, write_card
from scripts.tiny.evaluate import Split
from scripts.tiny.loop import Settings, train
from scripts.tiny.model import make_processor
from scripts.tiny.rescale import Knobs, rescale
from scripts.tiny.runner import Blip2Runner
from scripts.tiny.ship import FRESH_SEED, load, plain_facts, proven, save, set_up
from scripts.tiny.training import Blip2Trainer

ROOT = Path(__file__).resolve().parents[1]
N_VAL, N_TRAIN, FIRST_TRAIN_ID = 500, 256, 100_001
VAL_SEED, TRAIN_SEED = 2014, 2015
RESCALE_SEED = 0
CARD = ROOT / "scripts" / "tiny" / "card.md"
KNOBS = {  # chosen on the shipped set: 8 bits free, 4-bit per-tensor costly, per-channel cheap, 2 bits gone
    "vit": Knobs(outliers=(0.1, 0.03, 5, 8), shift=3.5, mix=8),
    "qformer": Knobs(outliers=(0.15, 0.03, 5, 8), shift=1.5, mix=40),
    "llm": Knobs(outliers=(0.1, 0.03, 6, 10), shift=1.2, mix=6),
}
SHAPES_README = """# Generated shapes

Scenes of coloured shapes in the file formats of COCO captions and VQAv2: `val2014`, {n_val} hard held-out scenes, and
`train2014`, {n_train} scenes from the training distribution for calibration, none of them in `val2014`. Five captions
and three questions an image.

Made by the first stage of `python scripts/train_tiny.py` (`blip2sweep.tasks.scenes.write_split`, seeds {val_seed} and
{train_seed}); the same seed gives the same bytes. No photographs, no people. Licence: CC0 1.0.
"""


def make_data(root: Path, spec: BatchSpec) -> None:
    """Write the two shipped splits."""
    write_split(root, "val2014", N_VAL, VAL_SEED)
    write_split(root, "train2014", N_TRAIN, TRAIN_SEED, FIRST_TRAIN_ID, spec.hard_fraction)
    fields = {"n_val": N_VAL, "n_train": N_TRAIN, "val_seed": VAL_SEED, "train_seed": TRAIN_SEED}
    (root / "README.md").write_text(SHAPES_README.format(**fields))


def make_rescaled(trained: Path, folder: Path, split: Split) -> dict[str, list]:
    """Rescale and save; returns the proof that the function stayed."""
    before, after = Blip2Runner(*load(trained), split), Blip2Runner(*load(trained), split)
    rescale(after.model, KNOBS, RESCALE_SEED)
    shown = proven(before, after)
    knobs = {part: dataclasses.asdict(values) for part, values in KNOBS.items()}
    save(after, folder, {"seed": RESCALE_SEED, **knobs})
    return shown


def evaluate(folder: Path, shipped: Split, fresh_root: Path) -> dict[str, Any]:
    """Scores and drop-off of the saved model."""
    write_split(fresh_root, "val2014", N_VAL, FRESH_SEED)
    splits = {"shipped": shipped, "fresh": Split(fresh_root, "val2014")}
    runners = {name: Blip2Runner(*load(folder), split) for name, split in splits.items()}
    return {"scores": scores(runners), "cells": drop_off(runners["shipped"])}


def card_facts(trained: Path, folder: Path, spec: BatchSpec) -> dict[str, object]:
    """The plain fields of the card."""
    command = f"OMP_NUM_THREADS=1 python scripts/train_tiny.py --steps {spec.steps} --seed {spec.seed}"
    return {**plain_facts(trained, folder, spec), "command": command}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5800, help="training steps in all")
    parser.add_argument("--cell-steps", type=int, default=500, help="first steps, without text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/tiny"), help="training state and results")
    parser.add_argument("--assets", type=Path, default=ROOT / "blip2sweep" / "assets", help="where model and data go")
    parser.add_argument("--from", dest="trained", type=Path, help="a trained fp32 folder: skip training")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    set_up()
    spec = BatchSpec(seed=args.seed, steps=args.steps, cell_steps=args.cell_steps)
    folder, trained = args.assets / "tiny", args.trained or args.out / "trained"
    make_data(args.assets / "shapes", spec)
    if not args.trained:
        processor = make_processor()
        train(Blip2Trainer(processor, spec, Settings()), processor, trained)
    shipped = Split(args.assets / "shapes", "val2014")
    shown = make_rescaled(trained, folder, shipped)
    results = {**evaluate(folder, shipped, args.out / "fresh"), "proof": shown}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results) + "\n")
    write_card(folder / "README.md", CARD, card_facts(trained, folder, spec), results)
    cells = results["cells"]
    print(score_table(results["scores"]), drop_table(cells, "cider"), third_table(cells), sep="\n\n")


if __name__ == "__main__":
    main()
