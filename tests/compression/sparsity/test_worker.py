"""Sparse cells as a worker runs them: shared work, the disk, several processes, noise floors, checkpoints, packed layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.apply import packed as packed_module
from blip2sweep.apply.packed import model_bytes, pack_sparse, split
from blip2sweep.backends.shares import share_of
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.quantize import write_checkpoint
from blip2sweep.compression.sparsity import kernels
from blip2sweep.compression.sparsity.mask import kept_weights
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.errors import UserError
from blip2sweep.models.load import load
from blip2sweep.recipe.compact import expand
from tests import composing
from tests.checkpoints import fails, tiny_config
from tests.in_process import jobs, run

pytestmark = pytest.mark.thorough

WORDS = (
    "part=vit",
    "blocks=3-4",
    "quant=gptq",
    "quant.bits=none,4",
    "calibration.n_samples=4",
    "drop_blocks=none,vit:1",
)
ONE = ("part=vit", "blocks=0-1", "quant=gptq", "quant.bits=4", "sparsity=wanda", "calibration.n_samples=2")


def test_cells_share_what_is_alike_and_say_what_each_says_alone(tmp_path: Path) -> None:
    """Masks, blocks and features in one process, then from the disk in another, against nothing shared; also where a
    block is dropped."""
    these = jobs(*WORDS, "sparsity=none,magnitude,wanda", limit=4)
    disk = {"cache": "disk", "cache_dir": str(tmp_path)}
    shared, again, alone = run(these, **disk), run(these[::-1], **disk), run(these, cache="off")
    expected = {k: p.hash for k, (p, _) in alone.items()}
    assert {k: p.hash for k, (p, _) in shared.items()} == expected
    assert {k: p.hash for k, (p, _) in again.items()} == expected
    assert len(these) == 12  # one of them is the baseline
    assert sum(info["cost"].get("hits_vision_blocks", 0) for _, info in shared.values()) > 0
    for job in these:
        info = shared[job["key"]][1]
        measured = "wanda" in str(job["recipe"]) or "gptq" in str(job["recipe"])
        compressed = any(word in str(job["recipe"]) for word in ("ratio", "bits"))
        assert info["layers_changed"] == 8 * compressed + 4 * ("drop_blocks" in str(job["recipe"]))
        assert (info["cost"].get("calibration_tokens") is not None) is measured
        assert bool(info["cost"].get("calibration_short")) is (
            "gptq" in str(job["recipe"])
        )  # norms need no more tokens
        assert len(info["layers"]) == (8 if measured else 0)


def test_processes_of_one_cell_take_masks_over(tmp_path: Path) -> None:
    """The first one measures norms, then second moments; the other takes both over, in that order."""
    (job,) = (j for j in jobs(*ONE, limit=2) if j["calibration"])
    whole = run([job])[job["key"]][0]
    backends = [TorchBackend({"device": "cpu", "threads": 1, "noise_floor": True}) for _ in range(2)]
    found = [backend(share_of(job, rank, 2, tmp_path)) for rank, backend in enumerate(backends)]
    assert backends[1].state is not None
    assert backends[1].state.calibrator is None or backends[1].state.calibrator.blocks.made == 0
    texts = {i: o for r in found for i, o in zip(r.predictions.id, r.predictions.outputs, strict=True)}
    assert texts == dict(zip(whole.id, whole.outputs, strict=True))
    assert all({*r.calibration_noise} == {"seed", "arithmetic"} for r in found)


def test_a_noise_floor_measures_norms_on_other_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from blip2sweep.apply.calibration import Calibrator

    asked: list[int] = []
    plain = Calibrator.masks
    monkeypatch.setattr(Calibrator, "masks", lambda self, r, c: asked.append(c.seed) or plain(self, r, c))
    (job,) = (j for j in jobs(*ONE, "quant.bits=none", limit=2) if j["calibration"])
    found = run([job], noise_floor=True)[job["key"]][1]
    assert asked == [0, 1, 0]
    assert set(found["calibration_noise"]) == {"seed", "arithmetic"}


def test_a_checkpoint_holds_the_zeros_and_its_recipe(tmp_path: Path) -> None:
    (job,) = composing.jobs(*ONE)
    told = write_checkpoint({**job.config, "output_dir": str(tmp_path)}, tmp_path / "to")
    assert "vit:first:all=wanda0.5; vit:first:all=gptq4" in told
    weight = load(tiny_config(), tmp_path / "to").model.get_submodule("vision_model.encoder.layers.1.mlp.fc2").weight
    assert ((weight == 0).sum(1) >= weight.shape[1] // 2).all()
    again = composing.plan(f"recipe_file={tmp_path / 'to' / 'recipe.yaml'}", "calibration.n_samples=2")
    assert again.keys == composing.plan(*ONE).keys


# ---- packed


PAIRS = ("part=vit", "blocks=0-1", "quant.bits=none", "sparsity=magnitude", "sparsity.pattern=2of4")


class Compressed(nn.Module):
    """What a 2:4 kernel reads of a layer: two of each four weights, and the place of each. It computes them densely."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        groups = linear.weight.data.unflatten(1, (-1, 4))
        self.places = (groups != 0).to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :2]
        self.values, self.shape, self.bias = groups.gather(-1, self.places), linear.weight.shape, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        dense = self.values.new_zeros(*self.values.shape[:2], 4).scatter(-1, self.places, self.values)
        return nn.functional.linear(x, dense.reshape(self.shape), self.bias)


