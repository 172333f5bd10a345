"""Plans that rest on measured rates, and measuring them in as many workers as will compute."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import time
from collections.abc import Callable
from typing import Any

import click
from distributed import Client, wait

from pipelines.cluster import ClusterOptions, ask_workers, open_client
from tilenet.errors import one_line
from tilenet.inference import RateCache, gpu_name, machine_name
from tilenet.planning import (
    ASSUMED_START,
    Plan,
    Rates,
    Request,
    choose_plan,
    make_plan,
    planning_rate,
)

#: Seconds that a trial may take: many times what it should.
TRIAL_SECONDS = 120

#: Load per core above which a machine does other work.
BUSY = 0.5


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where a prediction will run, and what its rates depend on beside the plan.

    Parameters
    ----------
    cluster : ClusterOptions
        Resolved.
    device : str
        "cpu", "cuda" or "cuda:N".
    codec : str
        Compressor of the output.
    """

    cluster: ClusterOptions
    device: str
    codec: str

    @property
    def machine(self) -> str:
        return self.cluster.machine or machine_name(self.device)

    def plan(self, request: Request, cache: RateCache | None = None) -> Plan:
        """Plan by the rates that were measured here, if they were."""
        cache = cache or _rates_here()
        plan = choose_plan(request, self.cluster.cores)
        found = cache.find(plan, self.machine, self.codec)
        if found is None:
            return plan
        rated = dataclasses.replace(plan.request, rates=found)
        if planning_rate(rated) != planning_rate(plan.request):
            plan = make_plan(rated)
            found = cache.find(plan, self.machine, self.codec) or found
        return dataclasses.replace(plan, request=dataclasses.replace(plan.request, rates=found))

    def rated(self, plan: Plan) -> Plan:
        """State the rates of a plan that is given, if they were measured here."""
        found = _rates_here().find(plan, self.machine, self.codec)
        return dataclasses.replace(plan, request=dataclasses.replace(plan.request, rates=found))

    def calibrated(self, request: Request, *, anew: bool) -> Plan:
        """Plan by measured rates, and measure them where they are not known."""
        cache = _rates_here()
        for again in (anew, False):  # a plan by other rates may feed other slabs
            plan = self.plan(request, cache)
            if not again and cache.find(plan, self.machine, self.codec):
                break
            rates = measured(plan, self)
            if rates is None:
                break
            cache = cache.add(plan, self.machine, self.codec, rates)
            warn(cache)
        return self.plan(request, cache)


def _rates_here() -> RateCache:
    cache = RateCache.load()
    warn(cache)
    return cache


def warn(cache: RateCache) -> None:
    """Say in a line what is wrong with the user's file of measured rates."""
    if cache.problem is not None:
        _note(f"{cache.problem}.")


def measured(plan: Plan, place: Workplace) -> Rates | None:
    """Measure the rates of one worker while all of them work."""
    if place.cluster.batch is not None:
        _note("No job is submitted to measure its rates: they are assumed.")
        return None
    if place.cluster.local and place.device != "cpu" and gpu_name() is None:
        _note("There is no NVIDIA GPU here: rates are assumed.")
        return None
    _note(f"Measuring {place.machine}, some ten seconds (--no-calibration skips it)")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if place.cluster.local and load > BUSY * cores:
        text = f"a load of {load:.1f} on {cores} cores: what is measured are the rates of now"
        _note(f"Other work runs here, {text}. --calibrate measures them anew.")
    try:
        return _measure(plan, place)
    except Exception as error:  # a plan without it is better than none
        _note(f"That failed, so rates are assumed: {one_line(error, None)}")
        return None


def _measure(plan: Plan, place: Workplace) -> Rates | None:
    from tilenet.inference import (  # loads PyTorch
        compute_rate,
        compute_trial,
        prepare,
        store_rates,
        store_trial,
    )

    trial = compute_trial(plan, place.device)
    if trial is None:
        _note("The network is too large to be measured quickly here: rates are assumed.")
        return None
    request, start = plan.request, time.perf_counter()
    cluster = dataclasses.replace(
        place.cluster, workers=request.workers, threads=request.threads, memory=request.memory
    )
    with open_client(cluster) as client:
        _everywhere(client, 1, prepare, trial)
        started = time.perf_counter() - start
        compute = _everywhere(client, 1, compute_rate, trial)
        stored = _everywhere(
            client, request.slots, store_rates,
            store_trial(plan, place.codec),
        )  # fmt: skip
    read, write = (request.slots * _mean(rates) for rates in zip(*stored, strict=True))
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return Rates(
        compute=_mean(compute),
        read=read,
        write=write,
        # Workers of a scheduler that run already say nothing of what a new one takes.
        start=started if cluster.local else ASSUMED_START,
        measured=f"{place.machine}, {today}",
    )


def _everywhere(client: Client, copies: int, function: Callable[..., Any], trial: Any) -> list[Any]:
    # In the threads that tasks run in, so many at once in every worker.
    workers = [name for name in ask_workers(client, os.getpid) for _ in range(copies)]
    futures = [
        client.submit(function, trial, workers=[name], allow_other_workers=False, pure=False)
        for name in workers
    ]
    # A worker that is ended meanwhile comes back under another name, and its task would wait.
    _, late = wait(futures, timeout=TRIAL_SECONDS)
    if late:
        client.cancel(futures)
        raise TimeoutError(f"workers did not answer within {TRIAL_SECONDS} s")
    return list(client.gather(futures))


def _mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))


def _note(text: str) -> None:
    click.echo(text, err=True)
