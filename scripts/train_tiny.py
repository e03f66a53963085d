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

import torch
import transformers
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2sweep.tasks.scenes import write_split
from scripts.tiny.batches import BatchSpec
from scripts.tiny.card import drop_table, measure, proof, score_table, third_table, write_card
from scripts.tiny.evaluate import Runner, Split
from scripts.tiny.model import make_processor
from scripts.tiny.rescale import Knobs, rescale
from scripts.tiny.loop import Settings, train
from scripts.tiny.training import Blip2Trainer

ROOT = Path(__file__).resolve().parents[1]
N_VAL, N_TRAIN, FIRST_TRAIN_ID = 500, 256, 100_001
VAL_SEED, TRAIN_SEED, FRESH_SEED = 2014, 2015, 888
RESCALE_SEED = 0
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


def load(folder: Path) -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """A model in fp32, whatever its file holds, and its processor."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.float().eval(), Blip2Processor.from_pretrained(folder)


def make_rescaled(trained: Path, folder: Path, split: Split) -> dict[str, list]:
    """Rescale, save in bf16 with processor and `rescale.json`; returns the proof that the function stayed."""
    (before, processor), (after, _) = load(trained), load(trained)
    rescale(after, KNOBS, RESCALE_SEED)
    proven = proof(Runner(before, processor, split), Runner(after, processor, split))
    after.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone; a package is for everyone
    processor.save_pretrained(folder)
    knobs = {part: dataclasses.asdict(values) for part, values in KNOBS.items()}
    (folder / "rescale.json").write_text(json.dumps({"seed": RESCALE_SEED, **knobs}) + "\n")
    return {**proven, "n": [len(split.ids), len(split.questions)]}


def evaluate(folder: Path, shipped: Split, fresh_root: Path) -> dict[str, Any]:
    """Scores and drop-off of the saved model."""
    write_split(fresh_root, "val2014", N_VAL, FRESH_SEED)
    return measure(*load(folder), {"shipped": shipped, "fresh": Split(fresh_root, "val2014")})


def card_facts(trained: Path, folder: Path, spec: BatchSpec) -> dict[str, object]:
    """The plain fields of the card."""
    model, processor = load(folder)
    last = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    return {
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": len(processor.tokenizer),
        "size": f"{(folder / 'model.safetensors').stat().st_size:,}",
        "fresh_seed": FRESH_SEED,
        "command": f"OMP_NUM_THREADS=1 python scripts/train_tiny.py --steps {spec.steps} --seed {spec.seed}",
        "steps": spec.steps,
        "seed": spec.seed,
        "cell_steps": spec.cell_steps,
        "n_captions": spec.n_captions,
        "n_questions": len(spec.slots),
        "hard": f"{spec.hard_fraction:.0%}",
        "minutes": f"{last['seconds'] / 60:.0f}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "knobs": f"`{(folder / 'rescale.json').read_text().strip()}`",
    }


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
    torch.set_num_threads(1)  # another number of threads gives other weights
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    spec = BatchSpec(seed=args.seed, steps=args.steps, cell_steps=args.cell_steps)
    folder, trained = args.assets / "tiny", args.trained or args.out / "trained"
    make_data(args.assets / "shapes", spec)
    if not args.trained:
        processor = make_processor()
        train(Blip2Trainer(processor, spec, Settings()), processor, trained)
    shipped = Split(args.assets / "shapes", "val2014")
    proven = make_rescaled(trained, folder, shipped)
    results = {**evaluate(folder, shipped, args.out / "fresh"), "proof": proven}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results) + "\n")
    write_card(folder / "README.md", card_facts(trained, folder, spec), results)
    cells = results["cells"]
    print(score_table(results["scores"]), drop_table(cells, "cider"), third_table(cells), sep="\n\n")


if __name__ == "__main__":
    main()
