"""Going on with a begun output: only under the conditions that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.outputs import Prediction, warn_of_unstated
from pipelines.predict.job import Job
from tilenet.geometry import BlockGrid, Box
from tilenet.planning import Plan
from tilenet.volumes import (
    SAMPLES,
    Volume,
    refuse_if_different,
    replace_attributes,
    sampled_shards,
)

#: Bytes of the sampled objects of an input, by key; None where one is not stored.
Sizes = Mapping[str, int | None]


def check_resume(job: Job, plan: Plan, begun: Volume, stated: Prediction) -> None:
    """Refuse to go on under other conditions.

    Input shards that were corrupt and are restored change their size. That is no other input as
    long as no stored block was computed from them: their new sizes are noted in the output.
    """
    stored = Prediction.from_attributes(begun.attributes)
    before, now = (record.input.get("stored_bytes", {}) for record in (stored, stated))
    restored = _restored_shards(job, plan, begun, before, now)
    if restored:
        seen = {**stored.input, "stored_bytes": {**before, **restored}}
        stored = stored.model_copy(update={"input": seen})
    conditions = stored.determinants(), stated.determinants()
    refuse_if_different(begun.location, *conditions)
    warn_of_unstated(begun.location, *conditions)
    if restored:
        replace_attributes(begun.location, stored.to_attributes())


def _restored_shards(
    job: Job, plan: Plan, begun: Volume, before: Sizes, now: Sizes
) -> dict[str, int | None]:
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
