"""Clusters as users describe them: profiles and options, scripts, what queues say, certificates."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.cluster import (
    SYSTEMS,
    ClusterOptions,
    leave_time,
    make_job,
    make_options,
    open_client,
    read_seconds,
    resolve,
    task_resources,
)
from pipelines.cluster.job_queue import JobQueue
from pipelines.cluster.lifetimes import lifetime_of
from pipelines.cluster.lsf import read_lsf
from pipelines.cluster.pbs import read_pbs
from pipelines.cluster.profile import Profile
from pipelines.cluster.queueing import Listed
from pipelines.cluster.sge import read_sge
from pipelines.cluster.slurm import read_slurm
from pipelines.cluster.tls import Tls, check_tls
from pipelines.cluster.worker import position
from tests.support.certificates import make, openssl
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import files_below, run_tilenet, store_volume
from tilenet.errors import InvalidData, InvalidProfile, QueueRefused
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import open_volume

PROFILE = """\
kind = "slurm"
queue = "gpu"
account = "lab"
walltime = "12:00:00"
memory = "64GB"
gpus_per_job = 4
slots = 3
threads = 2
max_jobs = 10
directives = ["--constraint=a100", "--exclusive"]
setup = ["module load cuda"]
start_timeout = "2h"
"""

HOUR = {"walltime": "1:00:00", "memory": 8 * 10**9}


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "hpc.toml"
    path.write_text(PROFILE)
    return str(path)


def script(cluster: str, **flags: Any) -> list[str]:
    options = make_options(cluster, flags)
    job = make_job(options, address="tcp://10.0.0.1:99", job_name="tilenet-0", worker="job7")
    return [line for line in job.job_script().splitlines() if line]


def test_a_profile_says_everything_and_options_win(profile: str) -> None:
    options = make_options(profile, {"queue": "long", "max_jobs": None, "slots": 2})
    batch = options.batch
    assert batch is not None
    jobs = batch.profile
    assert (batch.system.name, jobs.queue, jobs.account) == ("slurm", "long", "lab")
    assert (batch.walltime, batch.lifetime, jobs.start_timeout) == (43200, 41700, 7200)
    assert (jobs.job_workers, jobs.gpus_per_job, jobs.job_cores) == (4, 4, 8)
    assert (jobs.least_jobs, jobs.most_jobs) == (1, 10)
    # What is planned for: all workers that there may be, and the memory of each.
    assert (options.workers, options.slots, options.memory) == (40, 2, 16 * 10**9)
    assert resolve(options, "cuda") == replace(options, machine="jobs of slurm")


def test_the_script_of_a_job_asks_for_what_the_profile_says(profile: str) -> None:
    lines = script(profile)
    for line in (
        "#SBATCH -J tilenet-0", "#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=8", "#SBATCH --mem=60G", "#SBATCH -t 12:00:00",
        "#SBATCH --gres=gpu:4", "#SBATCH --constraint=a100", "#SBATCH --exclusive",
        "module load cuda",
        "export TILENET_WORKER_ENDS=$(( $(date +%s) + 41100 - RANDOM % 601 ))",
    ):  # fmt: skip
        assert line in lines
    workers = lines[-1]
    for words in (
        "-m distributed.cli.dask_worker tcp://10.0.0.1:99", "--name job7", "--nthreads 3",
        "--nworkers 4", "--memory-limit 14.90GiB", "--resources GPU=3", "--nanny",
        "--no-dashboard --dashboard-address 127.0.0.1:0",
    ):  # fmt: skip
        assert words in workers


@pytest.mark.parametrize(
    ("system", "extra", "lines"),
    [
        ("lsf", {}, ["#BSUB -q q", '#BSUB -P "a"', "#BSUB -n 2", "#BSUB -W 01:00", '-gpu "num=2"']),
        ("pbs", {}, ["#PBS -A a", "select=1:ncpus=2:mem=7630MB:ngpus=2", "walltime=01:00:00"]),
        ("sge", {"directives": ("-pe smp 2",)}, ["#$ -P a", "gpu=2", "h_rt=01:00:00", "-pe smp 2"]),
    ],
)
def test_other_systems_are_asked_in_their_own_words(
    system: str, extra: dict[str, Any], lines: list[str]
) -> None:
    text = "\n".join(script(system, queue="q", account="a", gpus_per_job=2, **HOUR, **extra))
    for line in lines:
        assert line in text


@pytest.mark.parametrize("minutes", [1, 10, 25])
@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("hours", [6, 12, 168])
def test_time_is_left_to_finish_the_blocks_of_all_slots_in_turn(
    hours: int, slots: int, minutes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"walltime": f"{hours}h", "memory": 10**9, "slots": slots}
    batch = leave_time(make_options("slurm", flags), 60 * minutes).batch
    assert batch is not None
    assert batch.walltime - batch.lifetime >= (slots + 0.5) * 60 * minutes
    assert batch.lifetime - batch.stagger >= batch.walltime / 2
    assert capsys.readouterr().err == ""


def test_a_short_job_takes_blocks_for_half_of_its_time() -> None:
    for walltime in (60, 600, 3600):
        assert lifetime_of(walltime, slots=3) == walltime / 2


@pytest.mark.parametrize(
    ("flags", "minutes", "left"),
    [
        ({"lifetime": "710min"}, 6, "0:10:00"),
        ({"walltime": "30min"}, 10, "0:15:00"),
        ({"walltime": "30min", "slots": 1, "lifetime": "29min"}, 2, "0:01:00"),
    ],
)
def test_jobs_too_short_for_what_is_planned_are_told_of(
    flags: dict[str, Any], minutes: int, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options("slurm", {"walltime": "12h", "memory": 10**9, **flags})
    found = leave_time(options, 60 * minutes)
    said = capsys.readouterr().err
    assert said.startswith(f"Warning: a job is killed {left} after its workers take no further")
    assert f"{options.slots} of about 0:{minutes:02d}:00, take 0:" in said
    # What the user chose stays.
    assert "lifetime" not in flags or found == options
    assert leave_time(options, 20.0) == options
    assert capsys.readouterr().err == ""


def test_a_plan_says_when_its_blocks_are_too_long_for_the_jobs() -> None:
    jobs = ("--cluster", "slurm", "--walltime", "12min", "--memory", "16GB")
    shown = run_tilenet("plan", "--shape", "64,30000,30000", "--no-calibration", *jobs)
    assert shown.returncode == 0, shown.stderr
    assert "Warning: a job is killed 0:06:00 after its workers take no further" in shown.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12:00:00", 43200), ("2-00:00:30", 172830), ("90min", 5400), ("1.5 h", 5400), ("30s", 30)],
)
def test_durations(text: str, seconds: int) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('waltime = "1:00:00"', "waltime: unknown key; did you mean walltime"),
        ("zzz = 1", "zzz: unknown key; known are kind, scheduler, workers"),
        ('[tls]\ncaa = "x"', "tls.caa: unknown key; did you mean ca"),
        ('kind = "slurn"', "kind = 'slurn': input should be 'local', 'slurm'"),
        ('queue = "q"', "queue is of jobs: add kind (--cluster), one of slurm"),
        ('kind = "slurm"\nmemory = "8GB"', "walltime is missing: say what a job of slurm needs"),
        ('kind = "pbs"\nwalltime = "1h"', "memory is missing: say what a job of pbs needs"),
        ('kind = "lsf"\nscheduler = "tcp://a:1"', "scheduler joins one that runs, kind lsf starts"),
        ('kind = "slurm"\nwalltime = "60"', "walltime = '60': '60' is not a duration such as"),
        ('kind = "slurm"\nwalltime = 60', "walltime = 60: '60' is not a duration such as"),
        ('memory = "much"', "'much' is not a size such as 8GB"),
        ("memory = -1", "is not positive"),
        ("workers = 0", "workers = 0: input should be greater than or equal to 1"),
        ('workers = "2"', "workers = '2': input should be a valid integer"),
        ('dashboard = ":8787"', "':8787' is not an address such as 127.0.0.1:8787"),
        ('dashboard = "here:99999"', "'here:99999' is not an address such as"),
        ("workers = true", "workers = True: input should be a valid integer"),
        ("[tls]\n", None),
        ('[tls]\nca = "a"', "tls needs ca, cert and key: cert, key missing"),
        ('[tls]\nca = "a"\ncert = "b"\nkey = "c"', "tls: nothing leaves this machine"),
        ("tls = 3", "tls = 3"),
        ("a = = 1", "is not TOML"),
    ],
)
def test_profiles_that_mean_nothing_are_refused(
    tmp_path: Path, values: str, words: str | None
) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(values)
    if words is None:
        assert make_options(str(path), {}).local
        return
    with pytest.raises(InvalidProfile) as caught:
        make_options(str(path), {})
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"Cluster {path}:")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"min_jobs": 3, "max_jobs": 2}, "min_jobs 3 is more than max_jobs 2"),
        ({"gpus_per_job": 2, "workers": 3}, "workers 3: it is one per GPU, so 2"),
        ({"lifetime": "2h"}, "lifetime is longer than the walltime"),
        ({"lifetime": "10s", "lifetime_stagger": "10s"}, "lifetime_stagger leaves nothing"),
        ({"lifetime_stagger": "45min"}, "lifetime_stagger leaves nothing of the lifetime, 2100 s"),
        ({"queue": "a\n#SBATCH -p b"}, "queue ="),
        ({"directives": ("--x\nrm",)}, "directives.0 ="),
    ],
)
def test_options_of_jobs_that_contradict_one_another_are_refused(
    flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidProfile) as caught:
        make_options("slurm", HOUR | flags)
    assert words in str(caught.value)


def test_grid_engine_is_told_the_parallel_environment_of_the_site() -> None:
    with pytest.raises(InvalidProfile, match='"-pe NAME 4"'):
        make_options("sge", HOUR | {"threads": 4})
    assert make_options("sge", HOUR).batch is not None


def test_the_profile_of_the_readme_is_legal(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = readme.split("    # hpc.toml")[1].split("\n\n")[0].splitlines()[1:]
    (tmp_path / "hpc.toml").write_text("\n".join(lines))
    batch = make_options(str(tmp_path / "hpc.toml"), {}).batch
    assert batch is not None
    jobs = batch.profile
    assert (jobs.gpus_per_job, jobs.job_workers, jobs.most_jobs) == (2, 2, 20)
    assert jobs.interface == "ib0"


def test_every_key_of_a_profile_is_described() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    helped = run_tilenet("cluster", "show", "--help").stdout
    for name in Profile.model_fields:
        option = f"--{name.removesuffix('s').replace('_', '-')}"
        told = f"`{name}`" in readme or f"{name} =" in readme or f"[{name}]" in readme
        assert told or option in helped, name


def test_a_dashboard_listens_where_it_is_told(tmp_path: Path) -> None:
    flags = {"dashboard": "0.0.0.0:0"}
    assert make_options(None, flags).dashboard == "0.0.0.0:0"
    assert make_options("slurm", {**HOUR, **flags}).dashboard == "0.0.0.0:0"
    assert make_options(None, {**flags, "scheduler": "tcp://a:1"}).dashboard == "0.0.0.0:0"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        opened = open_client(make_options(None, {"dashboard": address}))
        cause = f"--dashboard {address}: cannot be listened on: Address already in use"
        with pytest.raises(InvalidData, match=cause), opened:
            pass
    nowhere = open_client(make_options(None, {"dashboard": "192.0.2.1:8787"}))
    with pytest.raises(InvalidData, match="cannot be listened on"), nowhere:
        pass


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidData, match=r"pip install 'tilenet\[jobqueue\]'"):
        make_options("slurm", HOUR)


def test_the_library_does_not_take_ctrl_c_for_itself() -> None:
    before = signal.getsignal(signal.SIGINT)
    make_options("slurm", HOUR)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_machine_that_submits_no_jobs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    started = open_client(make_options("slurm", HOUR))
    with pytest.raises(InvalidData, match="there is no sbatch on this machine"), started:
        pass


def test_the_command_shows_where_it_would_compute(profile: str) -> None:
    shown = run_tilenet("cluster", "show", "--cluster", profile, "--queue", "long")
    assert shown.returncode == 0, shown.stderr
    assert "#SBATCH -p long" in shown.stdout.splitlines()
    assert "1 to 10 jobs of slurm, 4 workers of 3 slots and 14.9 GiB each" in shown.stderr
    local = run_tilenet("cluster", "show", "--workers", "2", "--memory", "4GiB")
    assert local.stdout.startswith("This machine: 2 worker processes of 2 slots, 1 CPU threads and")


# What queues print. SLURM's is asked for real in test_slurm; the others' are their manuals' forms.


def test_what_slurm_says() -> None:
    text = "12|PENDING|Priority\n13|RUNNING|None\n14|TIMEOUT|TimeLimit\n15|COMPLETING|None\n"
    assert read_slurm(text) == {
        "12": Listed("waiting", "PENDING (Priority)"),
        "13": Listed("running", "RUNNING"),
        "14": Listed("ended", "TIMEOUT (TimeLimit)"),
        "15": Listed("ending", "COMPLETING"),
    }


def test_what_lsf_says() -> None:
    text = "7|PEND|New job is waiting for scheduling;\n8|RUN|-\n9|EXIT|-\n"
    assert read_lsf(text) == {
        "7": Listed("waiting", "PEND (New job is waiting for scheduling;)"),
        "8": Listed("running", "RUN"),
        "9": Listed("ended", "EXIT"),
    }


def test_what_pbs_says() -> None:
    text = (
        "Job Id: 21.server\n    Job_Name = tilenet-0\n    job_state = Q\n"
        "    comment = Not Running: Insufficient amount of resource: ncpus (R: 8 A: 4 \n"
        "\tT: 16)\n    queue = workq\n\n"
        "Job Id: 22.server\n    job_state = R\n    comment = Job run at Wed on (n1:ncpus=8)\n\n"
        "Job Id: 23.server\n    job_state = F\n\n"
    )
    reason = "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 4 T: 16)"
    assert read_pbs(text) == {
        "21": Listed("waiting", f"Q ({reason})"),
        "22": Listed("running", "R (Job run at Wed on (n1:ncpus=8))"),
        "23": Listed("ended", "F"),
    }


def test_what_grid_engine_says() -> None:
    row = (
        '<job_list state="{0}"><JB_job_number>{1}</JB_job_number><JB_name>{2}</JB_name>'
        "<state>{3}</state></job_list>"
    )
    rows = [
        row.format("running", 31, "tilenet-0", "r"),
        row.format("pending", 32, "tilenet-0", "qw"),
        row.format("pending", 33, "another", "qw"),
    ]
    text = f"<?xml version='1.0'?><job_info><queue_info>{''.join(rows)}</queue_info></job_info>"
    found = {"31": Listed("running", "r"), "32": Listed("waiting", "qw")}
    assert read_sge(text, "tilenet-0") == found


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a ``squeue`` prints that is a program of its own; ``scancel`` notes what it is told."""
    for name, does in {"squeue": "cat said", "scancel": "echo $@ >> cancelled; rm said"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ncd {tmp_path} && {does}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "said"


BANNER = b"Notice: maintenance on Friday \xfc | all queues\n\n"


def test_what_a_site_says_to_everybody_is_no_job(squeue: Path) -> None:
    squeue.write_bytes(BANNER + b"12|RUNNING|None\nGood bye!\n")
    assert SYSTEMS["slurm"].listed("tilenet-0") == {"12": Listed("running", "RUNNING")}
    assert read_lsf("hello\n7|RUN|-\n") == {"7": Listed("running", "RUN")}
    assert read_sge(f"hello\n{EMPTY}", "tilenet-0") == {}


EMPTY = "<?xml version='1.0'?><job_info/>"


def test_what_cannot_be_read_is_as_if_the_queue_had_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qstat").write_text(f"#!/bin/sh\necho '{EMPTY[:-5]}'\n")
    (tmp_path / "qstat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(QueueRefused, match="list of sge jobs failed: it cannot be read"):
        SYSTEMS["sge"].listed("tilenet-0")


@pytest.mark.parametrize(
    ("said", "cancelled"), [(BANNER + b"12|RUNNING|None\n", "12\n"), (None, "7 8\n")]
)
def test_jobs_are_cancelled_whatever_the_queue_says(
    squeue: Path, said: bytes | None, cancelled: str
) -> None:
    if said is not None:
        squeue.write_bytes(said)
    queue = JobQueue(make_options("slurm", HOUR), address="a")
    # It failed to say which: those whose numbers are known.
    assert queue.cancel_all(["7", "8"]) is not None
    assert (squeue.parent / "cancelled").read_text() == cancelled
    # One that ends may be queued again afterwards: it is cancelled, and not waited for.
    squeue.write_text("12|CANCELLED|None\n13|COMPLETING|Requeued\n")
    (squeue.parent / "cancelled").unlink()
    assert queue.cancel_all(["7", "8"]) is None
    assert (squeue.parent / "cancelled").read_text() == "13\n"
    squeue.write_text("12|CANCELLED|None\n")
    assert queue.cancel_all(["7", "8"]) is None


@pytest.mark.parametrize(
    "name", ["7.log", "tilenet-17ab7c-7.log", "tilenet-17ab7c.o7", "7.server.OU"]
)
def test_the_log_of_a_job_is_not_that_of_another(tmp_path: Path, name: str) -> None:
    lines = [f"line {n}" for n in range(20000)]
    (tmp_path / name).write_text("\n".join(lines) + "\n\n")
    others = ("17.log", "tilenet-17ab7c-17.log", "tilenet-7bab12.o71", "tilenet-17ab7c-70.log")
    for number, other in enumerate(others):
        (tmp_path / other).write_text("another\n")
        os.utime(tmp_path / other, (2e9 + number, 2e9 + number))  # later than the right one
    queue = JobQueue(make_options("slurm", HOUR | {"log_directory": str(tmp_path)}), address="a")
    assert queue.end_of_log("7") == [str(tmp_path / name), *lines[-5:]]
    assert queue.end_of_log("9") == [f"no log of it in {tmp_path}"]


# Certificates.


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make(tmp_path_factory.mktemp("others"), "others")


def test_certificates_that_belong_together_are_taken(ours: Tls) -> None:
    check_tls(ours)
    flags = {f"tls_{name}": getattr(ours, name) for name in ("ca", "cert", "key")}
    assert make_options("slurm", HOUR | flags).tls == ours
    lines = script("slurm", **HOUR, **flags)
    assert f"--tls-ca-file {ours.ca} --tls-cert {ours.cert} --tls-key {ours.key}" in lines[-1]


def test_certificates_that_do_not_belong_together_are_refused(
    ours: Tls, others: Tls, tmp_path: Path
) -> None:
    cases = {
        Tls(
            ca=ours.ca, cert=ours.cert, key=others.key
        ): f"{others.key}: is not the key of --tls-ce",
        Tls(ca=others.ca, cert=ours.cert, key=ours.key): f"is not accepted by --tls-ca {others.ca}",
        Tls(ca=str(tmp_path / "no"), cert=ours.cert, key=ours.key): "No such file or directory",
        Tls(ca=str(tmp_path), cert=ours.cert, key=ours.key): "Is a directory",
        Tls(ca=ours.key, cert=ours.cert, key=ours.key): "is not a certificate in PEM form",
        Tls(ca=ours.ca, cert=ours.key, key=ours.key): "are not a certificate and a key in PEM form",
        Tls(ca=ours.ca, cert=ours.cert, key=ours.cert): "are not a certificate and a key in PEM",
        Tls(ca=ours.ca, cert=ours.cert, key=locked(ours, tmp_path)): "is encrypted. Give one",
    }
    for files, words in cases.items():
        with pytest.raises(InvalidData) as caught:
            check_tls(files)
        assert words in str(caught.value)


def test_a_command_looks_at_certificates_before_anything_else(
    ours: Tls, others: Tls, tmp_path: Path
) -> None:
    store_volume(tmp_path / "em.zarr", np.zeros((2, 64, 64), np.uint8))
    network = random_network(UNetArchitecture.planar(2, 1, dropout=0.0))
    save_softmax(tmp_path / "model.safetensors", network)
    before = files_below(tmp_path)
    done = run_tilenet(
        "predict", "em.zarr", "out.zarr", "--model", "model.safetensors", "--scheduler",
        "tls://127.0.0.1:9", "--tls-ca", others.ca, "--tls-cert", ours.cert, "--tls-key", ours.key,
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"is not accepted by --tls-ca {others.ca}" in done.stderr
    assert files_below(tmp_path) == before


def locked(tls: Tls, folder: Path) -> str:
    """The same key behind a password, which nobody is asked for."""
    openssl("ec", "-in", tls.key, "-aes256", "-passout", "pass:x", "-out", str(folder / "locked"))
    return str(folder / "locked")


# GPUs of this machine: without one, two names stand for them.


def test_workers_of_a_machine_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.door.visible_gpus", lambda: 2)
    asked = ClusterOptions(workers=6, slots=3, memory=10**9)
    gpus = resolve(asked, "cuda")
    assert (gpus.workers, gpus.gpus, gpus.memory) == (2, 2, 3 * 10**9)
    one = resolve(asked, "cuda:1")
    assert (one.workers, one.gpus, one.memory) == (1, 0, 6 * 10**9)
    assert resolve(asked, "cpu") == asked


@pytest.mark.cluster
def test_a_local_worker_sees_its_gpu_alone_and_offers_it_in_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e")
    with open_client(ClusterOptions(workers=2, gpus=2, slots=3, memory=10**9)) as client:
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        offered = client.run(lambda dask_worker: dask_worker.state.total_resources)
        assert task_resources(client) == {"GPU": 1}
    assert sorted(seen.values()) == ["3", "GPU-5e"]
    assert list(offered.values()) == [{"GPU": 3}] * 2


@pytest.mark.gpu
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_blocks_that_share_a_gpu_equal_those_of_the_cpu_and_repeat_in_every_bit(
    tmp_path: Path,
) -> None:
    store_volume(tmp_path / "em.zarr", synthetic_em((6, 160, 160), seed=3).raw, chunk=(1, 64, 64))
    network = random_network(UNetArchitecture.planar(8, 2, dropout=0.0))
    save_softmax(tmp_path / "model.safetensors", network)
    cpu, gpu, again = (
        predicted(tmp_path, f"{n}.zarr", device) for n, device in enumerate(("cpu", "cuda", "cuda"))
    )
    np.testing.assert_allclose(gpu, cpu, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(again, gpu)


def predicted(folder: Path, output: str, device: str) -> npt.NDArray[Any]:
    """Predict in one worker that computes three blocks at once, in turns on its device."""
    done = run_tilenet(
        "predict", "em.zarr", output, "--model", "model.safetensors", "--block", "1,64,64",
        "--dtype", "float32", "--precision", "float32", "--device", device, "--workers", "1",
        "--slots", "3", "--memory", "8GB", "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    volume = open_volume(str(folder / output))
    model = volume.attributes["numeric_plan"]["device"]
    assert model.startswith("cpu ") == (device == "cpu")
    report = json.loads((folder / f"{output}.report.json").read_text())
    assert (report["workers"], report["slots"]) == (1, 3)
    assert json.loads(done.stdout)["computed"] == 54
    return volume.read(Box.of_shape(volume.shape))


@pytest.mark.parametrize(
    ("name", "place"), [("0", 0), ("3", 3), ("job12", 0), ("job12-0", 0), ("job1-2", 2)]
)
def test_a_workers_name_says_its_place_on_the_machine(name: str, place: int) -> None:
    assert position(name) == place
