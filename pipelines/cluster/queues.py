"""What a batch system says of jobs, and how they are submitted and cancelled.

Jobs are found by the name that they share, which no other run's have: so those are found too whose
number was never learnt, because the command was interrupted while it submitted them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tilenet.errors import InvalidData, QueueRefused

#: Seconds that a command of a batch system may take.
COMMAND_SECONDS = 60

#: Bytes of a log that are read, from its end.
LOG_BYTES = 2**16

Phase = Literal["waiting", "running", "ending", "ended"]


@dataclass(frozen=True)
class Listed:
    """What the queue says of a job."""

    phase: Phase  # where it is; one that is ending may be queued again afterwards
    words: str  # the same in the system's own words, with its reason


def submit(job: Any) -> str:
    """Submit a job."""
    answer = _run(shlex.split(job.submit_command), script=job.job_script())
    match = re.search(job.job_id_regexp, answer)
    if match is None:
        raise QueueRefused(job.submit_command, f"no job number in its answer {answer!r}")
    return match["job_id"]


def cancel(job: Any, numbers: Sequence[str]) -> None:
    """Cancel jobs; those that have ended meanwhile do not matter."""
    if numbers:
        _run([*shlex.split(job.cancel_command), *numbers])


def cancel_named(job: Any, system: str, name: str, known: Sequence[str]) -> str | None:
    """Cancel the jobs of a name."""
    alive, ending, trouble = list(known), False, "they go on"
    try:
        phases = {n: job.phase for n, job in listed(system, name).items() if job.phase != "ended"}
        alive, ending = list(phases), set(phases.values()) == {"ending"}
        if not alive:
            return None
    except Exception as error:  # whatever it is: a job that is left costs somebody money
        trouble = str(error)
    try:
        cancel(job, alive)
    except QueueRefused as error:
        trouble = str(error)
    return None if ending else trouble


def check_installed(job: Any) -> None:
    """See that the batch system's commands are on this machine."""
    if shutil.which(job.submit_command) is None:
        cure = "Run it on a machine that submits jobs, or with another --cluster."
        raise InvalidData("Cluster", f"there is no {job.submit_command} on this machine", cure)


def listed(system: str, name: str) -> dict[str, Listed]:
    """Ask the queue for the jobs of a name."""
    try:
        return _ASK[system](name)
    except (ValueError, LookupError, ET.ParseError) as error:
        raise QueueRefused(f"the list of {system} jobs", f"it cannot be read: {error}") from error


def end_of_log(folder: Path, number: str) -> list[str]:
    """Give the last lines that a job wrote."""
    # Systems name them 7.log, name-7.log, name.o7 or 7.server.OU; job 7 is not job 17.
    own = re.compile(rf"(?:^|[-_.]|\.[oe]){re.escape(number)}(?!\w)")
    logs = [path for path in folder.iterdir() if own.search(path.name)]
    if not logs:
        return [f"no log of it in {folder}"]
    latest = max(logs, key=lambda path: path.stat().st_mtime)
    with latest.open("rb") as file:
        file.seek(max(0, latest.stat().st_size - LOG_BYTES))
        text = file.read(LOG_BYTES).decode(errors="replace").splitlines()
    return [str(latest), *[line for line in text if line.strip()][-5:]]


