"""A SLURM cluster of one node on loopback, started for tests and ended with them."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask

from tilenet.geometry import Box
from tilenet.worker import BlockReport

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,defer_batch
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=2
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

#: Two character devices stand for the two GPUs, so that jobs are given their numbers.
GRES = "NodeName={host} Name=gpu File=/dev/null\nNodeName={host} Name=gpu File=/dev/zero\n"


def missing() -> str | None:
    """Say why SLURM cannot be started here; None where it can."""
    if os.geteuid() != 0:
        return "slurmd needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(lacking)}: not installed (Debian: slurm-wlm, munge)" if lacking else None


@contextlib.contextmanager
def slurm() -> Iterator[Path]:
    """Start munge, slurmctld and slurmd; SLURM_CONF leads every command to them."""
    with contextlib.ExitStack() as stack:
        # Not pytest's own folder: munge, which is another user, has to get into it.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(mode=0o755)
        host = socket.gethostname().split(".")[0]
        ports = [free_port(), free_port()]
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, ports=ports))
        (folder / "gres.conf").write_text(GRES.format(host=host))
        before = os.environ.get("SLURM_CONF")
        stack.callback(restore, "SLURM_CONF", before)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        start_munge(stack, folder / "munge")
        daemon(stack, folder / "slurmctld.log", "slurmctld", "-D")
        daemon(stack, folder / "slurmd.log", "slurmd", "-D", "-N", host)
        stack.callback(cancel_all)
        wait_until(lambda: output("sinfo", "--noheader", "--format=%T").strip() == "idle")
        yield folder


def start_munge(stack: contextlib.ExitStack, folder: Path) -> None:
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    user = pwd.getpwnam("munge")
    for path in (folder, key):
        os.chown(path, user.pw_uid, user.pw_gid)
    files = {"key-file": key, "socket": folder / "socket", "pid-file": folder / "pid"}
    files |= {"log-file": folder / "log", "seed-file": folder / "seed"}
    arguments = [f"--{name}={path}" for name, path in files.items()]
    daemon(stack, folder.parent / "munged.log", "munged", "--foreground", *arguments, user="munge")
    wait_until((folder / "socket").exists)


def daemon(stack: contextlib.ExitStack, log: Path, *command: str, user: str | None = None) -> None:
    written = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, user=user, group=user,
        extra_groups=None if user is None else [],
    )  # fmt: skip
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cancel_all() -> None:
    """Leave no job, whatever a test did."""
    subprocess.run(["scancel", "--user=root"], check=False, timeout=30)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not jobs())


def jobs(states: str = "PENDING,RUNNING,COMPLETING") -> dict[str, str]:
    """State and reason of every job, by number."""
    form = ("--noheader", f"--states={states}", "--format=%i|%T %r")
    lines = output("squeue", *form).splitlines()
    return dict(line.split("|", 1) for line in lines)


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


#: What the blocks of a worker compute on in turn, as on its device.
TURN = threading.Lock()


@dataclass(frozen=True)
class Slow:
    """Takes its time, and until there is a file; notes every time that a block begins or ends."""

    notes: str
    seconds: float
    gate: str = ""

    def __call__(self, box: Box) -> BlockReport:
        self._note(self.notes, box)
        with TURN:
            time.sleep(self.seconds)
            while self.gate and not Path(self.gate).exists():
                time.sleep(0.05)
        self._note(f"{self.notes}.ended", box)
        return BlockReport(box, {})

    def _note(self, place: str, box: Box) -> None:
        with Path(place).open("a") as file:
            file.write(f"{box.start[0]} {os.environ['SLURM_JOB_ID']} {time.time()}\n")


def settings(dask_worker: Any) -> dict[str, Any]:
    """What a worker was given that decides how it computes."""
    names = ("MALLOC_", "OMP_", "MKL_", "OPENBLAS_")
    variables = {k: v for k, v in os.environ.items() if k.startswith(names)}
    memory = dask.config.get("distributed.worker.memory")
    rules = {name: memory[name] for name in ("target", "spill", "pause", "terminate")}
    ignored = [signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGTERM)]
    threads = dask_worker.state.nthreads
    return {"variables": variables, **rules, "ignored": ignored, "threads": threads}
