"""The typed schema of the config. Its YAML is in `conf/`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from blip2sweep.config.schema_of_compression import QuantConfig, RecoverConfig, SparsityConfig


@dataclass
class ModelConfig:
    """A model: the folder of its weights, its dtypes, and its anatomy (see blip2sweep/models/anatomy.py)."""

    name: str = MISSING
    path: str | None = None  # a folder in the Hugging Face layout, or pkg://package/folder
    original: str | None = None  # of a quantized checkpoint: the folder of what it was made from, or `config`
    hub_id: str | None = None  # looked up in the local Hugging Face cache; nothing is downloaded
    architecture: str = "blip2"  # how it is computed: blip2sweep/models/architecture.py
    family: str = MISSING  # of its language model; of blip2: opt | t5
    dtype: str = "float32"  # float32 | bfloat16 | float16
    dtype_per_part: dict[str, str] = field(default_factory=dict)
    stored: str | None = None  # float16 | bfloat16: all numbers are rounded to it; null: stored as computed
    device_map: Any = None  # as in from_pretrained, for models larger than one GPU
    config: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    tied: list[Any] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)  # the user's text by kind of task, {} for a question
    chat: str | None = None  # around it: `template` is the checkpoint's chat template, else a text with {image} and {}
    adapter: dict[str, Any] = field(default_factory=dict)  # blip2sweep/models/image_text: how its model is called
    not_addressable: dict[str, str] = field(default_factory=dict)  # role -> why the model has no part of it
    allow_partial: bool = False  # sweep a model although most of its weights are in no linear layer


@dataclass
class CalibrationConfig:
    """The samples that calibrated methods measure. Other methods ignore them."""

    name: str = MISSING
    kind: str | None = None  # null: of the task itself (its train_split)
    format: str | None = None
    data_dir: str | None = None
    split: str | None = None
    text_only: bool = False
    n_samples: int = 128
    seed: int = 0
    upstream: str = "part"  # part | full | model
    image_token_weight: float = 1.0
    threads: int = 1  # CPU threads it runs on, whatever evaluates


@dataclass
class TaskConfig:
    """A data set and its kind of task."""

    name: str = MISSING
    kind: str = MISSING  # of KINDS in blip2sweep/tasks/task.py
    format: str = MISSING  # of FORMATS there
    data_dir: str = MISSING
    split: str = MISSING
    limit: int | None = None  # the first N samples in file order
    on_bad_image: str = "error"  # error | skip
    main_metric: str = MISSING
    nll_references: int = 1  # references scored under teacher forcing per sample; 0: none
    train_split: str | None = None  # where calibration=task takes its samples from
    note: str | None = None
    # Settings that some kinds and formats declare (blip2sweep/tasks/settings.py). Any: one value or a list of several; a
    # structured config of OmegaConf cannot say `str | list[str]`. Values are checked there.
    annotations: Any = None  # a file, or files, in place of the format's own; in data_dir
    domain: str | None = None  # nocaps: all, or the domain whose images are read
    guess: Any = None  # mmmu: what an answer without an option is worth
    images: str | None = None  # the folder of the images, in data_dir
    k: int | None = None  # retrieval: how many are ranked again
    lemmatize: Any = None
    ocr_tokens: bool | None = None  # textvqa: whether the words in the images are read too
    option_score: Any = None  # choice: what is compared of the options
    parse: Any = None
    rule: Any = None
    several_images: str | None = None  # mmmu: what becomes of questions with several pictures
    subjects: Any = None  # mmmu: one or several, in place of all
    tokenizer: Any = None


@dataclass
class GenerationConfig:
    """How text is generated: presets by kind of task and family, and single settings that override them."""

    name: str = MISSING
    presets: dict[str, Any] = field(default_factory=dict)  # kind of task -> model family -> settings
    prompt: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None  # of beam search; null: the preset's, else false
    question: str | None = None  # raw | lavis; null: raw


@dataclass
class ChatConfig:
    """The chat model of the in-context pipeline, and its endpoint, which is not part of a cell's identity."""

    name: str | None = None
    model: str | None = None
    variant: str = "caption"  # caption | questions | noun
    shots: int = 3  # worked examples before a question: 3 or 0
    temperature: float | None = None  # null: as published, step by step
    max_tokens: int | None = None  # null: as published
    seed: int = 0  # where the temperature is above 0
    lemmatize: str = "none"  # none | spacy: the own answer that the questions variant tells the chat model
    base_url: str | None = None  # what stands before /chat/completions
    online: bool = False  # whether workers ask themselves
    timeout: float = 60.0  # seconds for a whole reply
    retries: int = 6
    concurrency: int = 4  # requests at once
    price_in: float | None = None  # of a million tokens
    price_out: float | None = None


