"""What every key means: the one place where it is said. `--help`, docs/configuration.md, docs/schema.json and tab
completion are made from it, and a test holds it to the schema.
"""

from __future__ import annotations

from blip2sweep.config.means import COMMAND, CONTENT, NAMES, OUT, POSITIVE, SCORE
from blip2sweep.config.means import Means as M

# fmt: off
MODEL = {
    "name": M("of the model in tables", right="a text", counts=NAMES),
    "path": M("folder of the weights in the Hugging Face layout; without model=NAME the model is read from it", right="FOLDER or pkg://PACKAGE/FOLDER", counts=CONTENT),
    "original": M("of a quantized checkpoint: the folder of what it was made from, as baseline", "config", "FOLDER", CONTENT),
    "hub_id": M("looked up in the local Hugging Face cache; nothing is downloaded", right="OWNER/NAME", counts=CONTENT),
    "architecture": M("how it is computed", "blip2 blip2_retrieval blip_caption blip_vqa image_text instructblip", "one of your own"),
    "family": M("of its language model: chooses presets of generation", "opt t5 llama decoder bert", "another of its architecture"),
    "dtype": M("what it is computed in", "float32 bfloat16 float16"),
    "dtype_per_part": M("model.dtype_per_part.PART=DTYPE: another dtype for one part", right="{PART: DTYPE}"),
    "stored": M("all numbers are rounded to it first; null: stored as computed", "float16 bfloat16"),
    "device_map": M("as in from_pretrained, for models larger than one GPU", "auto", "{MODULE: DEVICE}"),
    "config": M("dimensions, as in the checkpoint's config.json", right="{NAME: VALUE}"),
    "parts": M("its anatomy: block stacks and the layers of each kind (docs/models.md)", right="{PART: {role, stacks, layers}}"),
    "tied": M("modules that share one weight, counted once", right="[[MODULE, MODULE]]"),
    "prompts": M("the user's text by kind of task", right="{KIND: 'text with {} for the question'}"),
    "chat": M("what stands around a prompt", "template", "a text with {image} and {}"),
    "adapter": M("how an image_text model is called (docs/models.md)", right="{NAME: VALUE}"),
    "not_addressable": M("roles that no part has, and why", right="{ROLE: REASON}", counts=OUT),
    "allow_partial": M("sweep a model although most of its weights are in no linear layer", counts=OUT),
}
TASK = {
    "name": M("of the task in tables", right="a text", counts=NAMES),
    "kind": M("what is asked, and how it is scored", "caption choice exam gqa incontext letter retrieval vqa yes_no", "one of your own"),
    "format": M("how the files are read", "coco gqa jsonl karpathy mmmu pope scienceqa textvqa vizwiz vqav2", "one of your own"),
    "data_dir": M("folder of annotations and images", right="FOLDER", counts=CONTENT),
    "split": M("which samples", right="a split that the files have"),
    "limit": M("the first N samples in file order, of VQA questions and not images; null: all", right=POSITIVE),
    "on_bad_image": M("what becomes of an image that cannot be read", "error skip"),
    "main_metric": M("the metric of drops, pictures and recommendations", right="a metric of the kind, such as cider or vqa_accuracy", counts=SCORE),
    "nll_references": M("references scored under teacher forcing per sample; 0: none", right="an integer from 0 up"),
    "train_split": M("where calibration=task and recover take their samples from", right="a split that the files have"),
    "note": M("said wherever its numbers are shown", right="a text", counts=SCORE),
    "annotations": M("a file, or a list of files, in place of the format's own", right="FILE in data_dir", counts=CONTENT),
    "domain": M("nocaps: whose images are read", "all in-domain near-domain out-domain"),
    "guess": M("mmmu: what an answer without an option is worth", "seeded expected", counts=SCORE),
    "images": M("the folder of the images", right="FOLDER in data_dir", counts=CONTENT),
    "k": M("retrieval: how many are ranked again", right=POSITIVE),
    "lemmatize": M("vqa: whether answers are lemmatised before they are compared", "none spacy", counts=SCORE),
    "ocr_tokens": M("textvqa: whether the words in the images are read too"),
    "option_score": M("choice: what is compared of the options", "sum mean", counts=SCORE),
    "parse": M("incontext: how a reply is read", "published sane", counts=SCORE),
    "rule": M("how an answer is matched; one or several as a list", "official lavis evalai llava lmms", counts=SCORE),
    "several_images": M("mmmu: what becomes of questions with several pictures", "first skip error"),
    "subjects": M("mmmu: one or several as a list, in place of all", right="SUBJECT or [SUBJECT,SUBJECT]"),
    "tokenizer": M("caption: how words are split", "ptb none", counts=SCORE),
}
GENERATION = {
    "name": M("of the presets", right="a text", counts=NAMES),
    "presets": M("settings by kind of task and family", right="{KIND: {FAMILY: {NAME: VALUE}}}"),
    "prompt": M("text before the answer, {} for the question; '': none", right="a text"),
    "num_beams": M("beams of beam search; 1: greedy", right=POSITIVE),
    "max_new_tokens": M("at most so many tokens", right=POSITIVE),
    "min_new_tokens": M("at least so many tokens", right="an integer from 0 up"),
    "length_penalty": M("of beam search: above 0 longer texts win", right="a number"),
    "early_stopping": M("of beam search: it ends when there are num_beams texts; null: the preset's, else false"),
    "question": M("how a question is written", "raw lavis"),
}
QUANT = {
    "method": M("how weights are rounded", "minmax rtn mse hqq nf4 fp4 int8 float8 gptq awq awq_prescale smoothquant", "one of a back end or of your own"),
    "bits": M("width of a weight; none: left alone", "none 2 3 4 8", "another of 1-8 (16 means none, but for minmax)"),
    "strategy": M("how many weights share a scale; null: the method's own", "tensor channel group"),
    "group_size": M("strategy=group: weights of a row that share a scale", "32 64 128", "another positive integer"),
    "symmetric": M("whether zero points are left out"),
    "quantize_bias": M("minmax: biases too"),
    "act_order": M("gptq: columns of large inputs first"),
    "static_groups": M("gptq: scales of all groups are set before the first column"),
    "damp": M("gptq: share of the Hessian's mean diagonal that is added to it", right="a number from 0 to 1"),
    "block_size": M("gptq: columns that are updated at once", right=POSITIVE),
    "grid": M("mse, awq: how many candidates the search tries", right=POSITIVE),
    "norm": M("mse: the power of the error that is minimised", right="a number from 0.5 to 8"),
    "clip": M("awq: search the range as well"),
    "alpha": M("smoothquant: how much of the difficulty moves into the weights", right="a number from 0 to 1"),
    "packed": M("run the library's packed kernel, and measure it; true: on the device that runs", "true false cpu cuda"),
    "input": M("how the inputs of quantized layers are rounded; simulated", right="{bits, strategy, symmetric, dynamic}"),
    "input.bits": M("width of an input; none: left alone", "none 8 4", "another of 2-8"),
    "input.strategy": M("what shares a scale; null: token", "token tensor"),
    "input.symmetric": M("whether zero points are left out; null: true"),
    "input.dynamic": M("whether ranges are each input's own; null: true for token. tensor: false, the range of calibration samples"),
}
SPARSITY = {
    "method": M("which weights become zero; null: none", "magnitude wanda"),
    "ratio": M("share of the weights of a row that become zero", right="a number from 0 to 1"),
    "pattern": M("2of4: two of each four neighbours", "unstructured 2of4"),
    "packed": M("run the 2:4 kernel, and measure it", "true false cuda"),
}
RECOVER = {
    "method": M("training after compression (extra: recover); null: none", "lora qlora full"),
    "target": M("what is trained; null: all parts whose role is not vision", right="PART:BLOCKS:LAYERS, parts joined with +"),
    "loss": M("distill: the uncompressed model is the teacher as well", "task distill"),
    "rank": M("of the adapters", right=POSITIVE),
    "alpha": M("scale of the adapters; null: twice the rank", right="a number above 0"),
    "steps": M("of training", right=POSITIVE),
    "learning_rate": M("of training", right="a number above 0 and at most 1"),
    "batch_size": M("samples of a step", right=POSITIVE),
    "seed": M("of order and adapters", right="an integer from 0 up"),
    "holdout": M("share of the training images that choose the step", right="a number from 0 to 0.5"),
    "temperature": M("distill: of both distributions", right="a number above 0"),
    "distill_weight": M("distill: of the teacher's loss beside the task's", right="a number above 0 and at most 1"),
    "merge": M("adapters are added into the weights"),
    "requantize": M("merged weights are quantized again"),
    "processes": M("that share each step", right="an integer from 1 to 64"),
    "n_samples": M("of the training split; null: all", right=POSITIVE),
    "split": M("which samples train; null: task.train_split", right="a split that the files have"),
    "data_dir": M("of the training split; null: the task's", right="FOLDER", counts=CONTENT),
}
CALIBRATION = {
    "name": M("of the samples", right="a text", counts=NAMES),
    "kind": M("of the samples; null: of the task itself", "caption vqa", "another kind of task"),
    "format": M("how the files are read", "coco vqav2", "another format of task"),
    "data_dir": M("folder of the samples", right="FOLDER", counts=CONTENT),
    "split": M("which samples", right="a split that the files have"),
    "text_only": M("images are left out"),
    "n_samples": M("captions' images, or questions", right=POSITIVE),
    "seed": M("which of the split", right="an integer from 0 up"),
    "upstream": M("what precedes a block: quantized inside its part (part), full precision (full), quantized throughout (model)", "part full model"),
    "image_token_weight": M("how much an image token counts beside a text token in the language model", right="a number"),
    "threads": M("CPU threads that it runs on, whatever evaluates", right=POSITIVE),
}
CHAT = {
    "name": M("the chat model's endpoint; null: none", right="a text", counts=NAMES),
    "model": M("as the endpoint calls it", right="a text"),
    "variant": M("of the published pipeline", "caption questions noun"),
    "shots": M("worked examples before a question", "0 3"),
    "temperature": M("null: as published, step by step", right="a number from 0 to 2"),
    "max_tokens": M("of a reply; null: as published", right=POSITIVE),
    "seed": M("where the temperature is above 0", right="an integer from 0 up"),
    "lemmatize": M("the own answer that variant questions tells the chat model", "none spacy"),
    "base_url": M("what stands before /chat/completions", right="URL", counts=COMMAND),
    "online": M("whether workers ask themselves; false: `blip2sweep ask` does", counts=COMMAND),
    "timeout": M("seconds for a whole reply", right="a number above 0", counts=COMMAND),
    "retries": M("after a failed request", right="an integer from 0 up", counts=COMMAND),
    "concurrency": M("requests at once", right=POSITIVE, counts=COMMAND),
    "price_in": M("of a million tokens, for the column chat_cost", right="a number", counts=COMMAND),
    "price_out": M("of a million tokens", right="a number", counts=COMMAND),
}
BACKEND = {
    "name": M("what runs a cell", "torch openvino onnxruntime dummy", "one of your own"),
    "options": M("backend.options.NAME=VALUE: the back end's own", right="{NAME: VALUE}"),
    "hints": M("openvino: float32 with the texts of torch, or what the plugin chooses", "exact default"),
    "provider": M("onnxruntime: what computes", "cpu cuda"),
    "level": M("onnxruntime: of its graph optimization", "none basic extended all"),
}
TRACKING = {
    "name": M("where rows go besides the ledger", "wandb", counts=COMMAND),
    "mode": M("offline: files for `wandb sync`", "online offline", counts=COMMAND),
    "project": M("of W&B", right="a text", counts=COMMAND),
    "entity": M("of W&B; null: yours", right="a text", counts=COMMAND),
}
ANALYSIS = {
    "propagation": M("per block, how far activations moved (propagation.parquet)", counts=COMMAND),
    "noise_floor": M("calibrated cells again, with another seed and other arithmetic (noise_… columns)", counts=COMMAND),
    "latency": M("cells whose kernels really run are timed beside the baseline (latency_… columns)", counts=COMMAND),
}
EVALUATION = {
    "stop": M("images are drawn in random order until what a cell keeps of its baseline is known, or only on which side of the tolerance it is (docs/stopping.md); none: all images", "none known verdict", counts=COMMAND),
    "half_width": M("known: half the width of the 99.5 % interval at which a cell stops; null: 5%", right="5% or 0.05 of the baseline", counts=COMMAND),
    "tolerance": M("verdict: what a cell may lose; null: 5%", right="5% or 0.05 of the baseline", counts=COMMAND),
}
RECIPE = {
    "part": M("what is compressed; none: the baseline; joined with +", "all none vision connector language", "the model's own names (blip2sweep model list)"),
    "blocks": M("which of its blocks; each: one cell a block; joined with +", "all each first middle last", "3 or 0-12"),
    "layers": M("which linear layers of a block; joined with +", "all attention crossattention mlp", "a leaf name such as fc2"),
    "per_part": M("per_part.vision.bits=8: any option of quant, for one part", right="{PART: {OPTION: VALUE}}"),
    "rules": M("rules.NAME.target=language:all:fc2 rules.NAME.bits=8: ordered exceptions, the last wins", right="{NAME: {target, OPTION: VALUE}}"),
    "keep": M("a target that is left alone; vision:each leaves one block out per cell", right="PART:BLOCKS:LAYERS"),
    "drop_blocks": M("whole blocks left out, before all else; each: one cell a block", right="PART:BLOCKS such as connector:6-11"),
    "steps": M("further compressions: steps.KIND.target=vision:0, its options, steps.KIND.order", right="{KIND: {target, order: before or after, …}}"),
    "recipe_file": M("a YAML file that gives the recipe target by target; `recommend` writes one", right="FILE", counts=CONTENT),
    "study": M("a named set of sweeps of conf/study", right="[['part=vision', 'quant.bits=2,4'], …] in a file", counts=OUT),
}
RESULTS = {
    "output_dir": M("folder of the ledger and of all that is made of it (--output-dir, BLIP2SWEEP_OUTPUT_DIR)", right="FOLDER", counts=COMMAND),
    "sweep_name": M("null: date, time and a random tail", right="a name without /", counts=COMMAND),
    "rerun": M("keys to compute again (--rerun KEY)", right="[KEY,KEY]", counts=COMMAND),
}
RUN = {
    "batch_size": M("samples at once; null: automatic, halved when memory runs out", right=POSITIVE, counts=COMMAND),
    "data_workers": M("processes that decode images", right="an integer from 0 up", counts=COMMAND),
    "scoring_minutes": M("scoring that is silent for so long is stopped; null: 5, and 0.02 s for each text", right="a number", counts=OUT),
    "cache": M("what cells share: between jobs too, of one worker, nothing", "disk memory off", counts=COMMAND),
    "cache_gb": M("of output_dir/cache; the least recently used goes first", right="a number", counts=COMMAND),
    "cache_memory_gb": M("of the device and of the host, each; null: a share of what is free", right="a number", counts=COMMAND),
    "hydra.launcher.workers": M("processes; null: one a GPU, or one", right=POSITIVE, counts=COMMAND),
    "hydra.launcher.processes_per_cell": M("that share the images of each cell, each on a GPU of its own", right=POSITIVE, counts=COMMAND),
}
SLURM = {
    "hydra.launcher.partition": M("of sbatch", right="a text", counts=COMMAND),
    "hydra.launcher.account": M("of sbatch", right="a text", counts=COMMAND),
    "hydra.launcher.qos": M("of sbatch", right="a text", counts=COMMAND),
    "hydra.launcher.clusters": M("of several that share a slurmdbd; \\'a,b\\' takes the one that starts first", right="a text", counts=COMMAND),
    "hydra.launcher.timeout_min": M("a pack's wall time; a pack that does not fit is requeued and goes on", right=POSITIVE, counts=COMMAND),
    "hydra.launcher.cpus_per_task": M("of sbatch", right=POSITIVE, counts=COMMAND),
    "hydra.launcher.gpus_per_node": M("null on a cluster without gres; a pack uses one GPU (docs/cluster.md for more)", right="4 or a100:4", counts=COMMAND),
    "hydra.launcher.tasks_per_node": M("so many workers share a job", right=POSITIVE, counts=COMMAND),
    "hydra.launcher.mem_gb": M("memory of a job", right="a number", counts=COMMAND),
    "hydra.launcher.nodes": M("a pack runs on one node", "1", counts=COMMAND),
    "hydra.launcher.array_parallelism": M("packs that run at a time", right=POSITIVE, counts=COMMAND),
    "hydra.launcher.name": M("of the jobs", right="a text", counts=COMMAND),
    "hydra.launcher.setup": M("shell lines before the worker", right="[\"module load cuda\"]", counts=COMMAND),
    "hydra.launcher.signal_delay_s": M("USR2 comes so long before the wall time ends", right="an integer from 0 up", counts=COMMAND),
    "hydra.launcher.max_num_timeout": M("times a pack may be requeued when it runs out of wall time", right="an integer from 0 up", counts=COMMAND),
    "hydra.launcher.additional_parameters": M("any other flag of sbatch: '+hydra.launcher.additional_parameters.reservation=x'", right="{FLAG: VALUE}", counts=COMMAND),
    "hydra.launcher.srun_args": M("options of srun", right="[\"--mpi=none\"]", counts=COMMAND),
    "hydra.launcher.wait": M("false: return when the jobs are queued", counts=COMMAND),
    "hydra.launcher.pack_minutes": M("no pack is longer, as far as costs are known; 0: one cell a pack", right="a number from 0 up", counts=COMMAND),
    "hydra.launcher.max_packs": M("at most so many packs", right=POSITIVE, counts=COMMAND),
    **{f"hydra.launcher.{name}": M("of sbatch", right="as in sbatch", counts=COMMAND) for name in (
        "constraint", "exclude", "gres", "gpus_per_task", "cpus_per_gpu", "mem_per_gpu", "mem_per_cpu")},
    "hydra.launcher.comment": M("by which jobs are found whose submitter died; best left null", right="a text", counts=COMMAND),
    "hydra.launcher.stderr_to_stdout": M("one log a pack", counts=COMMAND),
}
# fmt: on
