"""How long the workers of a job take blocks, so that none is killed in the middle of one."""

from __future__ import annotations

import dataclasses

import click

from pipelines.cluster.options import ClusterOptions
from pipelines.progress import clock
from tilenet.planning import BLOCK_SECONDS

#: What is left of a job's walltime to finish what its workers hold: a block's time for each of
#: their slots, for slots compute in turn; so many more, for times are estimates; and this share of
#: the walltime at most.
SPARE_BLOCKS, SHARE_LEFT = 0.5, 1 / 2

#: Share of a job's lifetime by which the lifetimes of jobs differ at most, and seconds at most.
STAGGER_SHARE, STAGGER_SECONDS = 1 / 10, 600


def lifetime_of(walltime: int, slots: int, block_seconds: float = BLOCK_SECONDS) -> int:
    """Give how long the workers of a job take blocks."""
    left = (slots + SPARE_BLOCKS) * max(block_seconds, BLOCK_SECONDS)
    return walltime - int(min(left, walltime * SHARE_LEFT))


def stagger_of(lifetime: int) -> int:
    """Give by how much the lifetimes of jobs differ at most."""
    return min(STAGGER_SECONDS, int(lifetime * STAGGER_SHARE))


def leave_time(options: ClusterOptions, block_seconds: float) -> ClusterOptions:
    """Leave the workers of jobs the time to finish blocks that last so long.

    Says so on stderr where the walltime, or a lifetime that the user chose, does not allow it.

    Parameters
    ----------
    options : ClusterOptions
        Where to compute.
    block_seconds : float
        What a block is expected to take while others keep its worker busy.

    Returns
    -------
    ClusterOptions
        With a shorter lifetime of jobs where that is needed and the user chose none.
    """
    if (batch := options.batch) is None:
        return options
    if not batch.lifetime_chosen:
        lifetime = lifetime_of(batch.walltime, options.slots, block_seconds)
        batch = dataclasses.replace(batch, lifetime=min(batch.lifetime, lifetime))
    left, held = batch.walltime - batch.lifetime, options.slots * block_seconds
    if held > left:
        click.echo(
            f"Warning: a job is killed {clock(left)} after its workers take no further block, and "
            f"those that one holds by then, {options.slots} of about {clock(block_seconds)}, take "
            f"{clock(held)} in turn: what is not done is computed twice. Give more --walltime, a "
            "shorter --lifetime, or fewer --slots or --block-minutes.",
            err=True,
        )
    return dataclasses.replace(options, batch=batch)