def _run(command: Sequence[str], *, script: str | None = None, none: str | None = None) -> str:
    # In a session of its own: Ctrl-C is meant for us, and must not reach a command half-way.
    words = shlex.join(command)
    try:
        done = subprocess.run(  # noqa: S603
            command, input=script, capture_output=True, text=True, errors="replace",
            timeout=COMMAND_SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueRefused(words, str(error)) from error
    said = " ".join(done.stderr.split() or done.stdout.split())
    if done.returncode == 0:
        return done.stdout
    if none is not None and re.search(none, said, re.IGNORECASE):
        return done.stdout  # what it says of the others
    raise QueueRefused(words, said or f"exit code {done.returncode}")


def _ask_slurm(name: str) -> dict[str, Listed]:
    form = ("--noheader", "--states=all", "--format=%i|%T|%r")
    return read_slurm(_run(["squeue", "--name", name, *form]))


def read_slurm(text: str) -> dict[str, Listed]:
    """Read what ``squeue --format=%i|%T|%r`` prints."""
    waiting = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD")
    running = ("RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
    return _table(text, waiting, running)


def _ask_lsf(name: str) -> dict[str, Listed]:
    form = ("-a", "-noheader", "-o", "jobid stat pend_reason delimiter='|'")
    none = "no .*job found|is not found"
    return read_lsf(_run(["bjobs", "-J", name, *form], none=none))


def read_lsf(text: str) -> dict[str, Listed]:
    """Read what ``bjobs -o "jobid stat pend_reason delimiter='|'"`` prints."""
    waiting, running = ("PEND", "PSUSP", "WAIT"), ("RUN", "USUSP", "SSUSP", "PROV", "UNKWN")
    return _table(text, waiting, running)


def _table(text: str, waiting: Sequence[str], running: Sequence[str]) -> dict[str, Listed]:
    found = {}
    for line in text.splitlines():
        if not re.match(r"\s*\d[^|]*\|.*\|", line):
            continue  # what a site or a wrapper of the command says to everybody
        number, state, reason = (part.strip() for part in line.split("|", 2))
        phase = "ending" if state == "COMPLETING" else _phase(state, waiting, running)
        found[number] = Listed(phase, _words(state, reason))
    return found


def _phase(state: str, waiting: Sequence[str], running: Sequence[str]) -> Phase:
    return "waiting" if state in waiting else "running" if state in running else "ended"


def _words(state: str, reason: str) -> str:
    return state if reason in ("", "-", "None") else f"{state} ({reason})"


def _ask_pbs(name: str) -> dict[str, Listed]:
    numbers = _run(["qselect", "-N", name]).split()
    # A job may end between the two questions: it is then unknown to the second.
    return read_pbs(_run(["qstat", "-f", *numbers], none="unknown job")) if numbers else {}


def read_pbs(text: str) -> dict[str, Listed]:
    """Read what ``qstat -f`` of PBS prints."""
    found = {}
    for paragraph in re.split(r"^Job Id:", text.replace("\n\t", ""), flags=re.MULTILINE)[1:]:
        number = re.split(r"[.\s]", paragraph.strip())[0]
        fields = dict(re.findall(r"^\s+(\w+) = (.*)$", paragraph, flags=re.MULTILINE))
        state = fields.get("job_state", "")
        phase = _phase(state, ("Q", "H", "W", "T"), ("R", "E", "B", "S", "U"))
        found[number] = Listed(phase, _words(state, fields.get("comment", "")))
    return found


def _ask_sge(name: str) -> dict[str, Listed]:
    text = _run(["qstat", "-xml", "-u", "*"])
    found = read_sge(text, name)
    waits = [number for number, job in found.items() if job.phase == "waiting"]
    for number in waits[:1]:  # the reason is long, and that of one is that of all
        reason = _sge_reason(_run(["qstat", "-j", number], none="do not exist"))
        found[number] = Listed("waiting", _words(found[number].words, reason))
    return found


def read_sge(text: str, name: str) -> dict[str, Listed]:
    """Read what ``qstat -xml`` of Grid Engine prints."""
    found = {}
    text = text[max(0, text.find("<?xml")) :]  # a site or a wrapper may say something before it
    for job in ET.fromstring(text).iter("job_list"):  # noqa: S314  (of the system itself)
        if job.findtext("JB_name") != name:
            continue
        state = job.findtext("state") or ""
        phase: Phase = "waiting" if "q" in state or "E" in state else "running"
        found[job.findtext("JB_job_number") or ""] = Listed(phase, state)
    return found


def _sge_reason(text: str) -> str:
    match = re.search(r"^scheduling info:\s*(.*)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else ""


_ASK: dict[str, Callable[[str], dict[str, Listed]]] = {
    "slurm": _ask_slurm,
    "lsf": _ask_lsf,
    "pbs": _ask_pbs,
    "sge": _ask_sge,
}
