"""SLURM."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from pipelines.cluster.profile_keys import ProfileKeys
from pipelines.cluster.queueing import Listed, QueueingSystem, read_table, run_command

#: Seconds that SLURM may take to tell of nodes.
SINFO_SECONDS = 20


class Slurm(QueueingSystem):
    """SLURM, by its commands ``sbatch``, ``squeue`` and ``scancel``."""

    name = "slurm"

    def arguments(self, profile: ProfileKeys, walltime: str, memory: int) -> dict[str, Any]:
        return {"account": profile.account, "walltime": walltime, "job_cpu": profile.job_cores}

    def directives(self, profile: ProfileKeys) -> list[str]:
        """Name the log, and ask for GPUs."""
        gpus = [f"--gres=gpu:{profile.gpus_per_job}"] if profile.gpus_per_job else []
        return [f"-o {profile.log_directory}/%x-%j.log", *gpus]

    def list_jobs(self, name: str) -> dict[str, Listed]:
        form = ("--noheader", "--states=all", "--format=%i|%T|%r")
        return read_slurm(run_command(["squeue", "--name", name, *form]))


def read_slurm(text: str) -> dict[str, Listed]:
    """Read what ``squeue --format=%i|%T|%r`` prints."""
    waiting = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD")
    running = ("RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
    return read_table(text, waiting, running)


def slurm_features(nodes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Ask SLURM for the features of nodes, by which those of one kind are selected.

    Parameters
    ----------
    nodes : sequence of str

    Returns
    -------
    dict
        Features by node; empty where SLURM does not tell.
    """
    program = shutil.which("sinfo")
    if program is None:
        return {}
    command = [program, "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%f"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=SINFO_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:  # what is asked for is a hint, which a message lacks then
        return {}
    pairs = (line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line)
    return {node: frozenset(listed.split(",")) - {"(null)", ""} for node, listed in pairs}
