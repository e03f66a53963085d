"""Train the embedded retrieval model on the scenes of the embedded BLIP-2 and write everything that ships with it.

    OMP_NUM_THREADS=1 python scripts/train_tiny_itm.py                         # about five minutes of one thread
    python scripts/train_tiny_itm.py --from outputs/tiny-itm/trained           # save, measure and card again

Stages: train (`<out>/trained`, fp32), bf16 save with the log and SHA256SUMS (`<assets>/tiny-itm`), sweeps of blip2sweep on
`shapes_retrieval` (`<out>/sweep-…`), card (`README.md` beside the model). The vision tower, the queries and part of the
Q-Former come from `<assets>/tiny`, which scripts/train_tiny.py made.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import BlipProcessor

from scripts.tiny_itm.model import make_model, make_processor
from scripts.tiny_itm.ship import card, save, sweep
from scripts.tiny_itm.training import Data, Spec, train

ROOT = Path(__file__).resolve().parents[1]


def trained_model(spec: Spec, assets: Path, folder: Path) -> None:
    """Train, and write the fp32 model, its processor and the log into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # another number of threads gives other weights
    torch.manual_seed(spec.seed)
    processor: BlipProcessor = make_processor()
    model = make_model(assets / "tiny", processor)
    train(model, Data(model, processor, spec), spec, folder / "log.jsonl")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=Spec.steps, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/tiny-itm"), help="training and results")
    parser.add_argument("--assets", type=Path, default=ROOT / "blip2sweep" / "assets", help="where it goes")
    parser.add_argument("--from", dest="trained", type=Path, help="a trained fp32 folder: skip training")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    spec = Spec(seed=args.seed, steps=args.steps)
    folder, trained = args.assets / "tiny-itm", args.trained or args.out / "trained"
    if not args.trained:
        trained_model(spec, args.assets, trained)
    save(trained, folder)
    card(folder, trained, spec, sweep(folder, args.out))


if __name__ == "__main__":
    main()
