"""The checks, and what they share: the model, its captions, the sizes."""

from __future__ import annotations

import gc
import platform
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks import floor
from scripts.benchmarks.grids import grid
from scripts.gpu_checks import alike, layers
from scripts.gpu_checks.decoding import decoding, lacks_compiler
from scripts.gpu_checks.order import ORDER
from scripts.gpu_checks.running import Check, Deadline, Found, NotHere, cores
from scripts.gpu_checks.sizes import BLIP2, LLAVA, REAL, REHEARSAL, section
from scripts.gpu_checks.subject import Subject
from scripts.gpu_checks.sweep import Texts, compared, sweep
from scripts.gpu_checks.targets import ratio

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "safetensors", "triton", "torchao")
ALL_LAYERS = {"part": "all", "blocks": "all", "layers": "all", "per_part": {}, "rules": {}}
RESTORED: tuple[dict[str, Any], ...] = (
    {**ALL_LAYERS, "quant": {"method": "minmax", "bits": 4}},
    {**ALL_LAYERS, "quant": {"method": "rtn", "bits": 3}},
    {**ALL_LAYERS, "part": "llm", "quant": {"method": "mse", "bits": 4}},
)


class Checks:
    """folder: for pictures and processors. dry: the same steps at small shapes on a CPU. compiles: torch.compile is tried
    there too."""

    def __init__(self, folder: Path, dry: bool, compiles: bool = False) -> None:
        self.folder, self.dry = folder, dry
        self.sizes = REHEARSAL._replace(compiles=compiles) if dry else REAL
        self.device = "cpu" if dry else "cuda"
        self.grid, self.texts = grid("seed_grid", self.sizes.cells), Texts()
        self._subject: Subject | None = None

    def listed(self) -> list[Check]:
        """All checks, in the order of ORDER. The methods below have their names."""
        return [Check(name, getattr(self, name), *times) for name, times in ORDER.items()]

    # ---- of the machine

    @cached_property
    def peak(self) -> float:
        """Operations a second at best."""
        return floor.peak(self.device)

    def machine(self, found: Found, deadline: Deadline) -> None:
        """What it is, and the best rate of matrix products it reaches now."""
        found |= {
            "python": platform.python_version(), "cores": cores(), "versions": _versions(),
            "compiler": lacks_compiler(self.device) or "here",
        }  # fmt: skip
        if self.device == "cuda":
            free, total = torch.cuda.mem_get_info()
            capability = ".".join(map(str, torch.cuda.get_device_capability()))
            found |= {"device": torch.cuda.get_device_name(), "capability": capability, "cuda": torch.version.cuda}
            found |= {"memory_bytes": total, "free_bytes": free}
            found["measured_tflops"] = floor.measured(self.device, torch.bfloat16) / 1e12
        found["floor_tflops"] = self.peak / 1e12

    # ---- of BLIP-2

    def draw(self, found: Found, deadline: Deadline) -> None:
        """The model, drawn on the device. What it writes is of random weights and says nothing of a trained model."""
        self._subject = None
        sizes, folder = self.sizes, self.folder / "blip2"
        self._subject = Subject(section(BLIP2, self.dry), folder, self.device, sizes.images, sizes.new_tokens)
        found |= {"model": BLIP2, "images": sizes.images, **_parameters(self._subject)}

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            raise NotHere("no model: see the entry draw")
        return self._subject

    def sweep(self, found: Found, deadline: Deadline) -> None:
        self.texts.clear()
        sweep(self.subject, self.grid, self.peak, self.texts, found, deadline)
        found["example_of_random_weights"] = next(iter(self.texts.values()))[:1]

    def reference(self, found: Found, deadline: Deadline) -> None:
        jobs, n = [j for j in self.subject.jobs(self.grid) if j["key"] in self.texts], self.sizes.reference_cells
        if not jobs:
            raise NotHere("no cell of the sweep to compare with")
        chosen = [jobs[i * len(jobs) // n] for i in range(min(n, len(jobs)))]
        compared(self.subject, chosen, self.texts, self.sizes.reference_images, found, deadline)

    def decoding(self, found: Found, deadline: Deadline) -> None:
        self.subject.free()
        decoding(self.subject, self.sizes.decoded, self.sizes.compiles, found, deadline)

    def restore(self, found: Found, deadline: Deadline) -> None:
        alike.restored(self.subject, RESTORED, found, deadline)

    def unshared(self, found: Found, deadline: Deadline) -> None:
        alike.unshared(self.subject, self.grid[:: max(1, len(self.grid) // 6)], self.texts, found, deadline)

    def out_of_memory(self, found: Found, deadline: Deadline) -> None:
        alike.out_of_memory(self.subject, found, deadline)

    def packed(self, found: Found, deadline: Deadline) -> None:
        layers.packed(self.subject, found, deadline)

    def gptq(self, found: Found, deadline: Deadline) -> None:
        layers.gptq(self.subject, self.sizes.samples, found, deadline)

    # ---- of LLaVA

    def llava(self, found: Found, deadline: Deadline) -> None:
        """Drawn where BLIP-2 was, a few cells, and the reference on one of them."""
        self._subject = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        sizes = self.sizes
        section_of, folder = section(LLAVA, self.dry), self.folder / "llava"
        subject = Subject(section_of, folder, self.device, sizes.llava_images, sizes.new_tokens)
        found |= {
            "model": LLAVA,
            "older_forward": subject.older,
            **_parameters(subject),
            "sweep": Found(),
            "reference": Found(),
        }
        configs, texts = grid("role_wise")[:: 27 // sizes.llava_cells], Texts()
        sweep(subject, configs, self.peak, texts, found["sweep"], deadline)
        jobs = [j for j in subject.jobs(configs) if j["key"] in texts]
        compared(subject, jobs[-1:], texts, sizes.reference_images // 3, found["reference"], deadline)
        found["ratio"] = ratio(found["sweep"], found["reference"])
        found["disagreement"] = found["reference"]["disagreement"]


def works(device: str) -> bool:
    """Whether a device computes. After some errors a process can use it no more, whatever it does."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False


def _parameters(subject: Subject) -> Found:
    held = list(subject.loaded.model.parameters())
    return {
        "parameters": sum(p.numel() for p in held),
        "dtype": subject.section["dtype"],
        "device": str(held[0].device),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
