"""Slurm as commands in a folder: which cluster is asked, in what environment, and what becomes of odd answers."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from submitit.slurm.slurm import SlurmInfoWatcher

from blip2sweep.commands.sweeps import cancel, retry, wait
from blip2sweep.config.overrides import check_keys, parse
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.results.ledger import Journal
from blip2sweep.results.sweeps import Submission, Sweep, find_sweep
from blip2sweep.running import progress, slurm_commands
from blip2sweep.running.queue import queue_state
from blip2sweep.running.slurm_commands import for_submitit, submission_env
from blip2sweep.running.status import print_status
from blip2sweep.slurm.launch import queue_sweep, removed_variables
from blip2sweep.slurm.settings import checked_launcher
from blip2sweep.slurm.submit import batch_script, write_merged
from tests.planning.test_packs import jobs
from tests.workers.test_requeue import fake

LAUNCHER = {"timeout_min": 5, "max_packs": 1, "array_parallelism": 4, "name": "b", "wait": False}
# Each cluster has a queue of its own, a file of lines `job|array|index|state|reason|comment`; `down` means it does not answer.
COMMANDS = {
    "scontrol": 'echo "ClusterName = home"; echo "MaxArraySize = 1001"',
    "srun": "exit 0",
    "sbatch": """
for f in "$@"; do :; done
cp "$f" $S/script; env -0 > $S/env
c=$(sed -n 's/^#SBATCH --clusters=//p' "$f"); c=${c%%,*}
n=$(($(cat $S/number 2>/dev/null || echo 40) + 1)); echo $n > $S/number
echo "$n|$n|N/A|RUNNING|None|$(sed -n "s/^#SBATCH --comment='\\(.*\\)'/\\1/p" "$f")" >> $S/queue-${c:-home}
[ -e $S/mute ] && exit 1
echo "Submitted batch job $n${c:+ on cluster $c}" """,
    "squeue": """
c=home; [ "$1" = -M ] && c=$2
[ -e $S/down ] || [ -e $S/down-$c ] && exit 1
for x in ${c//,/ }; do [ "$1" = -M ] && { echo "CLUSTER: $x"; echo "JOBID|A|B|C|D|E"; }; cat $S/queue-$x 2>/dev/null; done; exit 0""",
    "scancel": """
c=home; [ "$1" = -M ] && { c=$2; shift 2; }
[ -e $S/down ] && { echo "scancel: error: no controller" >&2; exit 1; }
for j in "$@"; do grep -q "^$j|" $S/queue-$c || exit 1; sed -i "/^$j|/d" $S/queue-$c; done""",
}


class Site:
    """What the stub commands see and leave."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output_dir = folder / "site", folder / "out"
        self.folder.mkdir()
        for name, script in COMMANDS.items():
            fake(folder / "bin", name, f"S={self.folder}\n{script}")

    def queued(self, cluster: str) -> list[str]:
        path = self.folder / f"queue-{cluster}"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def down(self, cluster: str = "") -> None:
        (self.folder / ("down-" + cluster if cluster else "down")).touch()

    def submit(self, name: str = "s", **launcher: Any) -> Submission:
        made = jobs()[:2]
        keys = [j["key"] for j in made]
        sweep = Sweep(name, "command", time.time(), keys, keys[:1])
        return queue_sweep(made, sweep, self.output_dir, {**LAUNCHER, **launcher})

    @property
    def sweep(self) -> Sweep:
        return find_sweep(self.output_dir, "s")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_CLUSTERS", "SBATCH_CLUSTERS"):
        monkeypatch.delenv(name, raising=False)
    slurm_commands.local_cluster.cache_clear()
    yield Site(tmp_path)  # type: ignore[misc]
    slurm_commands.local_cluster.cache_clear()


# ---- clusters


@pytest.mark.parametrize("said", [{"clusters": "alpha"}, {"clusters": "alpha,beta"}, {"additional_parameters": {"M": "alpha"}},
                                  {"additional_parameters": {"clusters": "alpha"}}])  # fmt: skip
def test_every_query_names_the_cluster_that_has_the_jobs(
    site: Site, said: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The cluster here has a job of the same number."""
    (site.folder / "queue-home").write_text("41|41|N/A|PENDING|Held|somebody's\n")
    submission = site.submit(**said)
    assert submission.arrays == [{"job": "41", "first": 0, "count": 1, "cluster": "alpha"}]
    assert list(queue_state(site.sweep, site.output_dir).packs.values()) == ["running"]
    retry(site.output_dir, "s", None, False)
    assert "nothing to run again" in capsys.readouterr().err
    assert len(site.queued("alpha")) == 1
    cancel(site.output_dir, "s")
    assert site.queued("alpha") == []
    assert len(site.queued("home")) == 1
    retry(site.output_dir, "s", None, False)
    assert [line.split("|")[0] for line in site.queued("alpha")] == ["42"]
    assert site.sweep.submissions[-1].arrays[0]["cluster"] == "alpha"


