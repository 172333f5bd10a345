"""Grid Engine."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from pipelines.cluster.profile_keys import ProfileKeys
from pipelines.cluster.queueing import Listed, QueueingSystem, run_command, with_reason


class Sge(QueueingSystem):
    """Grid Engine, by its commands ``qsub``, ``qstat`` and ``qdel``."""

    name = "sge"

    def arguments(self, profile: ProfileKeys, walltime: str, memory: int) -> dict[str, Any]:
        # Names of parallel environments and of memory are the site's: they are directives.
        return {
            "project": profile.account,
            "walltime": walltime,
            "resource_spec": f"gpu={profile.gpus_per_job}" if profile.gpus_per_job else None,
        }

    def directives(self, profile: ProfileKeys) -> list[str]:
        """Name the logs' folder and the shell, which would be the site's."""
        return [f"-o {profile.log_directory}/", "-S /bin/bash"]

    def lack(self, profile: ProfileKeys) -> str | None:
        """Miss the parallel environment where a job has several cores."""
        if profile.job_cores == 1 or any(text.startswith("-pe") for text in profile.directives):
            return None
        environment = f'"-pe NAME {profile.job_cores}"'
        return f"directives lack {environment}, the parallel environment of the site"

    def list_jobs(self, name: str) -> dict[str, Listed]:
        found = read_sge(run_command(["qstat", "-xml", "-u", "*"]), name)
        waits = [number for number, job in found.items() if job.phase == "waiting"]
        for number in waits[:1]:  # the reason is long, and that of one is that of all
            told = run_command(["qstat", "-j", number], none="do not exist")
            match = re.search(r"^scheduling info:\s*(.*)$", told, flags=re.MULTILINE)
            reason = match[1].strip() if match else ""
            found[number] = Listed("waiting", with_reason(found[number].words, reason))
        return found


def read_sge(text: str, name: str) -> dict[str, Listed]:
    """Read what ``qstat -xml`` prints of the jobs of a name."""
    found = {}
    text = text[max(0, text.find("<?xml")) :]  # a site or a wrapper may say something before it
    for job in ET.fromstring(text).iter("job_list"):  # noqa: S314  (of the system itself)
        if job.findtext("JB_name") != name:
            continue
        state = job.findtext("state") or ""
        waits = "q" in state or "E" in state
        number = job.findtext("JB_job_number") or ""
        found[number] = Listed("waiting" if waits else "running", state)
    return found
