"""The cells that tests/test_golden.py holds still: {name: overrides of the command}. `recipe_file` stands for that of RECIPE.

A name stands for one cell, or, where its overrides are those of a grid or a study, for all of its cells in their order.
"""

from __future__ import annotations

Words = tuple[str, ...]
RECIPE = """\
targets:
- {target: 'vit:all:all', method: rtn, bits: 4}
- {target: 'llm:first:mlp', method: rtn, bits: 8}
"""

# Planned and run. Without calibration, in float32 and at mild widths: there a text hangs on no last digit of a sum, but for the
# rare near-tie, so that texts are the same on every processor. A cell that differs on another processor is to be made milder.
RUN: dict[str, Words] = {
    "rtn8": ("quant.bits=8",),
    "rtn4 channel vit": ("part=vit", "quant.bits=4"),
    "rtn6 tensor symmetric llm": ("part=llm", "quant.bits=6", "quant.strategy=tensor", "quant.symmetric=true"),
    "rtn4 group32 llm": ("part=llm", "quant.bits=4", "quant.strategy=group", "quant.group_size=32"),
    "rtn4 group48 vit": ("part=vit", "quant.bits=5", "quant.strategy=group", "quant.group_size=48"),
    "rtn2 one layer": ("part=llm", "quant.bits=3", "blocks=3", "layers=fc2"),
    "minmax8": ("quant=minmax", "quant.bits=8"),
    "minmax16": ("quant=minmax", "quant.bits=16", "part=vit"),
    "minmax5 attention": ("quant=minmax", "quant.bits=5", "part=vit", "layers=attention", "blocks=first+last"),
    "mse4 qformer": ("quant=mse", "quant.bits=4", "part=qformer"),
    "mse5": ("quant=mse", "quant.bits=5", "part=vit+llm"),
    "per_part": ("part=all", "per_part.vit.bits=8", "per_part.qformer.bits=none", "per_part.llm.method=minmax", "per_part.llm.bits=7"),
    "vqa rtn6": ("task=shapes_vqa", "quant.bits=6"),
    "vqa mse4 qformer": ("task=shapes_vqa", "quant.method=mse", "quant.bits=4", "part=qformer"),
    "beams": ("generation=paper", "quant.bits=8", "part=vit"),
}  # fmt: skip
RUN_T5: dict[str, Words] = {
    "t5 rtn8": ("quant.bits=8",),
    "t5 rtn6 encoder": ("part=llm.encoder", "quant.bits=6"),
    "t5 vqa minmax8 decoder": ("task=shapes_vqa", "quant.method=minmax", "quant.bits=8", "part=llm.decoder"),
}