def test_a_shell_on_another_cluster_asks_that_of_the_jobs(site: Site) -> None:
    """Job numbers are a cluster's: here 41 is nobody's, or another's."""
    site.submit()
    assert queue_state(site.sweep, site.output_dir).jobs == {(None, "41")}
    fake(site.folder.parent / "bin", "scontrol", 'echo "ClusterName = other"')
    slurm_commands.local_cluster.cache_clear()
    assert queue_state(site.sweep, site.output_dir).jobs == {("home", "41")}


def test_jobs_whose_number_was_never_heard_are_found_on_every_cluster_and_withdrawn(site: Site) -> None:
    (site.folder / "mute").touch()
    with pytest.raises(UserError, match="Slurm refused the jobs"):
        site.submit(clusters="alpha,beta")
    assert site.queued("alpha") == []
    assert not site.output_dir.exists()


def test_a_cluster_that_does_not_answer_leaves_the_others_jobs_known(site: Site) -> None:
    site.submit(clusters="alpha")
    sweep = site.sweep
    sweep.submissions.append(
        Submission("other", "slurm", {"clusters": "beta"}, 1, [{"job": "9", "first": 0, "count": 1, "cluster": "beta"}])
    )
    site.down("beta")
    now = queue_state(sweep, site.output_dir)
    assert not now.known
    assert now.jobs == {("alpha", "41")}


def test_clusters_said_twice() -> None:
    with pytest.raises(UserError, match=r"hydra.launcher.clusters: said twice, a and b"):
        checked_launcher({"clusters": "a", "additional_parameters": {"M": "b"}})


# ---- the surrounding job


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("SLURM_CPU_BIND", False), ("SLURM_MEM_PER_CPU", False), ("SLURM_TRES_PER_TASK", False), ("SLURM_NTASKS", False),
        ("SLURM_JOB_ID", False), ("SLURM_EXPORT_ENV", False), ("SLURM_ARRAY_TASK_ID", False), ("SLURM_CLUSTERS", False),
        ("SBATCH_MEM_BIND", False), ("SRUN_DEBUG", False), ("PMI_RANK", False), ("PMIX_RANK", False),
        ("CUDA_VISIBLE_DEVICES", False), ("SBATCH_WAIT", False), ("SBATCH_TIMELIMIT", False), ("SBATCH_MEM_PER_CPU", False),
        ("SBATCH_PARTITION", True), ("SBATCH_ACCOUNT", True), ("SLURM_CONF", True), ("SLURM_JWT", True), ("HOME", True),
        ("MY_SLURM_DIR", True), ("OMP_NUM_THREADS", True),
    ],
)  # fmt: skip
def test_which_variables_reach_new_jobs(name: str, passes: bool) -> None:
    """options: a partition is not among what the script says, time and memory are."""
    kept, gone = submission_env({"SLURM_JOB_ID": "7", name: "x"}, ["time", "mem", "job-name"])
    assert (name in kept) == passes
    assert (name in gone) == (not passes)


def test_devices_chosen_on_a_login_node_are_the_users_word() -> None:
    assert submission_env({"CUDA_VISIBLE_DEVICES": ""}, []) == ({"CUDA_VISIBLE_DEVICES": ""}, [])


