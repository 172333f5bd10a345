"""The jobs of a run in their queue: submitted, listed, cancelled.

Jobs are found by the name that they share, which no other run's have: so those are found too whose
number was never learnt, because the command was interrupted while it submitted them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster.job_script import make_job
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.queueing import Listed, run_command
from tilenet.errors import InvalidData, QueueRefused

#: Bytes of a log that are read, from its end.
LOG_BYTES = 2**16


class JobQueue:
    """The queue of a system, for the jobs of one run, whose workers join one scheduler."""

    def __init__(self, options: ClusterOptions, address: str) -> None:
        assert options.batch is not None
        self.options, self.system, self.address = options, options.batch.system, address
        self.logs = Path(options.batch.profile.log_directory)
        self.name = f"tilenet-{uuid.uuid4().hex[:6]}"

    def _job(self, worker: str = "none") -> Any:
        return make_job(self.options, address=self.address, job_name=self.name, worker=worker)

    def check_installed(self) -> None:
        """See that the system's commands are on this machine."""
        command = self._job().submit_command
        if shutil.which(command) is None:
            cure = "Run it on a machine that submits jobs, or with another --cluster."
            raise InvalidData("Cluster", f"there is no {command} on this machine", cure)

    def submit(self, worker: str) -> str:
        """Submit a job, and give its number."""
        job = self._job(worker)
        answer = run_command(shlex.split(job.submit_command), script=job.job_script())
        match = re.search(job.job_id_regexp, answer)
        if match is None:
            raise QueueRefused(job.submit_command, f"no job number in its answer {answer!r}")
        return match["job_id"]

    def listed(self) -> dict[str, Listed]:
        """Ask for the jobs of the run, by number."""
        return self.system.listed(self.name)

    def cancel(self, numbers: Sequence[str]) -> None:
        """Cancel jobs; those that have ended meanwhile do not matter."""
        if numbers:
            run_command([*shlex.split(self._job().cancel_command), *numbers])

    def cancel_all(self, known: Sequence[str]) -> str | None:
        """Cancel all jobs of the run; those that are known where the queue does not tell.

        None is the queue's word that none is left, and a text why there may be some still.
        """
        alive, ending, trouble = list(known), False, "they go on"
        try:
            phases = {n: job.phase for n, job in self.listed().items() if job.phase != "ended"}
            alive, ending = list(phases), set(phases.values()) == {"ending"}
            if not alive:
                return None
        except Exception as error:  # whatever it is: a job that is left costs somebody money
            trouble = str(error)
        try:
            self.cancel(alive)
        except QueueRefused as error:
            trouble = str(error)
        return None if ending else trouble

    def end_of_log(self, number: str) -> list[str]:
        """Give the log of a job, and its last lines, five at most."""
        # Systems name them 7.log, name-7.log, name.o7 or 7.server.OU; job 7 is not job 17.
        own = re.compile(rf"(?:^|[-_.]|\.[oe]){re.escape(number)}(?!\w)")
        logs = [path for path in self.logs.iterdir() if own.search(path.name)]
        if not logs:
            return [f"no log of it in {self.logs}"]
        latest = max(logs, key=lambda path: path.stat().st_mtime)
        with latest.open("rb") as file:
            file.seek(max(0, latest.stat().st_size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace").splitlines()
        return [str(latest), *[line for line in text if line.strip()][-5:]]
