"""The typed schema of the config. Its YAML is in `conf/`; what each key means is said in reference.py, and nowhere else."""

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
    path: str | None = None
    original: str | None = None
    hub_id: str | None = None
    architecture: str = "blip2"
    family: str = MISSING
    dtype: str = "float32"
    dtype_per_part: dict[str, str] = field(default_factory=dict)
    stored: str | None = None
    device_map: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    tied: list[Any] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)
    chat: str | None = None
    adapter: dict[str, Any] = field(default_factory=dict)
    not_addressable: dict[str, str] = field(default_factory=dict)
    allow_partial: bool = False


@dataclass
class CalibrationConfig:
    """The samples that calibrated methods measure. Other methods ignore them."""

    name: str = MISSING
    kind: str | None = None
    format: str | None = None
    data_dir: str | None = None
    split: str | None = None
    text_only: bool = False
    n_samples: int = 128
    seed: int = 0
    upstream: str = "part"
    image_token_weight: float = 1.0
    threads: int = 1


@dataclass
class TaskConfig:
    """A data set and its kind of task."""

    name: str = MISSING
    kind: str = MISSING
    format: str = MISSING
    data_dir: str = MISSING
    split: str = MISSING
    limit: int | None = None
    on_bad_image: str = "error"
    main_metric: str = MISSING
    nll_references: int = 1
    train_split: str | None = None
    note: str | None = None
    # Settings that some kinds and formats declare (blip2sweep/tasks/settings.py). Any: one value or a list of several; a
    # structured config of OmegaConf cannot say `str | list[str]`. Values are checked there.
    annotations: Any = None
    domain: str | None = None
    guess: Any = None
    images: str | None = None
    k: int | None = None
    lemmatize: Any = None
    ocr_tokens: bool | None = None
    option_score: Any = None
    parse: Any = None
    rule: Any = None
    several_images: str | None = None
    subjects: Any = None
    tokenizer: Any = None


@dataclass
class GenerationConfig:
    """How text is generated: presets by kind of task and family, and single settings that override them."""

    name: str = MISSING
    presets: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    question: str | None = None


@dataclass
class ChatConfig:
    """The chat model of the in-context pipeline, and its endpoint, which is not part of a cell's identity."""

    name: str | None = None
    model: str | None = None
    variant: str = "caption"
    shots: int = 3
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    lemmatize: str = "none"
    base_url: str | None = None
    online: bool = False
    timeout: float = 60.0
    retries: int = 6
    concurrency: int = 4
    price_in: float | None = None
    price_out: float | None = None


@dataclass
class BackendConfig:
    """What runs a cell; one that is not torch is part of the cell's identity."""

    name: str = "torch"
    options: dict[str, Any] = field(default_factory=dict)
    # Short for options of this package's back ends. An option of the same name goes first.
    hints: str | None = None
    provider: str | None = None
    level: str | None = None


@dataclass
class TrackingConfig:
    """Where the rows are sent besides the ledger."""

    name: str | None = None
    mode: str = "online"
    project: str = "blip2sweep"
    entity: str | None = None


@dataclass
class AnalysisConfig:
    """What is measured besides the outputs. It is not part of a cell's identity."""

    propagation: bool = False
    noise_floor: bool = False
    latency: bool = False


@dataclass
class EvaluationConfig:
    """How many images a cell is evaluated on. It is not part of a cell's identity."""

    stop: str | None = "none"
    half_width: str | None = None
    tolerance: str | None = None


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
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    part: Any = "all"
    blocks: Any = "all"
    layers: Any = "all"
    per_part: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    keep: str | None = None
    drop_blocks: str | None = None
    steps: dict[str, Any] = field(default_factory=dict)
    recipe_file: str | None = None
    study: Any = None
    output_dir: str = "outputs"
    sweep_name: str | None = None
    batch_size: int | None = None
    data_workers: int = 0
    scoring_minutes: float | None = None
    cache: str = "disk"
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
                  "tracking", "analysis", "evaluation", *(f"chat.{key}" for key in (
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
