"""The common form of queueing systems; each has a file of its own, and ``systems`` lists them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import signal
import subprocess
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.cluster.profile_keys import ProfileKeys
from tilenet.errors import InvalidData, QueueRefused, one_line

#: Seconds that a command of a queueing system may take.
COMMAND_SECONDS = 60

Phase = Literal["waiting", "running", "ending", "ended"]


@dataclass(frozen=True)
class Listed:
    """What the queue says of a job."""

    phase: Phase  # where it is; one that is ending may be queued again afterwards
    words: str  # the same in the system's own words, with its reason


class QueueingSystem(ABC):
    """What one system wants in a job script, and how it lists jobs.

    dask-jobqueue's class of its jobs knows the other directives, and submits and cancels.
    """

    #: What users, messages and dask-jobqueue call it.
    name: str

    @abstractmethod
    def arguments(self, profile: ProfileKeys, walltime: str, memory: int) -> dict[str, Any]:
        """Give arguments of dask-jobqueue's job; walltime is hh:mm:ss, memory a job's bytes."""

    @abstractmethod
    def directives(self, profile: ProfileKeys) -> list[str]:
        """Say where output goes, how GPUs are asked for, and the shell where it is not bash."""

    @abstractmethod
    def list_jobs(self, name: str) -> dict[str, Listed]:
        """Ask the queue for the jobs of a name, by number; those that it has forgotten lack."""

    def lack(self, profile: ProfileKeys) -> str | None:
        """Say what the system wants that a profile does not have."""
        return None

    def listed(self, name: str) -> dict[str, Listed]:
        """List jobs, and take what cannot be read as no answer."""
        try:
            return self.list_jobs(name)
        except (ValueError, LookupError, ET.ParseError) as error:
            what = f"the list of {self.name} jobs"
            raise QueueRefused(what, f"it cannot be read: {error}") from error

    def job_class(self) -> Any:
        """Import dask-jobqueue's class of jobs; the first time in the main thread."""
        if importlib.util.find_spec("dask_jobqueue") is None:
            problem = f"jobs of {self.name} need dask-jobqueue, and it is not installed"
            cure = "Install it: pip install 'tilenet[jobqueue]'."
            raise InvalidData("Cluster", problem, cure)
        # The import takes Ctrl-C for itself (dask_jobqueue 0.9, runner.py): give it back.
        before = signal.getsignal(signal.SIGINT)
        module = importlib.import_module(f"dask_jobqueue.{self.name}")
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
        return getattr(module, f"{self.name.upper()}Job")


def run_command(
    command: Sequence[str], *, script: str | None = None, none: str | None = None
) -> str:
    """Run a command of a queueing system; ``none`` is a pattern of "there is no such job"."""
    # In a session of its own: Ctrl-C is meant for us, and must not reach a command half-way.
    words = shlex.join(command)
    try:
        done = subprocess.run(  # noqa: S603
            command, input=script, capture_output=True, text=True, errors="replace",
            timeout=COMMAND_SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueRefused(words, str(error)) from error
    said = one_line(done.stderr, None) or one_line(done.stdout, None)
    if done.returncode == 0:
        return done.stdout
    if none is not None and re.search(none, said, re.IGNORECASE):
        return done.stdout  # what it says of the others
    raise QueueRefused(words, said or f"exit code {done.returncode}")


def read_table(text: str, waiting: Sequence[str], running: Sequence[str]) -> dict[str, Listed]:
    """Read lines of number, state and reason with bars between them."""
    found = {}
    for line in text.splitlines():
        if not re.match(r"\s*\d[^|]*\|.*\|", line):
            continue  # what a site or a wrapper of the command says to everybody
        number, state, reason = (part.strip() for part in line.split("|", 2))
        phase = "ending" if state == "COMPLETING" else phase_of(state, waiting, running)
        found[number] = Listed(phase, with_reason(state, reason))
    return found


def phase_of(state: str, waiting: Sequence[str], running: Sequence[str]) -> Phase:
    """Give the phase of a state; one that is neither waiting nor running has ended."""
    return "waiting" if state in waiting else "running" if state in running else "ended"


def with_reason(state: str, reason: str) -> str:
    """Add to a state the reason for it, if there is one."""
    return state if reason in ("", "-", "None") else f"{state} ({reason})"
