"""Going on with a begun output: only under the conditions that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from pipelines.prediction import Job
from tilenet.geometry import Box
from tilenet.identity import SAMPLES, sampled_shards
from tilenet.new_volume import replace_attributes
from tilenet.plan import Plan
from tilenet.provenance import refuse_if_different, unstated
from tilenet.tiling import BlockGrid
from tilenet.volume import Volume


def check_resume(job: Job, plan: Plan, begun: Volume, stated: Mapping[str, Any]) -> None:
    """Refuse to go on under other conditions.

    Input shards that were corrupt and are restored change their size. That is no other input as
    long as no stored block was computed from them: their new sizes are noted in the output.

    Parameters
    ----------
    job : Job
        The prediction.
    plan : Plan
        Its plan, taken from the begun output.
    begun : Volume
        The output.
    stated : mapping
        What would determine the values of the missing blocks.

    Raises
    ------
    ResumeRefused
        Naming every condition that differs.
    """
    stored = dict(begun.attributes)
    restored = _restored_shards(job, plan, begun, stated)
    if restored:
        sizes = {**stored["input"]["stored_bytes"], **restored}
        stored["input"] = {**stored["input"], "stored_bytes": sizes}
    refuse_if_different(begun.location, stored, stated)
    warn_of_unstated(begun.location, stored, stated)
    if restored:
        replace_attributes(begun.location, stored)


def warn_of_unstated(location: str, stored: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """Say in one line what an output of an older version does not state of how it was computed.

    Parameters
    ----------
    location : str
        The output, or the checkpoint.
    stored, stated : mapping
        What is stored with it, and what determines the values now.
    """
    unknown = unstated(stored, stated)
    if unknown:
        problem = f"{location} was begun by an older tilenet and does not state {listed(unknown)}"
        click.echo(f"{problem}: taken to be as they are now.", err=True)


def listed(names: Sequence[str]) -> str:
    """Write names as people list them.

    Parameters
    ----------
    names : sequence of str
        One at least.

    Returns
    -------
    str
        "a", "a and b" or "a, b and c".
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _restored_shards(
    job: Job, plan: Plan, begun: Volume, stated: Mapping[str, Any]
) -> dict[str, int | None]:
    before = begun.attributes["input"].get("stored_bytes", {})
    now = stated["input"]["stored_bytes"]
    if before.keys() != now.keys() or begun.shape != plan.request.volume_shape:
        return {}
    boxes = sampled_shards(job.volume)
    changed = {key: size for key, size in now.items() if size != before[key]}
    # Another input changes nearly every size; where only a sample is looked at, few may differ.
    if len(now) == SAMPLES and len(changed) > SAMPLES // 32:
        return {}
    used = [key for key in changed if _was_used(boxes[key], plan, begun)]
    return {} if used else changed


def _was_used(shard: Box, plan: Plan, begun: Volume) -> bool:
    # Every block whose context may hold a voxel of the shard: mirroring reaches no farther.
    blocks = BlockGrid(plan.request.volume_shape, plan.block, shard.grow(plan.reach, plan.reach))
    return len(begun.missing(blocks)) < len(blocks)
