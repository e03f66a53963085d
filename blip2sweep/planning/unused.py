"""Why no cell uses an option that was typed."""

from __future__ import annotations

from collections.abc import Mapping

ANY = "right: leave it out, or choose a part, method or strategy that takes it"


def why_unused(key: str, config: Mapping[str, object]) -> str:
    """The reason where one other option decides it, and what would be right. config: of a cell that has the option."""
    recover, sparsity = (found if isinstance(found := config.get(k), Mapping) else {} for k in ("recover", "sparsity"))
    method = recover.get("method")
    if key.startswith("recover.") and method in (None, "none"):
        return "nothing is trained; right: leave it out, or recover=lora"
    if key in ("recover.temperature", "recover.distill_weight") and recover.get("loss") != "distill":
        return (
            f"recover.loss={recover.get('loss') or 'task'} has no teacher; right: leave it out, or recover.loss=distill"
        )
    if key == "recover.requantize":
        return "nothing that is trained is quantized; right: leave it out, or quantize layers of recover.target"
    if key.endswith("sparsity.ratio") and "2of4" in f"{sparsity} {config.get('per_part')}":
        return "2of4 always takes half of the weights; right: leave it out, or sparsity.pattern=unstructured"
    if key.startswith("sparsity.") and sparsity.get("method") in (None, "none"):
        return "nothing is made sparse; right: leave it out, or sparsity=magnitude and a part"
    return ANY
