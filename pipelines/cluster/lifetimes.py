"""How long the workers of a job take blocks, so that none is killed in the middle of one."""

from __future__ import annotations

from tilenet.planning import BLOCK_SECONDS

#: What is left of a job's walltime to finish what its workers hold: a block's time for each of
#: their slots, for slots compute in turn; so many more, for times are estimates; and this share of
#: the walltime at most.
SPARE_BLOCKS, SHARE_LEFT = 0.5, 1 / 2

#: Share of a job's lifetime by which the lifetimes of jobs differ at most, and seconds at most.
STAGGER_SHARE, STAGGER_SECONDS = 1 / 10, 600


def lifetime_of(walltime: int, slots: int, block_seconds: float = BLOCK_SECONDS) -> int:
    """Give for how many seconds a job's workers take blocks; shorter ones count as the default."""
    left = (slots + SPARE_BLOCKS) * max(block_seconds, BLOCK_SECONDS)
    return walltime - int(min(left, walltime * SHARE_LEFT))


def stagger_of(lifetime: int) -> int:
    """Give by how many seconds the lifetimes of jobs differ at most."""
    return min(STAGGER_SECONDS, int(lifetime * STAGGER_SHARE))
