"""A scheduler in this process, whose workers are jobs of a queueing system."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import dask
import psutil
from distributed import Client, Scheduler

from pipelines.cluster.job_cluster import JobCluster
from pipelines.cluster.job_queue import JobQueue
from pipelines.cluster.jobs import Jobs
from pipelines.cluster.local import accept_any_port, choose_dashboard
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.tls import security
from pipelines.stopping import Stop
from tilenet.errors import InvalidData


@contextlib.contextmanager
def job_client(options: ClusterOptions, stop: Stop) -> Iterator[Client]:
    """Start workers in jobs, and leave none behind."""
    assert options.batch is not None
    interface = options.batch.profile.interface
    _check_interface(interface)
    JobQueue(options, address="").check_installed()
    # The dashboard listens on loopback, whatever the workers' network is, unless told otherwise.
    dashboard = choose_dashboard(options.dashboard)
    host = dashboard.rpartition(":")[0]
    with (
        dask.config.set({"distributed.dashboard.link": f"{{scheme}}://{host}:{{port}}/status"}),
        _scheduler(options, interface, dashboard) as cluster,
        Client(cluster) as client,
        Jobs(options, cluster, client) as jobs,
    ):
        jobs.wait(stop)
        try:
            yield client
        except Exception as error:
            if jobs.problem is None:
                raise
            raise jobs.problem from error


def _check_interface(name: str | None) -> None:
    known = psutil.net_if_addrs()
    if name is not None and name not in known:
        problem = f"is no network interface of this machine; it has {', '.join(sorted(known))}"
        raise InvalidData(f"interface {name}", problem, "Correct it in the profile (--cluster).")


def _scheduler(options: ClusterOptions, interface: str | None, dashboard: str) -> JobCluster:
    how = {
        "interface": interface,
        "protocol": "tls://" if options.tls else None,
        "security": security(options.tls),
        "dashboard_address": dashboard,
    }
    accept_any_port()
    return JobCluster(
        scheduler={"cls": Scheduler, "options": how},
        security=security(options.tls),
        silence_logs=logging.CRITICAL,
        name="tilenet",
    )
