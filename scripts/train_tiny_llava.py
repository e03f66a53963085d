"""Train the embedded tiny LLaVA and write everything that ships with it.

    OMP_NUM_THREADS=1 python scripts/train_tiny_llava.py                # about half an hour on one thread
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
import transformers

from scripts.tiny.batches import BatchSpec
from scripts.tiny.loop import Settings, train
from scripts.tiny_llava.model import make_processor
from scripts.tiny_llava.training import LlavaTrainer


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7000, help="training steps in all")
    parser.add_argument("--cell-steps", type=int, default=300, help="first steps, without text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/tiny-llava"), help="training state and results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # another number of threads gives other weights
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    spec = BatchSpec(seed=args.seed, steps=args.steps, cell_steps=args.cell_steps, batch=16)
    processor = make_processor()
    train(LlavaTrainer(processor, spec, Settings()), processor, args.out / "trained")


if __name__ == "__main__":
    main()
