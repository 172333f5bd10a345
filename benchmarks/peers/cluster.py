"""tilenet itself, on a local cluster that stays warm between two runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import time

from distributed import Client, default_client

from benchmarks import ours
from benchmarks.cases import Inputs
from benchmarks.memory import give_back
from benchmarks.peers.contestant import Contestant, Run, Setting
from pipelines.cluster import ClusterOptions, open_client
from pipelines.predict import Choices
from tilenet.planning import Plan

#: Bytes of each worker: more than any plan of the race takes, and within reach of every machine.
MEMORY = 4 * 2**30

# The client and its cluster, in the process that runs it.
_open = contextlib.ExitStack()


def cluster_options(cores: int) -> ClusterOptions:
    """One worker of one thread per core, as the command has it by default."""
    return ClusterOptions(workers=cores, slots=2, threads=1, memory=MEMORY)


@functools.cache
def _client(cores: int) -> Client:
    client = _open.enter_context(open_client(cluster_options(cores)))
    client.wait_for_workers(cores)
    return client


def run(inputs: Inputs, output: str, setting: Setting, cores: int, *, choices: Choices) -> Run:
    """Predict with tilenet; planning, checks and the last look at the store are timed, too."""
    operations = planned(inputs, cores, choices=choices).operations
    cluster = dataclasses.replace(
        cluster_options(cores), scheduler=_client(cores).scheduler.address
    )
    with contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        summary = ours.predict(
            inputs.source, output, model=inputs.model, cluster=cluster, choices=choices
        )
        seconds = time.perf_counter() - start
    assert not summary.outcome.failed, summary.outcome.failed
    return Run(seconds, operations)


def rest() -> None:
    """Let the workers give memory back."""
    give_back()
    default_client().run(give_back)


def finish() -> None:
    """End client, scheduler and workers."""
    _open.close()


def planned(inputs: Inputs, cores: int, *, choices: Choices = ours.CHOICES) -> Plan:
    """Give the plan that the cluster of a number of cores will follow."""
    return ours.plan_case(inputs, cluster_options(cores), choices)


def _contestant(name: str, title: str, precision: str) -> Contestant:
    choices = dataclasses.replace(ours.CHOICES, precision=precision)

    def choose(inputs: Inputs, cores: int) -> Setting:
        return Setting(planned(inputs, cores, choices=choices).tile)

    return Contestant(
        name=name,
        title=title,
        run=functools.partial(run, choices=choices),
        choose=choose,
        code=(ours.predict,),
        rest=rest,
        finish=finish,
    )


CONTESTANTS = (
    _contestant("tilenet", "tilenet", "float32"),
    _contestant("tilenet-bfloat16", "tilenet, bfloat16", "bfloat16"),
)