_UPSTREAM = ("part", "full", "model")
_CALIBRATED: dict[str, Words] = {
    f"{method} upstream {upstream}": (f"quant={method}", "quant.bits=3", f"calibration.upstream={upstream}")
    for method in ("gptq", "awq")
    for upstream in _UPSTREAM
}
PLANNED: dict[str, Words] = {
    **_CALIBRATED,
    "baseline": ("part=none",),
    "bits none": ("quant.bits=none",),
    "quant none": ("quant=none",),
    "rtn1": ("quant.bits=1", "part=llm"),
    "awq knobs": ("quant=awq", "quant.clip=false", "quant.grid=10", "quant.strategy=group", "quant.group_size=64", "part=llm"),
    "awq_prescale": ("quant=awq_prescale", "part=llm", "quant.bits=3"),
    "gptq knobs": ("quant=gptq", "quant.act_order=true", "quant.damp=0.05", "quant.block_size=64", "quant.strategy=group", "quant.group_size=32", "part=vit"),
    "gptq groups in any order": ("quant=gptq", "quant.static_groups=false", "quant.strategy=group", "quant.group_size=64", "part=llm"),
    "gptq calibration text": ("quant=gptq", "part=llm", "calibration=text"),
    "gptq calibration vqa": ("quant=gptq", "part=qformer", "calibration=shapes_vqa", "calibration.n_samples=32", "calibration.seed=1"),
    "gptq calibration caption of vqa": ("quant=gptq", "task=shapes_vqa", "calibration=shapes_caption", "calibration.n_samples=32"),
    "gptq image tokens": ("quant=gptq", "part=llm", "calibration.image_token_weight=0.5", "calibration.threads=2"),
    "smoothquant": ("quant=smoothquant",),
    "smoothquant alpha": ("quant=smoothquant", "quant.alpha=0.8", "part=llm", "quant.input.strategy=tensor", "quant.input.dynamic=false"),
    "w8a8": ("quant=w8a8", "part=vit"),
    "w4a8 token asymmetric": ("part=llm", "quant.bits=4", "quant.input.bits=8", "quant.input.symmetric=false"),
    "static inputs": ("quant=smoothquant", "part=vit", "quant.input.bits=8", "quant.input.strategy=tensor", "quant.input.dynamic=false"),
    "nf4": ("quant=nf4", "part=llm"),
    "fp4": ("quant=fp4", "part=vit", "quant.group_size=32"),
    "int8": ("quant=int8",),
    "float8": ("quant=float8",),
    "float8 tensor": ("quant=float8", "quant.strategy=tensor", "part=vit"),
    "hqq": ("quant=hqq", "part=llm"),
    "hqq group": ("quant=hqq", "quant.bits=3", "quant.strategy=group", "part=vit"),
    "mse knobs": ("quant=mse", "quant.grid=50", "quant.norm=2", "part=vit"),
    "minmax no bias": ("quant=minmax", "quant.quantize_bias=false", "part=vit"),
    "packed int8": ("part=llm", "quant.bits=8", "quant.symmetric=true", "quant.packed=cpu"),
    "packed w8a8": ("quant=w8a8", "part=llm", "quant.packed=cpu"),
    "packed nf4": ("quant=nf4", "part=llm", "quant.packed=cpu"),
    "packed bitsandbytes int8": ("quant=int8", "part=vit", "quant.packed=cuda"),
    "packed float8": ("quant=float8", "part=vit", "quant.packed=cpu"),
    "packed int4": ("model.dtype=bfloat16", "part=llm", "quant.bits=4", "quant.strategy=group", "quant.group_size=32", "quant.packed=cuda"),
    "rules": ("part=llm", "quant.bits=3", "rules.a.target=llm:all:mlp", "rules.a.bits=4", "rules.b.target=llm:all:fc2", "rules.b.bits=8", "rules.b.method=mse"),
    "rules across parts": ("part=all", "quant.bits=4", "rules.a.target=vit:first:all", "rules.a.bits=none", "rules.b.target=qformer:all:crossattention", "rules.b.strategy=tensor"),
    "rule that packs": ("part=llm", "quant.bits=4", "rules.a.target=llm:all:mlp", "rules.a.method=nf4", "rules.a.packed=cpu"),
    "keep": ("part=all", "quant.bits=3", "keep=vit:0,vit:all:mlp,llm:last"),
    "keep each": ("part=vit", "quant.bits=3", "keep=vit:each"),
    "recipe_file": ("recipe_file",),
    "per_part methods": ("part=all", "quant.bits=4", "per_part.vit.method=minmax", "per_part.llm.method=gptq", "per_part.qformer.blocks=first"),
    "blocks first": ("blocks=first",),
    "blocks each": ("part=qformer", "blocks=each", "quant.bits=3"),
    "blocks unions": ("part=vit", "blocks=first+last,0-2+4,middle"),
    "layers": ("part=qformer", "layers=attention,crossattention,mlp,attention+crossattention"),
    "leaf layers": ("part=llm", "layers=q_proj+k_proj,fc1"),
    "grid": ("quant.bits=2,4,8", "part=vit,qformer,llm"),
    "skipped": ("quant.method=rtn,nf4", "quant.bits=3,4", "part=llm"),
    "half precision": ("model.dtype=bfloat16", "quant.bits=4"),
    "dtype_per_part": ("model.dtype=float16", "model.dtype_per_part.qformer=float32", "part=llm"),
    "generation paper": ("generation=paper", "task=shapes_vqa", "quant.bits=4"),
    "generation lavis": ("generation=lavis", "generation.question=raw", "task=shapes_vqa", "quant.bits=4"),
    "generation lavis questions": ("generation=lavis", "task=shapes_vqa", "quant.bits=4"),
    "generation seed": ("generation=seed", "quant.bits=4"),
    "generation knobs": ("generation.prompt='a photo of'", "generation.num_beams=3", "generation.max_new_tokens=9", "generation.min_new_tokens=2", "generation.length_penalty=-1", "part=none"),
    "task knobs": ("task.nll_references=2", "task.on_bad_image=skip", "part=none"),
    "study block_wise": ("+study=block_wise",),
    "study part_wise": ("+study=part_wise",),
    # A few of seed_grid's cells in their own words; the study itself takes seconds to plan, and its cells are such.
    "seed grid vit": ("quant=minmax", "quant.bits=16,3", "layers=mlp,attention+crossattention", "part=vit,vit+qformer,all", "per_part.vit.blocks=first,middle+last"),
    "seed grid llm": ("quant.method=minmax", "quant.bits=4", "layers=attention+crossattention,all", "part=llm,qformer+llm", "per_part.llm.blocks=last,all", "generation=seed"),
}  # fmt: skip
PLANNED_T5: dict[str, Words] = {
    "t5 encoder": ("part=llm.encoder",),
    "t5 decoder last": ("part=llm.decoder", "blocks=last", "quant.bits=3"),
    "t5 whole": ("part=llm", "quant=minmax"),
    "t5 thirds": ("part=llm", "blocks=last", "layers=mlp"),
    "t5 crossattention": ("part=llm+qformer", "layers=crossattention"),
    "t5 rules": ("part=all", "quant.bits=4", "rules.a.target=llm.decoder:all:mlp", "rules.a.bits=8"),
    "t5 keep": ("part=all", "quant.bits=4", "keep=llm.encoder:0"),
    "t5 gptq": ("part=llm", "quant=gptq", "calibration.n_samples=16"),
    "t5 awq vqa": ("part=llm.encoder", "quant.method=awq", "task=shapes_vqa", "calibration.n_samples=16"),
    "t5 lavis": ("generation=lavis", "generation.question=raw", "task=shapes_vqa", "part=llm"),
    "t5 packed": ("part=llm", "layers=attention", "quant=int8", "quant.packed=cpu"),
}  # fmt: skip
