"""How many threads decode what is read.

zarrs has one pool of them per process, made when the first volume is opened, and without a word it
has as many as the machine has cores. zarr's setting ``threading.max_workers`` bounds what is asked
of the pool and not the pool (measured).
"""

from __future__ import annotations

import os

#: Environment variable: threads of the pool.
VARIABLE = "RAYON_NUM_THREADS"


def bind_reading(threads: int) -> None:
    """Decode what this process reads in so many threads, unless the user's environment says.

    Parameters
    ----------
    threads : int
        Set before the process opens its first volume; its children take them over.
    """
    os.environ.setdefault(VARIABLE, str(threads))
