"""The settings of a launcher, as `hydra.launcher` has them and as a sweep's file keeps them."""

from __future__ import annotations

from typing import TypedDict


class Launcher(TypedDict, total=False):
    """The settings that this package reads, under hydra-submitit-launcher's names. All others are passed on to sbatch
    unchanged."""

    name: str
    cpus_per_task: int
    stderr_to_stdout: bool
    workers: int | None  # of the local launcher: number of processes
    processes_per_cell: int | None  # that share the samples of each cell
    partition: str | None
    clusters: str | None
    timeout_min: int
    gpus_per_node: int | str | None
    gpus_per_task: int | str | None
    gres: str | None
    tasks_per_node: int
    nodes: int
    mem_gb: float
    array_parallelism: int
    setup: list[str] | None
    teardown: list[str] | None
    srun_args: list[str] | None
    signal_delay_s: int
    max_num_timeout: int
    additional_parameters: dict[str, object]
    wait: bool
    pack_minutes: float
    max_packs: int | None
