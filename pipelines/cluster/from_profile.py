"""A profile and the options of a command, put together: which cluster to use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psutil

from pipelines.cluster.lifetimes import lifetime_of, stagger_of
from pipelines.cluster.local import default_workers
from pipelines.cluster.options import Batch, ClusterOptions
from pipelines.cluster.profile import Profile
from pipelines.cluster.systems import SYSTEMS
from pipelines.cluster.tls import check_tls
from tilenet.errors import InvalidProfile
from tilenet.strict_toml import load, validate

#: Share of the machine's available memory that workers may use together by default.
MEMORY_SHARE = 0.75


def make_options(cluster: str | None, flags: Mapping[str, Any]) -> ClusterOptions:
    """Put a profile and the options of a command together, and check them; options win.

    Parameters
    ----------
    cluster : str or None
        A kind of cluster, or the path of a profile.
    flags : mapping
        Values by key of the profile; None where the option was not given.

    Returns
    -------
    ClusterOptions
        Checked as far as that goes without the cluster.
    """
    values: dict[str, Any] = {}
    if cluster in ("local", *SYSTEMS):
        values = {"kind": cluster}
    elif cluster is not None:
        values = load(cluster, InvalidProfile)
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    files = {key: given.pop(f"tls_{key}") for key in ("ca", "cert", "key") if f"tls_{key}" in given}
    values |= given
    if files and isinstance(table := values.get("tls", {}), dict):
        values["tls"] = table | files
    profile = validate(Profile, values, cluster or "options", InvalidProfile)
    if (tls := profile.tls.files) is not None:
        check_tls(tls)
    common = {
        "slots": profile.slots,
        "threads": profile.threads,
        "tls": tls,
        "dashboard": profile.dashboard,
        "block_timeout": profile.block_timeout,
        "outage_timeout": profile.outage_timeout,
    }
    return _of_machine(profile, common) if profile.kind == "local" else _of_jobs(profile, common)


def _of_machine(profile: Profile, common: Mapping[str, Any]) -> ClusterOptions:
    count = profile.workers or default_workers(profile.threads or 1)
    chosen = (profile.scheduler, profile.workers, profile.threads)
    left_to_the_plan = chosen == (None, None, None)
    total = profile.memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
    return ClusterOptions(
        scheduler=profile.scheduler,
        workers=count,
        memory=total // count,
        cores=default_workers(1) if left_to_the_plan else None,
        **common,
    )


def _of_jobs(profile: Profile, common: Mapping[str, Any]) -> ClusterOptions:
    SYSTEMS[profile.kind].job_class()
    assert profile.walltime is not None
    assert profile.memory is not None
    lifetime = profile.lifetime or lifetime_of(profile.walltime, profile.slots)
    stagger = profile.lifetime_stagger or stagger_of(lifetime)
    return ClusterOptions(
        batch=Batch(profile=profile, lifetime=lifetime, stagger=stagger),
        workers=profile.job_workers * profile.most_jobs,
        memory=profile.memory // profile.job_workers,
        **common,
    )
