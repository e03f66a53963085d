"""All that only a GPU can say, in one command and at most 9 minutes: speed, memory, ties, kernels. Prints one JSON.

    python scripts/gpu_check.py                     # on a machine with one H100 or H200, from a checkout
    python scripts/gpu_check.py --pack FOLDER       # makes a folder that travels; there: python gpu_check.py
    python scripts/gpu_check.py --dry               # the same steps at small shapes on a CPU, in seconds

It needs torch, transformers, numpy and Pillow, no network and no Java. The oldest supported are torch 2.11 and
transformers 5.17. Models have real shapes and random weights, which are drawn on the device: what they write says nothing
of a trained model. docs/gpu.md says what each field means and what is wanted of which card.

Each check has its share of the time and fails alone, also where it takes its process down; after each of them the JSON is
in the file of --out. Ends with code 1 where a check failed, or where something differs that must not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

NEEDED = {"torch": "torch", "transformers": "transformers", "numpy": "numpy", "PIL": "Pillow", "yaml": "PyYAML"}
ROOT = next(p for p in Path(__file__).resolve().parents if (p / "blip2sweep").is_dir())
sys.path.insert(0, str(ROOT))  # a checkout, or the folder that travels
if (ROOT / "packages").is_dir():
    sys.path.append(str(ROOT / "packages"))  # what travels beside it; the machine's own come first

from scripts.gpu_checks.order import ORDER
from scripts.gpu_checks.running import BROKEN, Report, ends_in_order, run_all
from scripts.gpu_checks.supervised import supervise
from scripts.gpu_checks.targets import judged, mistakes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all checks together; default: 9")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="default: gpu_check.json, here")
    parser.add_argument("--only", help="names of checks with commas between; `draw` is needed by most")
    parser.add_argument("--dry", action="store_true", help="small shapes on a CPU")
    parser.add_argument(
        "--compile", action="store_true", help="with --dry: torch.compile too, which takes a minute or more"
    )
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="write the folder that travels, and end")
    parser.add_argument("--with", dest="extra", action="append", default=[], metavar="PACKAGE",
                        help="an installed package that --pack takes along, such as torchao")  # fmt: skip
    return parser.parse_args()


def lacking() -> list[str]:
    """What is to be installed. Nothing is imported to find out."""
    return [name for module, name in NEEDED.items() if find_spec(module) is None]


def main() -> int:
    args = arguments()
    if args.pack is not None:
        from scripts.gpu_checks.pack import pack

        return pack(ROOT, args.pack, args.extra)
    if missing := lacking():
        print(f"error: {', '.join(missing)}: not installed; right: pip install {' '.join(missing)}", file=sys.stderr)
        return 2
    named = args.only.split(",") if args.only else list(ORDER)
    if unknown := [name for name in named if name not in ORDER]:
        print(f"error: --only {unknown[0]}: no such check; right: {', '.join(ORDER)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        os.environ |= {"HF_HUB_OFFLINE": "1", "BLIP2SWEEP_CACHE_DIR": folder, "TOKENIZERS_PARALLELISM": "false"}
        return all_of_them(args, [name for name in ORDER if name in named], Path(folder))


def all_of_them(args: argparse.Namespace, named: Sequence[str], folder: Path) -> int:
    """Run the checks of these names in processes of their own, and print what they found, however they end. Returns the
    code that the script ends with."""
    began = time.monotonic()
    report = Report(args.out, {"dry": args.dry, "minutes": args.minutes, "weights": "random: texts say nothing"})
    try:
        args.out.unlink(missing_ok=True)
        args.out.touch()
    except OSError as error:  # the processes hand it on
        print(f"error: --out {args.out}: {error.strerror}; right: a file in a folder of yours", file=sys.stderr)
        return 2
    ends_in_order()
    code: int | None = None
    try:
        code = supervise(
            lambda names, seconds, number: run(args, names, folder / str(number), seconds),
            named, report, 60 * args.minutes, lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    finally:
        if code != 2 or report.content["checks"]:
            report.read()
            done = report.content["checks"]
            report.conclude(seconds=round(time.monotonic() - began, 1), mistakes=mistakes(done))
            report.conclude(targets=judged(done))
            print(report.text())
        else:
            args.out.unlink(missing_ok=True)
    return 2 if not report.content["checks"] else 1 if code or report.content["mistakes"] else 0


def run(args: argparse.Namespace, named: Sequence[str], folder: Path, seconds: float) -> int:
    """Run the checks of these names in this process. Returns the code that it ends with: 2 without a GPU, BROKEN where the
    GPU computes nothing more."""
    began = time.monotonic()
    import torch

    from scripts.gpu_checks.checks import Checks, works

    if not args.dry and not torch.cuda.is_available():
        print("error: torch sees no GPU; right: a machine with one, or --dry", file=sys.stderr)
        return 2
    ends_in_order()
    checks = Checks(folder, args.dry, args.compile)
    report = Report(args.out, {"dry": args.dry, "minutes": args.minutes, "weights": "random: texts say nothing"})
    report.read()  # what a process before this one has found
    chosen = [c for c in checks.listed() if c.name in named]
    with contextlib.redirect_stdout(sys.stderr):  # a library's remark would be no JSON
        whole = run_all(chosen, report, seconds - (time.monotonic() - began), print, lambda: works(checks.device))
    return 0 if whole else BROKEN


if __name__ == "__main__":
    sys.exit(main())