def test_sbatch_is_called_without_them_and_it_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_CPU_BIND": "mask_cpu:0x1", "SBATCH_TIMELIMIT": "1"}.items():
        monkeypatch.setenv(name, value)
    submission = site.submit()
    names = {x.partition("=")[0] for x in (site.folder / "env").read_text().split("\0")}
    assert not names & {"SLURM_JOB_ID", "SLURM_CPU_BIND", "SBATCH_TIMELIMIT"}
    told = removed_variables(os.environ, submission.launcher)
    assert told is not None
    assert "inside Slurm job 77" in told
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "SBATCH_TIMELIMIT, SLURM_CPU_BIND" in (removed_variables(os.environ, submission.launcher) or "")


def test_filters_of_the_users_own_do_not_hide_jobs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.submit()
    monkeypatch.setenv("SLURM_CLUSTERS", "beta")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    fake(
        site.folder.parent / "bin", "squeue", f'[ -n "$SQUEUE_STATES$SLURM_CLUSTERS" ] || cat {site.folder}/queue-home'
    )
    assert queue_state(site.sweep, site.output_dir).jobs


# ---- odd answers


def test_names_that_are_no_utf_8(site: Site) -> None:
    site.submit()
    with (site.folder / "queue-home").open("ab") as file:
        file.write(b"50|50|N/A|RUNNING|None|caf\xe9 \x85 x\n51|51|N/A|PENDING|R\xff|a|b\n")
    assert queue_state(site.sweep, site.output_dir).jobs == {(None, "41")}
    fake(site.folder.parent / "bin", "sbatch", "printf 'sbatch: error: d\\xe9pass\\xe9 account\\n' >&2; exit 1")
    with pytest.raises(UserError, match="d\ufffdpass\ufffd account; right: hydra"):
        site.submit("t")


def test_submitits_own_launcher_is_no_other_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls sbatch with this process's environment, and reads what sacct answers."""
    watcher = SlurmInfoWatcher()
    monkeypatch.setenv("SLURM_CPU_BIND", "x")
    with for_submitit():
        assert "SLURM_CPU_BIND" not in os.environ
        assert watcher.read_info(b"JobID|State|NodeList\n5|caf\xe9|n1\n")["5"]["State"] == "caf\ufffd"
    assert os.environ["SLURM_CPU_BIND"] == "x"


def test_a_path_with_spaces_and_an_array(tmp_path: Path, site: Site) -> None:
    """The batch script names each element's pack."""
    site.output_dir = tmp_path / "o 'u t"
    site.submit(max_packs=2, pack_minutes=0)
    line = next(x for x in (site.folder / "script").read_text().splitlines() if "slurm.batch_job" in x)
    command = f"printf '%s\\n' {line[line.index(' -u -m') :]}"
    told = {**os.environ, "SLURM_ARRAY_TASK_ID": "1"}
    shown = subprocess.run(["bash", "-c", command], env=told, capture_output=True, text=True, check=True).stdout
    assert Path(shown.strip().splitlines()[-1]) == next(site.output_dir.glob("sweeps/s/packs/*-1.json")).resolve()


# ---- cancelled, and Slurm does not answer


