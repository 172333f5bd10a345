"""Jobs as tests describe them."""

from __future__ import annotations

from typing import Any

from pipelines.cluster.options import Batch
from pipelines.cluster.profile import Profile


def slurm_batch(lifetime: int = 500, **keys: Any) -> Batch:
    """Jobs of ten minutes, whose lifetimes do not differ, with further keys of a profile."""
    profile = Profile(**{"kind": "slurm", "walltime": "600s", "memory": "1GB", **keys})
    return Batch(profile=profile, lifetime=lifetime, stagger=0)
