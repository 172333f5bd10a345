"""LSF."""

from __future__ import annotations

from typing import Any

from pipelines.cluster.profile_keys import ProfileKeys
from pipelines.cluster.queueing import Listed, QueueingSystem, read_table, run_command


class Lsf(QueueingSystem):
    """LSF, by its commands ``bsub``, ``bjobs`` and ``bkill``."""

    name = "lsf"

    def arguments(self, profile: ProfileKeys, walltime: str, memory: int) -> dict[str, Any]:
        """Give arguments of ``LSFJob``; LSF takes hours and minutes."""
        return {
            "project": profile.account,
            "walltime": walltime[: -len(":ss")],
            "ncpus": profile.job_cores,
            "mem": memory,
        }

    def directives(self, profile: ProfileKeys) -> list[str]:
        """Name the log, and ask for GPUs."""
        gpus = [f'-gpu "num={profile.gpus_per_job}"'] if profile.gpus_per_job else []
        return [f"-o {profile.log_directory}/%J.log", *gpus]

    def list_jobs(self, name: str) -> dict[str, Listed]:
        form = ("-a", "-noheader", "-o", "jobid stat pend_reason delimiter='|'")
        none = "no .*job found|is not found"
        return read_lsf(run_command(["bjobs", "-J", name, *form], none=none))


def read_lsf(text: str) -> dict[str, Listed]:
    """Read what ``bjobs -o "jobid stat pend_reason delimiter='|'"`` prints."""
    waiting, running = ("PEND", "PSUSP", "WAIT"), ("RUN", "USUSP", "SSUSP", "PROV", "UNKWN")
    return read_table(text, waiting, running)
