"""The topics of `--help`: which keys belong together, and what is said before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from blip2sweep.config import reference
from blip2sweep.config.means import Means


@dataclass(frozen=True)
class Topic:
    """One topic. title: what stands beside it in the list of topics; section: the config section of its keys, if they have
    one; keys: by name without the section; text: lines before the keys."""

    title: str
    section: str = ""
    keys: Mapping[str, Means] = field(default_factory=dict)
    text: tuple[str, ...] = ()


GRID = (
    "key=value sets a key, key=a,b,c makes a cell of each value, several lists multiply:",
    "  blip2sweep -m quant.bits=2,4,8 part=vision,language          6 cells and their baseline",
    "  blip2sweep -m blocks=each part=vision quant.bits=3           one cell a block",
    "  blip2sweep -m 'quant.bits=range(2,6)' 'quant=glob(nncf_*)'   Hydra's own functions, in quotes",
    "group=NAME takes a file of conf/, or of your own folder (--config-dir FOLDER): quant=gptq, task=vqav2.",
    "A cell that is done is not run again; the baseline is added; a value that nothing uses is refused.",
    "What a value means is planned first: `blip2sweep plan …the same words` says it, and runs nothing.",
)
EXPERIMENT = (
    "An experiment is a YAML file of values and choices that are typed together, as in Hydra's documentation:",
    "  mine/experiment/small.yaml:   # @package _global_",
    "                                defaults:",
    "                                  - override /quant: gptq",
    "                                quant: {bits: 3}",
    "                                task: {limit: 200}",
    "  blip2sweep --config-dir mine +experiment=small part=vision,language",
    "Words on the command line go before it. Several make cells of each: +experiment=small,large or 'experiment=glob(*)'.",
    "`study: [['part=vision,language', 'quant.bits=2,4']]` in it makes a sweep of it; conf/experiment has examples.",
    "An editor that knows YAML schemas checks the file while it is written: blip2sweep --schema > schema.json, and as the",
    "file's first line  # yaml-language-server: $schema=../schema.json",
)
FLAGS = (
    "-m, --multirun            a sweep; every command is one here, so it may be left out",
    "--output-dir DIR          where results are (BLIP2SWEEP_OUTPUT_DIR, key output_dir)",
    "--rerun KEY               compute a cell again",
    "--config-dir DIR, -cd     a folder with YAML and Python files of your own (docs/extending.md)",
    "--config-name NAME, -cn   another primary config",
    "--cfg job, -c job         print the config of one cell; --resolve with interpolations resolved",
    "--info all                how it was composed",
    "--help [WORD …], -h       topics; a topic; a key such as quant.bits; a choice such as quant=gptq; a verb",
    "--version, -V             of blip2sweep, Python and the main libraries",
    "--schema [GROUP]          the JSON schema of an experiment's YAML, or of a group's, for editors",
    '-sc install=SHELL         tab completion for bash, zsh or fish: eval "$(blip2sweep -sc install=bash)"; also uninstall',
    "--hydra-help              flags of Hydra",
)
RESULTS = (
    "The ledger in output_dir is the truth; tables and pages are made of it again at any time:",
    "  blip2sweep sweeps                                   what there is: age, cells, state, command",
    "  blip2sweep table, report, recommend, suggest        of the newest sweep, of SWEEP, or of --all cells",
    "  blip2sweep screen …                                 the frontier of a grid, most of it not run",
    "  blip2sweep status, wait, retry, cancel, logs KEY    while a sweep runs, from any shell",
    "  blip2sweep forget, merge OTHER, collect             out of all tables, from another folder, made anew",
    "docs/columns.md says what each column of a table means, docs/results.md how to move, share and delete results.",
)
SLURM = (
    "hydra/launcher=slurm submits packs of cells as job arrays (docs/cluster.md). `blip2sweep plan … hydra/launcher=slurm`",
    "prints the batch script, also where no Slurm answers. Names are those of hydra-submitit-launcher and sbatch.",
)

R = reference
TOPICS: dict[str, Topic] = {
    "grid": Topic("how several values make a sweep", text=GRID),
    "model": Topic("which model: model=NAME, or model.path=FOLDER of its weights", "model", R.MODEL),
    "task": Topic("data, kind of task and metrics: task=NAME", "task", R.TASK),
    "generation": Topic("how text is generated: generation=NAME", "generation", R.GENERATION),
    "recipe": Topic("what is compressed: part, blocks, layers, exceptions, studies", keys=R.RECIPE),
    "quant": Topic("quantization: quant=NAME and its options", "quant", R.QUANT),
    "sparsity": Topic("weights that become zero: sparsity=NAME", "sparsity", R.SPARSITY),
    "recover": Topic("training after compression: recover=NAME", "recover", R.RECOVER),
    "calibration": Topic("the samples that calibrated methods measure: calibration=NAME", "calibration", R.CALIBRATION),
    "backend": Topic("what runs a cell: backend=NAME", "backend", R.BACKEND),
    "chat": Topic("the chat model of the in-context pipeline: chat=NAME", "chat", R.CHAT),
    "analysis": Topic("what is measured besides the outputs", "analysis", R.ANALYSIS),
    "evaluation": Topic("when a cell has seen enough images", "evaluation", R.EVALUATION),
    "tracking": Topic("W&B: tracking=wandb", "tracking", R.TRACKING),
    "results": Topic("where results are, and how to come back to them", keys=R.RESULTS, text=RESULTS),
    "run": Topic("this machine: workers, batches, shared work", keys=R.RUN),
    "slurm": Topic("a cluster: hydra/launcher=slurm", keys=R.SLURM, text=SLURM),
    "experiment": Topic("YAML files of your own: +experiment=NAME", text=EXPERIMENT),
    "flags": Topic("flags, of Hydra and of ours", text=FLAGS),
}
ALIASES = {
    "hydra/launcher": "slurm", "hydra.launcher": "slurm", "launcher": "slurm", "sbatch": "slurm", "sweep": "grid", "sweeps": "grid",
    "hydra": "flags", "completion": "flags", "schema": "experiment", "wandb": "tracking", "memory": "run", "local": "run",
    "output": "results", "studies": "recipe",
}  # fmt: skip