def test_a_packed_cell_runs_other_modules_and_says_what_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the kernel, that this processor can run: planning, worker and latency are the real ones."""
    made: list[nn.Linear] = []
    monkeypatch.setattr(packed_module, "pack_sparse", lambda m: made.append(m) or Compressed(m))
    monkeypatch.setattr(kernels, "DTYPES", ("float32",))
    monkeypatch.setattr(packed_module.sparse_kernels, "DEVICE", "cpu")
    monkeypatch.setattr(kernels, "this_device", lambda: "cpu")
    found = run(jobs(*PAIRS, "sparsity.packed=false,true", limit=4))
    simulated, packed = (x for k, x in found.items() if x[1]["layers_changed"])
    if "seconds_batch_1" in simulated[1]["cost"]:
        simulated, packed = packed, simulated
    assert packed[0].outputs == simulated[0].outputs
    assert len(set(made)) == 8


def test_a_packed_cell_needs_its_device() -> None:
    words = (*PAIRS, "sparsity.packed=cuda", "model.dtype=bfloat16")
    (job,) = (j for j in jobs(*words, limit=2) if j["key"] != j["baseline"])
    with pytest.raises(UserError, match=r"sparsity\.packed=cuda: planned for that, and this worker has cpu"):
        TorchBackend({"device": "cpu"})(job)
    with fails("quantize: packed layers cannot be written", "sparsity.packed"):
        write_checkpoint(composing.jobs(*words)[0].config, Path("nowhere"))


def test_a_packed_layer_is_in_both_recipes() -> None:
    """Its zeros are put in by the one that is simulated."""
    (job,) = (
        j for j in jobs(*PAIRS, "sparsity.packed=cuda", "model.dtype=bfloat16", limit=2) if j["key"] != j["baseline"]
    )
    from blip2sweep.models.anatomy import anatomy

    recipe = expand(job["recipe"], anatomy(job["model"]))
    rest, packed = split(recipe)
    assert rest.hash == packed.hash == recipe.hash
    assert split(expand([{**e, "packed": None} for e in job["recipe"]], anatomy(job["model"])))[1].empty


@pytest.mark.skipif(not torch.cuda.is_available(), reason="2:4 kernels are a GPU's")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_kernel_computes_what_is_simulated_and_takes_the_computed_bytes(dtype: torch.dtype) -> None:
    linear = nn.Linear(256, 128, device="cuda", dtype=dtype).requires_grad_(False)
    kept = kept_weights(linear.weight, Sparse("magnitude", "2of4"))
    linear.weight.data = linear.weight.data * kept
    x, packed = torch.randn(3, 40, 256, device="cuda", dtype=dtype), pack_sparse(linear)
    with torch.inference_mode():
        found, expected = packed(x).float(), linear(x).float()
    assert (found - expected).norm() < 0.01 * expected.norm()
    bias = 128 * linear.bias.element_size()
    assert model_bytes(packed) - bias == 128 * 256 * (2 * 16 + 4) // 4 // 8
