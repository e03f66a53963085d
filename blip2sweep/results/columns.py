"""The data dictionary of table.parquet: every column with its type, its unit, what it says and when it is null.

A fixed column is in every table. A name with a word in angle brackets, such as `drop_<metric>`, stands for several
columns; each is there where some row has it. Columns of a step, a task or a back end from outside stand behind those of
this list. docs/columns.md is made from it (`python scripts/columns_page.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from blip2sweep.recipe.part_bits import ROLES

TEXT, INTEGER, NUMBER, BOOLEAN, TIME = "text", "integer", "number", "boolean", "time"
TEXTS, INTEGERS = "list of texts", "list of integers"
# A table in which some row has `mixed` has texts there.
INTEGER_OR_MIXED, BOOLEAN_OR_MIXED = "integer or `mixed`", "boolean or `mixed`"

NEVER, FAILED, BASELINE = "never", "where the cell failed", "of the baseline"
UNTOUCHED = "where the part is left alone"
NO_BASELINE = "where the cell or its baseline is not scored, or was scored on other samples"
NOT_QUANTIZED = "where nothing is quantized"
PLAIN, UNTRAINED, UNCALIBRATED = "where no block is dropped", "where nothing is trained", "where nothing is calibrated"
RUN_HERE, UNTIMED = "where the cell was run here", "where the cell is not timed"
TORCH, NOT_PACKED, NO_CHAT = "where the back end is torch", "where no kernel is packed", "where no chat model is asked"
OLDER = "of rows of earlier versions"


class Column(NamedTuple):
    """name: with `<…>` for a part that varies. null: when it has no value."""

    name: str
    dtype: str
    unit: str
    meaning: str
    null: str

    @property
    def fixed(self) -> bool:
        """Whether every table has it."""
        return "<" not in self.name


class Section(NamedTuple):
    """Columns about one thing, in the order of the table."""

    title: str
    columns: tuple[Column, ...]


def _section(title: str, *columns: tuple[str, str, str, str, str]) -> Section:
    return Section(title, tuple(Column(*c) for c in columns))


# fmt: off
SECTIONS: tuple[Section, ...] = (
    _section(
        "What the cell is",
        ("key", TEXT, "", "the cell's identity: 12 hex digits of a hash of all that determines its predictions", NEVER),
        ("status", TEXT, "", "`done` or `failed`", NEVER),
        ("sweeps", TEXTS, "", "the sweeps that asked for the cell, oldest first; they own nothing", "never; empty where no sweep names it"),
        ("model", TEXT, "", "the model's name", NEVER),
        ("weights", TEXT, "", "12 hex digits of the fingerprint of its weights", "of imported rows"),
        ("original", TEXT, "", "the same of the weights that a quantized checkpoint was made from, and is compared with", "of plain checkpoints, and where none is named"),
        ("revision", TEXT, "", "the revision of the model on the Hub", "where none is known"),
        ("dtype", TEXT, "", "what the model computes in", NEVER),
        ("stored", TEXT, "", "the dtype in which sizes count what is not quantized", OLDER),
        ("linear_share", NUMBER, "share", "of the weights in blocks, what linear layers have", "where it is half or more"),
        ("task", TEXT, "", "the task's name", NEVER),
        ("samples", INTEGER, "samples", "how many the task has", "of imported rows that do not say it"),
        ("data", TEXT, "", "12 hex digits: ids, annotations and pictures of the samples", NEVER),
        ("data_images", TEXT, "", "12 hex digits of the pictures alone", "of imported rows"),
        ("exif", TEXT, "", "what is done with the orientation that a picture's file states", "of imported rows"),
        ("vqa_rule", TEXT, "", "how questions are scored, by their number of answers", "of other tasks, and without answers"),
        ("asks_for", TEXT, "", "`letter` or `choice`: how a question with options is asked", "of other tasks"),
        ("main_metric", TEXT, "", "the metric that the row is about", "where it is the first of the task's that has a value"),
        ("generation", TEXT, "", "the settings of generation, as JSON", NEVER),
        ("semantics", INTEGER, "", "the version of what computes the cell", NEVER),
    ),
    _section(
        "What is compressed, and how",
        ("part", TEXT, "", "the parts that are compressed: `none` for the baseline, `all`, or names joined by `+`", NEVER),
        ("bits", NUMBER, "bits", "the width of what is quantized", "where nothing is, and where parts differ"),
        ("bits_<part>", NUMBER, "bits", "the mean width of a part's touched weights, in the model's own names of parts; 16 for weights off the grid", UNTOUCHED),
        *((f"bits_{role}", NUMBER, "bits", f"the same over the parts whose role is {role}", UNTOUCHED) for role in ROLES),
        ("setting", TEXT, "", "all that is done but the width: `rtn/channel`, `gptq/group32/sym`, `without language:4-5 + rtn/channel`; `none` for the baseline", NEVER),
        ("blocks", TEXT, "", "the blocks that are quantized, or made sparse: a word, or one a part", NOT_QUANTIZED),
        ("layers", TEXT, "", "the layers in them, likewise", NOT_QUANTIZED),
        ("method", TEXT, "", "the method of quantization, or `mixed`", NOT_QUANTIZED),
        ("strategy", TEXT, "", "`tensor`, `channel` or `group`, or `mixed`", NOT_QUANTIZED),
        ("group_size", INTEGER_OR_MIXED, "weights", "that share a scale", "where the strategy is not `group`"),
        ("symmetric", BOOLEAN_OR_MIXED, "", "whether quantizers have no zero point", "where nothing is quantized, or the method has no choice"),
        ("input_bits", INTEGER_OR_MIXED, "bits", "the width of quantized inputs of layers", "where inputs are not quantized"),
        ("recipe", TEXT, "", "all steps, target by target, for people", NEVER),
        ("recipe_json", TEXT, "", "the same as JSON: what the analysis reads", NEVER),
        ("blocks_dropped", TEXT, "", "dropped blocks, such as `4-5` behind the name of their part", PLAIN),
        ("sparsity", TEXT, "", "how weights are made sparse, in a word", "where nothing is sparse, or training filled all zeros"),
        ("recover", TEXT, "", "how the model is trained afterwards, in a word", UNTRAINED),
        ("merged", BOOLEAN_OR_MIXED, "", "whether adapters are merged into the weights", UNTRAINED),
        ("checkpoint", TEXT, "", "what a checkpoint that others quantized holds, in words", "of plain checkpoints"),
        ("calibration", TEXT, "", "the samples that methods are calibrated on", UNCALIBRATED),
        ("calibration_samples", INTEGER, "samples", "how many they are", UNCALIBRATED),
        ("calibration_seed", INTEGER, "", "the seed that draws them", UNCALIBRATED),
        ("calibration_upstream", TEXT, "", "whether a layer's inputs come from compressed layers before it: `part`, `full` or `model`", UNCALIBRATED),
        ("calibration_threads", INTEGER, "threads", "that calibration computes on", UNCALIBRATED),
        ("calibration_data", TEXT, "", "12 hex digits of those samples and pictures", UNCALIBRATED),
        ("recover_samples", INTEGER, "samples", "that recovery trains on", UNTRAINED),
        ("recover_data", TEXT, "", "12 hex digits of them", UNTRAINED),
        ("backend", TEXT, "", "what ran the cell: `torch`, or another with its options as JSON", "of imported scores"),
        ("backend_options", TEXT, "", "what an import says of the server", "of rows that are not imported predictions"),
        ("outside", TEXT, "", "code that is no part of this package", "where there is none"),
        ("chat", TEXT, "", "what stands around the user's text, where the model's file says it", "of other models"),
        ("chat_model", TEXT, "", "the chat model that answers", NO_CHAT),
        ("chat_variant", TEXT, "", "the way of asking it", NO_CHAT),
        ("chat_shots", INTEGER, "examples", "in the prompt", NO_CHAT),
        ("chat_sampling", TEXT, "", "its settings of sampling, as JSON", NO_CHAT),
    ),
    _section(
        "Sizes",
        ("layers_touched", INTEGER, "layers", "that the recipe changes", OLDER),
        ("params_touched", INTEGER, "weights", "in them", OLDER),
        ("bits_per_weight_touched", NUMBER, "bits", "stored for each of them, scales and zero points with it", "where none is touched"),
        ("bits_per_weight", NUMBER, "bits", "the same over the whole model", OLDER),
        ("model_bytes", INTEGER, "bytes", "of the whole model as an export writes it", OLDER),
        ("compression_ratio", NUMBER, "", "16 bits a number, divided by `bits_per_weight`", OLDER),
        ("params", INTEGER, "parameters", "that are there, tied ones once", "of imported rows"),
        *((f"params_{role}", INTEGER, "parameters", f"of parts whose role is {role}", "of imported rows, and of models without such a part") for role in ROLES),
        ("params_nonzero", INTEGER, "parameters", "that are not zero by a mask", "of imported rows"),
    ),
    _section(
        "What it is compared with",
        ("baseline", TEXT, "", "the key of the cell with the empty recipe", NEVER),
        ("control", TEXT, "", "the key of the uncompressed model with the same recovery", UNTRAINED),
        ("beside", TEXT, "", "the key of torch's cell with the same recipe, or of its baseline", TORCH),
        ("like", TEXT, "", "the key of the cell whose samples imported predictions answer", RUN_HERE),
        ("imported", TEXT, "", "where the row was imported from", RUN_HERE),
        ("imported_key", TEXT, "", "the key that it had there", "of rows that are not from a table of this package"),
        ("imported_from", TEXT, "", "the name of the file of imported predictions", RUN_HERE),
        ("configs", INTEGERS, "", "the numbers of the published study's configs that are this row", "of other rows"),
        ("noop_configs", INTEGER, "configs", "how many of them have an entry without an effect", "of other rows"),
        ("attempts", INTEGER, "attempts", "how often it was started", NEVER),
        ("stale", BOOLEAN, "", "whether this version would compute it differently; such rows are not compared", NEVER),
    ),
    _section(
        "Metrics, and what they lost",
        ("<metric>", NUMBER, "of the metric", "the metric over all samples. Shares are from 0 to 1, `cider` from 0 to 10, `nll` in nats a token, `mean_length` in words", "where it is not scored"),
        ("scored_samples", INTEGER, "samples", "that are scored: without those whose picture cannot be read", "where nothing is scored"),
        ("images", INTEGER, "pictures", "of these samples: what intervals resample", NO_BASELINE),
        ("images_of", INTEGER, "pictures", "of the whole sample set; more than `images` where the cell stopped early", "as `images`"),
        ("stopped", TEXT, "", "why the cell stopped before it had seen all pictures: `below 50 %`, `known to ±5 %`, `within 5 %` or `loses more than 5 %`. Then metrics are what it keeps on its pictures, times the whole baseline's, and intervals have 99.5 % in place of 95 %", "never; empty where the cell is whole, null where it failed"),
        ("same_as_baseline", NUMBER, "share", "of outputs that are the baseline's, to the letter", NO_BASELINE),
        ("baseline_<metric>", NUMBER, "of the metric", "the baseline's value", NO_BASELINE),
        ("drop_<metric>", NUMBER, "of the metric", "how much worse the cell is; positive is worse, whichever way the metric goes", NO_BASELINE),
        ("drop_<metric>_low", NUMBER, "of the metric", "lower end of its 95 % interval: paired, over pictures", "without outputs, and of a metric that has no interval"),
        ("drop_<metric>_high", NUMBER, "of the metric", "upper end", "as its lower end"),
        ("changed_<metric>", INTEGER, "pictures", "on which the cell differs, of metrics that a table may be about", NO_BASELINE),
        ("retained_<metric>", NUMBER, "%", "the value as a percentage of the baseline's, of metrics that a table may be about; above 100 where lower is better and the cell is worse", "where there is no drop, or the baseline is 0"),
        ("retained_<metric>_low", NUMBER, "%", "lower end of the 95 % interval of that ratio: paired, over pictures; never below 0", "without outputs, and where the baseline is not above 0"),
        ("retained_<metric>_high", NUMBER, "%", "upper end", "as its lower end"),
        ("control_<metric>", NUMBER, "of the metric", "the control's value", UNTRAINED),
        ("drop_control_<metric>", NUMBER, "of the metric", "how much worse the cell is than its control", UNTRAINED),
        ("drop_control_<metric>_low", NUMBER, "of the metric", "lower end of its 95 % interval", UNTRAINED),
        ("drop_control_<metric>_high", NUMBER, "of the metric", "upper end", UNTRAINED),
        ("torch_<metric>", NUMBER, "of the metric", "what the cell of `beside` has", TORCH),
        ("noise_flip_rate", NUMBER, "share", "of the baseline's outputs that change in half precision at another batch size, with a picture read anew for each question", "in float32, and where nothing is generated twice"),
        ("noise_seed_flip_rate", NUMBER, "share", "of the cell's outputs that another calibration seed changes", "without `analysis.noise_floor=true`"),
        ("noise_arithmetic_flip_rate", NUMBER, "share", "of the cell's outputs that other arithmetic of the calibration changes", "without `analysis.noise_floor=true`"),
        ("noise_<metric>", NUMBER, "of the metric", "how much such a run changes the metric; `noise_seed_<metric>`, `noise_arithmetic_<metric>` likewise", "as its rate"),
    ),
    _section(
        "What it cost",
        ("seconds", NUMBER, "s", "of the cell, from reading the model to its outputs; scoring is not among them", FAILED),
        ("seconds_load", NUMBER, "s", "until the model was there", "where it was there already, and of other back ends"),
        ("seconds_apply", NUMBER, "s", "to compress it", FAILED),
        ("seconds_recover", NUMBER, "s", "of the whole training, in this cell or in one before it", UNTRAINED),
        ("seconds_trained", NUMBER, "s", "of it, in this cell", UNTRAINED),
        ("seconds_<stage>", NUMBER, "s", "of one stage of the computation; of cells that are answered together, the cell's share", "where the stage did not run"),
        ("hits_<stage>", NUMBER, "", "what was known already: pictures, answers, layers, or blocks a picture", "where nothing is shared"),
        ("images_per_second", NUMBER, "1/s", "pictures, over all stages", FAILED),
        ("samples_per_second", NUMBER, "1/s", "samples, likewise", FAILED),
        ("peak_memory_bytes", INTEGER, "bytes", "at most, on the device; on a CPU of the process", FAILED),
        ("batch_size", INTEGER, "samples", "that were computed together", FAILED),
        ("sequence_batch_size", INTEGER, "sequences", "that were computed together", FAILED),
        ("oom_halvings", INTEGER, "", "how often the batch was halved because memory ran out", FAILED),
        ("processes", INTEGER, "processes", "that shared the cell", "where it had one"),
        ("device", TEXT, "", "what computed it", FAILED),
        ("bad_images", INTEGER, "pictures", "that could not be read", FAILED),
        ("images_computed", INTEGER, "pictures", "that the back end was asked for, with those beyond the look at which the cell stopped", "where the cell could not stop early, and of earlier versions"),
        ("layers_written", INTEGER, "layers", "whose weights were computed for this cell", FAILED),
        ("gflops", NUMBER, "GFLOP", "of one sample, from shapes", "of models that do not say what they compute"),
        ("gflops_<stage>", NUMBER, "GFLOP", "the same by stage", "as `gflops`"),
        ("tokens_written", NUMBER, "tokens", "of a mean answer, its end with it", "where nothing is generated"),
        ("calibration_tokens", INTEGER, "tokens", "that the layer with the fewest saw", UNCALIBRATED),
        ("calibration_short", INTEGER, "layers", "that saw fewer than 4 tokens an input", UNCALIBRATED),
        ("calibration_deficient", INTEGER, "layers", "whose second moments lack rank", UNCALIBRATED),
        ("calibration_damp", NUMBER, "", "the largest damping", UNCALIBRATED),
        ("layer_error", NUMBER, "", "the mean relative error of layers' outputs on the calibration samples", UNCALIBRATED),
        ("recover_steps", INTEGER, "steps", "the step that held-out pictures chose; 0: before training", UNTRAINED),
        ("recover_loss", NUMBER, "nats a token", "on held-out references at that step", "where none is held out"),
        ("recover_loss_before", NUMBER, "nats a token", "of the compressed model", "where none is held out"),
        ("adapter", TEXT, "", "the digest of what training made", UNTRAINED),
        ("reproducible", BOOLEAN, "", "false where training may differ from run to run", "where it does not"),
        ("model_bytes_measured", INTEGER, "bytes", "of the model with packed kernels", NOT_PACKED),
        ("peak_bytes", INTEGER, "bytes", "of the model and what a run adds to it, on a GPU", NOT_PACKED),
        ("seconds_batch_1", NUMBER, "s", "a picture, one by one, with packed kernels", NOT_PACKED),
        ("seconds_batch_largest", NUMBER, "s", "a picture, in the largest batch", NOT_PACKED),
        ("batch_largest", INTEGER, "pictures", "in that batch", NOT_PACKED),
        ("bf16_<measure>", NUMBER, "as measured", "each of these, of the model in bf16 in the same run", NOT_PACKED),
        ("payload_bytes", INTEGER, "bytes", "of weights in the files that another back end reads", TORCH),
        ("export_bytes", INTEGER, "bytes", "of all of these files", TORCH),
        ("chat_<count>", NUMBER, "", "requests, tokens, cache hits, seconds and cost of a chat model", NO_CHAT),
    ),
    _section(
        "Where it was run",
        ("layers_changed", INTEGER, "layers", "whose weights differed after the recipe was applied", FAILED),
        ("threads", INTEGER, "threads", "of the CPU", FAILED),
        ("cpu", TEXT, "", "the processor", FAILED),
        ("cpu_capability", TEXT, "", "the instructions that torch uses", FAILED),
        ("versions", TEXT, "", "of the libraries", FAILED),
        ("attention", TEXT, "", "the implementation of attention", FAILED),
        ("image_processor", TEXT, "", "what makes pixels of pictures", FAILED),
        ("code", TEXT, "", "the revision of this package", "where it is not a checkout"),
        ("predictions", TEXT, "", "the hash of all predictions, likelihoods too", "of imported scores, and where the cell failed"),
        ("host", TEXT, "", "the machine", NEVER),
        ("job", TEXT, "", "Slurm's id of the job", "where Slurm did not run it"),
        ("finished", TIME, "UTC", "when the result was written", FAILED),
        ("failure", TEXT, "", "the kind of failure: `oom`, `timeout`, `crash`, …", "where the cell is done"),
        ("error", TEXT, "", "its message", "where the cell is done"),
    ),
    _section(
        "Latency and energy",
        ("latency_ms_median", NUMBER, "ms", "of one picture alone", UNTIMED),
        ("latency_ms_p90", NUMBER, "ms", "what nine of ten take at most", UNTIMED),
        ("latency_ms_baseline", NUMBER, "ms", "the baseline's median in turns with this cell", UNTIMED),
        ("latency_ratio", NUMBER, "", "cell / baseline, of these medians", UNTIMED),
        ("latency_ms_torch", NUMBER, "ms", "torch's median in the same turns", TORCH),
        ("latency_ratio_torch", NUMBER, "", "cell / torch", TORCH),
        ("energy_joules", NUMBER, "J", "a picture", "where the device does not count it"),
        ("energy_ratio", NUMBER, "", "cell / baseline", "where the device does not count it"),
        ("latency_<measure>_batch", NUMBER, "as alone", "each of these in the largest batch, a picture", UNTIMED),
        ("energy_<measure>_batch", NUMBER, "as alone", "likewise", "where the device does not count it"),
        ("latency_batch", INTEGER, "pictures", "in that batch", UNTIMED),
        ("latency_device", TEXT, "", "where it was timed", UNTIMED),
        ("latency_threads", INTEGER, "threads", "of the CPU meanwhile", UNTIMED),
        ("latency_samples", INTEGER, "samples", "that an imported file times", RUN_HERE),
    ),
)
# fmt: on
COLUMNS: tuple[Column, ...] = tuple(c for section in SECTIONS for c in section.columns)