@dataclass
class BackendConfig:
    """What runs a cell; one that is not torch is part of the cell's identity."""

    name: str = "torch"  # one of blip2sweep.backends.backend.BACKENDS, or from outside
    options: dict[str, Any] = field(default_factory=dict)  # the back end's own, part of the identity
    # Short for options of this package's back ends. An option of the same name goes first.
    hints: str | None = None  # openvino: exact | default
    provider: str | None = None  # onnxruntime: cpu | cuda
    level: str | None = None  # onnxruntime: of its graph optimization


@dataclass
class TrackingConfig:
    """Where the rows are sent besides the ledger."""

    name: str | None = None  # wandb, or null
    mode: str = "online"  # online | offline
    project: str = "blip2sweep"
    entity: str | None = None


@dataclass
class AnalysisConfig:
    """What is measured besides the outputs. It is not part of a cell's identity."""

    propagation: bool = False  # per block, how far activations moved from full precision's
    noise_floor: bool = False  # calibrated cells again, with another seed and with other arithmetic
    latency: bool = False  # cells whose kernels really run are timed beside the baseline


@dataclass
class Config:
    """One cell."""

    model: ModelConfig = field(default_factory=ModelConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    recover: RecoverConfig = field(default_factory=RecoverConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    part: Any = "all"
    blocks: Any = "all"
    layers: Any = "all"
    per_part: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    keep: str | None = None
    drop_blocks: str | None = None
    steps: dict[str, Any] = field(default_factory=dict)  # further compressions: {kind: its options}
    recipe_file: str | None = None
    study: Any = None
    output_dir: str = "outputs"
    sweep_name: str | None = None
    batch_size: int | None = None  # null: automatic
    data_workers: int = 0
    scoring_minutes: float | None = None
    cache: str = "disk"  # disk | memory | off
    cache_gb: float = 20.0
    cache_memory_gb: float | None = None
    rerun: list[str] = field(default_factory=list)


GROUPS = (
    "model",
    "quant",
    "sparsity",
    "recover",
    "calibration",
    "task",
    "generation",
    "chat",
    "backend",
    "tracking",
    "study",
    "experiment",
)
# Their entries are named by the user, and checked where they are resolved.
OPEN = ("per_part.", "rules.", "steps.", "model.dtype_per_part.", "backend.options.")
# Of a whole command, not of a cell: a sweep over them would run with the first value and drop the others.
OF_THE_COMMAND = ("output_dir", "sweep_name", "rerun", "batch_size", "data_workers", "cache", "cache_gb", "cache_memory_gb",
                  "tracking", "analysis", *(f"chat.{key}" for key in (
                      "base_url", "online", "timeout", "retries", "concurrency", "price_in", "price_out")))  # fmt: skip


def register() -> None:
    """Make the schema known to Hydra, as `blip2sweep_schema`."""
    ConfigStore.instance().store(name="blip2sweep_schema", node=Config, provider="blip2sweep")


def known_keys() -> set[str]:
    """Every dotted key of the schema."""
    return set(_keys(Config(), ""))


def list_keys() -> set[str]:
    """Every dotted key of a task's settings whose value may be a list."""
    return {f"task.{f.name}" for f in fields(TaskConfig) if f.type == "Any"}


def text_keys() -> set[str]:
    """Every dotted key of the schema that holds a text; its values are never read as numbers."""
    return set(_keys(Config(), "", ("str", "str | None")))


def _keys(node: Any, prefix: str, types: tuple[str, ...] = ()) -> list[str]:
    found = []
    for f in fields(node):
        found += [prefix + f.name] if not types or f.type in types else []
        value = getattr(node, f.name)
        if is_dataclass(value):
            found += _keys(value, f"{prefix}{f.name}.", types)
    return found
