"""A scheduler in this process whose workers are jobs, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable

from distributed import SpecCluster

#: Why a job is given up.
HUNG, UNFIT = "its worker hung", "its worker could compute no block"


class JobCluster(SpecCluster):  # type: ignore[misc]  # distributed has no types
    """A scheduler whose workers are jobs.

    Attributes
    ----------
    give_up : callable
        Takes a worker's name and what is wrong with it: another job replaces the worker's.
    held : bool
        Whether jobs are kept that have nothing to do, because the run is paused.
    """

    give_up: Callable[[str, str], None]
    held: bool = False
