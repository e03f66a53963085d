"""What ships of the tiny retrieval model: bf16 weights, the log, hashes, and a card with a drop-off by blip2sweep itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch
import transformers
from transformers import Blip2ForImageTextRetrieval, BlipProcessor

from scripts.tiny.ship import sha256
from scripts.tiny_itm.training import Spec

CARD = Path(__file__).parent / "card.md"
GRID = ["task=shapes_retrieval", "part=vision,connector,all", "quant=rtn", "quant.bits=8,4,3,2"]
METRICS = ("recall_mean", "tr_at_1", "ir_at_1")


def save(trained: Path, folder: Path) -> None:
    """The model in bf16 with its processor, the log, and the SHA-256 of everything but the card."""
    folder.mkdir(parents=True, exist_ok=True)
    model = Blip2ForImageTextRetrieval.from_pretrained(trained, dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone; a package is for everyone
    BlipProcessor.from_pretrained(trained).save_pretrained(folder)
    shutil.copyfile(trained / "log.jsonl", folder / "training.jsonl")
    named = sorted(file for file in folder.iterdir() if file.name not in ("README.md", "SHA256SUMS"))
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(file)}  {file.name}\n" for file in named))


def sweep(folder: Path, out: Path) -> pd.DataFrame:
    """The table of the card's sweep. Cells that an earlier call finished are kept."""
    outputs = out / f"sweep-{sha256(folder / 'model.safetensors')[:8]}"
    typed = [
        "-m",
        "blip2sweep",
        "-m",
        "model=tiny-itm",
        f"model.path={folder.resolve()}",
        *GRID,
        f"output_dir={outputs}",
    ]
    subprocess.run([sys.executable, *typed], check=True)
    return pd.read_parquet(outputs / "table.parquet")


def drop_table(table: pd.DataFrame) -> str:
    """A row a part and width: the three recalls, and what is lost of the mean with its 95 % interval."""
    lines = ["| part | bits | mean recall | TR@1 | IR@1 | lost [95 %] |", "|---|---|---|---|---|---|"]
    rows = table.assign(bits=table[["bits_vit", "bits_qformer"]].max(axis=1)).sort_values(
        ["part", "bits"], ascending=[True, False]
    )
    for row in sorted(rows.to_dict("records"), key=lambda r: r["part"] != "none"):
        recalls = " | ".join(f"{row[name]:.3f}" for name in METRICS)
        drop = [row[f"drop_recall_mean{end}"] for end in ("", "_low", "_high")]
        lost = "" if row["part"] == "none" else "{:.3f} [{:.3f}, {:.3f}]".format(*drop)
        lines.append(f"| {row['part']} | {'' if row['part'] == 'none' else int(row['bits'])} | {recalls} | {lost} |")
    return "\n".join(lines)


def card(folder: Path, trained: Path, spec: Spec, table: pd.DataFrame) -> None:
    last = json.loads((folder / "training.jsonl").read_text().splitlines()[-1])
    model = Blip2ForImageTextRetrieval.from_pretrained(folder)
    facts: dict[str, object] = {
        "parameters": f"{model.num_parameters():,}",
        "size": f"{(folder / 'model.safetensors').stat().st_size:,}",
        "command": f"OMP_NUM_THREADS=1 python scripts/train_tiny_itm.py --steps {spec.steps} --seed {spec.seed}",
        "steps": spec.steps,
        "seed": spec.seed,
        "n_scenes": f"{spec.n_scenes:,}",
        "batch": spec.batch,
        "read": spec.read,
        "seconds": last["cpu_seconds"],
        "itc": last["itc"],
        "itm": last["itm"],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trained_sha256": sha256(trained / "model.safetensors"),
        "grid": " ".join(GRID),
        "drops": drop_table(table),
    }
    (folder / "README.md").write_text(CARD.read_text().format(**facts))