def test_a_cancelled_sweep_stays_cancelled(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.submit()
    Journal(site.output_dir).write("started", key=site.sweep.keys[0], sweep="s", run=site.sweep.runs[0], attempt="x")
    cancel(site.output_dir, "s")
    site.down()
    print_status(site.output_dir, "s")
    told = capsys.readouterr().out
    assert "2 cells: 2 lost" in told
    assert "cancelled 20" in told
    assert "could be asked" not in told
    with pytest.raises(SweepFailed, match="2 of 2 cells failed: 2 lost"):
        wait(site.output_dir, "s")  # which would follow for ever


def test_wait_and_retry_say_that_slurm_was_not_asked(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.submit()
    site.down()
    retry(site.output_dir, "s", None, False)
    assert "neither Slurm nor the host of the sweep could be asked" in capsys.readouterr().err

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    # Only where following sleeps: asking Slurm sleeps too, on a busy machine.
    monkeypatch.setattr(progress, "time", SimpleNamespace(**{**vars(time), "sleep": stop}))
    with pytest.raises(SystemExit):
        wait(site.output_dir, "s")
    assert "neither Slurm nor the host of the sweep could be asked" in capsys.readouterr().err


def test_a_submitter_that_goes_on_does_not_forget_that_it_was_cancelled(site: Site) -> None:
    site.submit()
    held = site.sweep
    cancel(site.output_dir, "s")
    write_merged(held, site.output_dir)
    assert site.sweep.submissions[0].cancelled is not None


@pytest.mark.parametrize("missing", [False, True])
def test_cancel_where_slurm_does_not_answer(site: Site, missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    site.submit()
    site.down()
    if missing:
        (site.folder.parent / "bin" / "scancel").unlink()
        monkeypatch.setenv("PATH", str(site.folder.parent / "bin"))
    with pytest.raises(UserError, match=r"scancel: .*; right: again when Slurm answers"):
        cancel(site.output_dir, "s")
    assert site.sweep.submissions[0].cancelled is None


# ---- settings that cannot be meant


@pytest.mark.parametrize(
    "launcher",
    [
        {"partition": "gpu\n#SBATCH --uid=0"}, {"comment": "a\x1b[2J"}, {"name": "a\u202eb"}, {"setup": ["ok", "a\nb"]},
        {"account": "a\x00"}, {"additional_parameters": {"reservation": "a\rb"}}, {"additional_parameters": {"a\nb": "c"}},
        {"srun_args": ["--a\u2028"]}, {"qos": "a\x85"}, {"exclude": "n\udce9"}, {"clusters": "a\tb"},
    ],
)  # fmt: skip
def test_characters_that_nobody_sees(launcher: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^hydra\.launcher\.[ -~]*: holds U\+[0-9A-F]{4}, a control character"):
        checked_launcher(launcher)


def test_a_tab_in_a_command_is_a_space() -> None:
    assert checked_launcher({"setup": ["module\tload"]})["setup"] == ["module\tload"]


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ({"partition": ["a", "b"]}, r"right: hydra.launcher.partition=\'a,b\'"),
        ({"additional_parameters": {"nodelist": ["n1", "n2"]}}, r"additional_parameters.nodelist=\'n1,n2\'"),
        ({"additional_parameters": {"p": "x"}}, "its long name, partition"),
        ({"additional_parameters": {"wait": True}}, "are ours"),
        ({"additional_parameters": {"test_only": True}}, "are ours"),
        ({"additional_parameters": {"x y": 1}}, "no flag of sbatch"),
        ({"additional_parameters": "reservation=x"}, "names and values"),
    ],
)  # fmt: skip
def test_shapes_that_sbatch_has_no_use_for(launcher: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        checked_launcher(launcher)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("hydra.launcher.partition=a100,h100", r"hydra.launcher.partition=\'a100,h100\'"),
        ("hydra.launcher.exclude=node[1-3]", r"hydra.launcher.exclude=\'node[1-3]\'"),
        ("+hydra.launcher.additional_parameters.nodelist=n1,n2", r"nodelist=\'n1,n2\'"),
        ("hydra.launcher.setup=a,b", "'hydra.launcher.setup=[\"…\"]'"),
        ("hydra/launcher=slurm,local", "right: one of them"),
    ],
)
def test_a_comma_in_a_launchers_value_is_told_how_to_be_quoted(typed: str, right: str) -> None:
    with pytest.raises(UserError) as error:
        check_keys(parse([typed]))
    assert right in str(error.value)
    check_keys(parse(["hydra.launcher.partition='a100,h100'", "hydra.launcher.setup=[a,b]"]))


def test_the_script_names_the_cluster(site: Site, tmp_path: Path) -> None:
    text = batch_script(checked_launcher({**LAUNCHER, "clusters": "a,b"}), tmp_path, "c", "true", 3)
    assert "#SBATCH --clusters=a,b\n" in text
