"""What calibration, libraries and packed kernels compute, before a change and after it, on one machine in one run.

    python scripts/compare_commits.py BEFORE [AFTER] [--limit 24]

tests/test_golden.py holds still what is the same on every processor. GPTQ, AWQ, SmoothQuant, the quantizers of libraries and
packed kernels are not: here both commits run the same cells, through the command line alone, and keys, predictions and all
columns of the two tables are compared. AFTER is the checkout as it lies there, where none is named. Exit code 0: nothing
differs; 1: what differs is printed; 2: a commit could not be run. Columns that AFTER adds are told and are no difference.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
CELLS = (
    "quant=gptq,awq quant.bits=3 calibration.upstream=part,full,model calibration.n_samples=24",
    "quant=gptq,awq quant.bits=4 quant.strategy=group quant.group_size=64 part=vit,llm calibration.n_samples=24",
    "quant=gptq quant.bits=3 quant.act_order=true part=llm calibration=text calibration.n_samples=24",
    "quant=gptq quant.bits=3 task=shapes_vqa calibration.n_samples=24",
    "quant=gptq quant.bits=4 part=llm model.dtype=bfloat16 calibration.n_samples=24",
    "quant=awq_prescale quant.bits=3 part=vit,llm calibration.n_samples=24",
    "quant=smoothquant calibration.n_samples=24",
    "quant=w8a8 part=vit",
    "quant=mse quant.bits=3 part=qformer",
    "quant=hqq,nf4,fp4,int8,float8 part=llm",
    "quant=nf4,int8,float8,w8a8 part=llm quant.packed=cpu",
)
# Columns that say when, where and how fast it ran.
OF_THE_RUN = re.compile(
    r"(bf16_)?(seconds|hits|peak)(_.*)?|.*_per_second|host|finished|code|oom_halvings|layers_written|(latency|energy)_.*|(bf16_)?.*speed.*"
)
PROBE = "import blip2sweep, blip2sweep.conf, hydra_plugins.blip2sweep as p; print(blip2sweep.__file__, blip2sweep.conf.__file__, *p.__path__)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?")
    parser.add_argument("--limit", type=int, default=24, help="samples of each cell")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compare-") as made:
        folder = Path(made)
        tables = [
            table(tree(commit, folder / name), folder / f"run-{name}", asked.limit)
            for name, commit in (("before", asked.before), ("after", asked.after))
        ]
    told = list(differences(*tables))
    print(*told, f"{len(tables[0])} cells before, {len(tables[1])} after: {len(told)} differences", sep="\n")
    return int(bool(told))


def tree(commit: str | None, folder: Path) -> Path:
    """The files of a commit, or of the checkout as it lies there, with conf/ where a wheel has it."""
    folder.mkdir()
    if commit:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    else:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
        for name in (n for n in names if n and (ROOT / n).is_file()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # An editable install would find the package's conf/ in its own checkout.
    (folder / "blip2sweep" / "conf").symlink_to(folder / "conf")
    return folder


def table(tree: Path, work: Path, limit: int) -> pd.DataFrame:
    """Run the cells with the package of `tree`; the sweep's table."""
    site = work / "site" / "study"
    site.mkdir(parents=True)
    lines = [f"  - [{', '.join(repr(w) for w in [*words.split(), f'task.limit={limit}'])}]" for words in CELLS]
    (site / "compare.yaml").write_text("\n".join(["# @package _global_", "study:", *lines]) + "\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BLIP2SWEEP_", "HYDRA_", "PYTHON"))}
    env = {**kept, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "BLIP2SWEEP_CACHE_DIR": str(work / "user")}
    check_origin(tree, work, env)
    words = ["--config-dir", str(work / "site"), "-m", "+study=compare", "sweep_name=compare"]
    done = subprocess.run(
        [sys.executable, "-m", "blip2sweep", *words], cwd=work, env=env, capture_output=True, text=True
    )
    if done.returncode:
        print(f"{tree.name}: exit code {done.returncode}\n{done.stderr[-3000:]}", file=sys.stderr)
        sys.exit(2)
    return pd.read_parquet(work / "outputs" / "sweeps" / "compare" / "table.parquet")


def check_origin(tree: Path, work: Path, env: dict[str, str]) -> None:
    """Exit where what would run is not what lies in `tree`."""
    found = subprocess.run([sys.executable, "-c", PROBE], cwd=work, env=env, capture_output=True, text=True)
    package, conf, *plugins = found.stdout.split() or ["", ""]
    own = all(p.startswith(f"{tree}/") for p in (package, conf)) and plugins[:1] == [f"{tree}/hydra_plugins/blip2sweep"]
    if not own:
        print(f"{tree.name}: would run {found.stdout or found.stderr}, not {tree}", file=sys.stderr)
        sys.exit(2)


def differences(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[str]:
    """What differs, cell by cell: both sweeps come from one list of commands, in one order."""
    if new := [str(c) for c in after if c not in before]:
        print(f"columns that AFTER adds: {', '.join(new)}")
    columns = [str(c) for c in before if not OF_THE_RUN.fullmatch(str(c))]
    if len(before) != len(after):
        yield f"{len(before)} cells before, {len(after)} after"
        return
    for column in columns:
        if column not in after:
            yield f"column {column}: gone"
            continue
        for i, (a, b) in enumerate(zip(before[column], after[column], strict=True)):
            if not (a == b or (pd.isna(a) and pd.isna(b))):
                told = before.iloc[i]
                yield f"{told['task']} {told['dtype']} {told['recipe']}: {column}: was {a!r}, is {b!r}"


if __name__ == "__main__":
    sys.exit(main())
