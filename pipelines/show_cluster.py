"""``tilenet cluster``: what a profile or options of a cluster mean."""

from __future__ import annotations

import click

from pipelines.cluster import ClusterOptions, make_job
from pipelines.options import cluster_options


@click.group()
def cluster() -> None:
    """Show where a command would compute."""


@cluster.command()
@cluster_options
def show(cluster: ClusterOptions) -> None:
    """Print the job script that would be submitted, and start nothing.

    It takes what the commands take that compute: --cluster and the options that replace what it
    says. Without jobs it says in words where the workers would be.
    """
    if cluster.batch is None:
        click.echo(_in_words(cluster))
        return
    click.echo(_limits(cluster), err=True)
    job = make_job(cluster, address="ADDRESS", job_name="tilenet", worker="job1")
    click.echo(job.job_script(), nl=False)


def _in_words(options: ClusterOptions) -> str:
    if options.scheduler is not None:
        tls = ", encrypted" if options.tls else ""
        return f"The workers of the running scheduler {options.scheduler}{tls}"
    memory = f"{options.memory / 2**30:.1f} GiB"
    return (
        f"This machine: {options.workers} worker processes of {options.slots} slots, "
        f"{options.threads or 1} CPU threads and {memory} each; with --device cuda one per GPU"
    )


def _limits(options: ClusterOptions) -> str:
    batch = options.batch
    assert batch is not None
    profile, memory = batch.profile, f"{options.memory / 2**30:.1f} GiB"
    return (
        f"{profile.least_jobs} to {profile.most_jobs} jobs of {batch.system.name}, "
        f"{profile.job_workers} workers of {options.slots} slots and {memory} each; a worker takes "
        f"no further block {batch.lifetime - batch.stagger} to {batch.lifetime} s after its job "
        "began"
    )
