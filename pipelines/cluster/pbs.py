"""PBS."""

from __future__ import annotations

import re
from typing import Any

from pipelines.cluster.profile_keys import ProfileKeys
from pipelines.cluster.queueing import Listed, QueueingSystem, phase_of, run_command, with_reason


class Pbs(QueueingSystem):
    """PBS, by its commands ``qsub``, ``qselect``, ``qstat`` and ``qdel``."""

    name = "pbs"

    def arguments(self, profile: ProfileKeys, walltime: str, memory: int) -> dict[str, Any]:
        """Give arguments of ``PBSJob``: a job is one chunk of a node."""
        gpus = f":ngpus={profile.gpus_per_job}" if profile.gpus_per_job else ""
        mebibytes = -(-memory // 2**20)
        return {
            "account": profile.account,
            "walltime": walltime,
            "resource_spec": f"select=1:ncpus={profile.job_cores}:mem={mebibytes}MB{gpus}",
        }

    def directives(self, profile: ProfileKeys) -> list[str]:
        """Name the logs' folder and the shell, which would be the user's own."""
        return [f"-o {profile.log_directory}/", "-j oe", "-S /bin/bash"]

    def list_jobs(self, name: str) -> dict[str, Listed]:
        """Ask ``qselect`` for the numbers, and ``qstat`` for their states."""
        numbers = run_command(["qselect", "-N", name]).split()
        if not numbers:
            return {}
        # A job may end between the two questions: it is then unknown to the second.
        return read_pbs(run_command(["qstat", "-f", *numbers], none="unknown job"))


def read_pbs(text: str) -> dict[str, Listed]:
    """Read what ``qstat -f`` prints: a paragraph for each job; long lines go on after a tab."""
    found = {}
    for paragraph in re.split(r"^Job Id:", text.replace("\n\t", ""), flags=re.MULTILINE)[1:]:
        number = re.split(r"[.\s]", paragraph.strip())[0]  # without the server's name
        fields = dict(re.findall(r"^\s+(\w+) = (.*)$", paragraph, flags=re.MULTILINE))
        state = fields.get("job_state", "")
        phase = phase_of(state, ("Q", "H", "W", "T"), ("R", "E", "B", "S", "U"))
        found[number] = Listed(phase, with_reason(state, fields.get("comment", "")))
    return found
