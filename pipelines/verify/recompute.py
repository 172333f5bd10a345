"""Computing some blocks of a begun output anew, under the plan that it was made with."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.cluster import ClusterOptions
from pipelines.outputs import (
    Ingested,
    Prediction,
    listed,
    open_input,
    record_of,
    say_stored,
)
from pipelines.predict import (
    Choices,
    IntensityRule,
    Job,
    check_inputs,
    check_job,
    execution,
    mask_identity,
    output_dtype,
    plan_job,
    predict_task,
    provenance,
)
from tilenet.errors import InvalidData, ResumeRefused
from tilenet.formats import ZarrSource, open_source
from tilenet.geometry import Box
from tilenet.inference import TOLERANCES, RecomputeTask, model_sha256
from tilenet.networks import EXPLAINING, Execution
from tilenet.planning import Plan
from tilenet.volumes import (
    PLAN,
    Flaw,
    Intensity,
    OutputReference,
    Volume,
    VolumeReference,
    identify,
    object_path,
    refuse_if_different,
    unstated,
)

#: Where provenance lies, relative to an output.
METADATA = "zarr.json"


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What an output is said to have come from, as far as it is at hand."""

    source: VolumeReference | None = None  # the input
    model: str | None = None  # the model file of a prediction
    mask: VolumeReference | None = None  # the mask of a prediction


def basis_flaws(output: Volume, basis: Basis) -> Iterator[Flaw]:
    """Compare what is at hand with what the output says that it came from."""
    record = record_of(output)
    now: dict[str, Any] = {}
    if basis.model is not None:
        now["model_sha256"] = model_sha256(basis.model)
    if basis.mask is not None:
        now["mask"] = _mask_now(open_input(basis.mask), basis.source, record)
    if basis.source is not None and isinstance(record, Ingested):
        now["source"] = _source_identity(basis.source, record.source)
    elif basis.source is not None:
        now["input"] = identify(open_input(basis.source))
    said = record.to_attributes()
    yield from _as_flaws(_differences(output, {name: said.get(name) for name in now}, now))


def _mask_now(
    mask: Volume, source: VolumeReference | None, record: Prediction | Any
) -> dict[str, Any]:
    if source is not None:
        return mask_identity(source.open(), mask)
    # Where it lies cannot be known without the input.
    said = getattr(record, "mask", None) or {}
    return identify(mask) | {name: said[name] for name in ("offset",) if name in said}


def _source_identity(source: VolumeReference, said: Mapping[str, Any]) -> dict[str, Any]:
    """Recognise a source, opened as the stored identity says that it was."""
    seen = dataclasses.asdict(source)
    how, *_ = said.get("missing", ["skip"])
    opened = open_source(seen.pop("location"), series=said.get("series"), missing=how, **seen)
    if isinstance(opened, ZarrSource):
        say_stored(opened.volume)
    return opened.identity()


def _differences(
    output: Volume, stored: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[object, object]]:
    try:
        refuse_if_different(output.location, stored, now)
    except ResumeRefused as error:
        return dict(error.differences)
    return {}


def _as_flaws(differences: Mapping[str, tuple[object, object]]) -> Iterator[Flaw]:
    sizes = [name for name in differences if ".stored_bytes" in name]
    if sizes:
        where = sizes[0].split(".stored_bytes")[0]
        cause = f"{where}: {len(sizes)} of its sampled objects have other sizes than they had"
        yield Flaw("provenance", METADATA, "", cause)
    for name in [name for name in differences if name not in sizes]:
        stored, now = differences[name]
        cause = f"{name}: it says {stored!r}, and what is at hand gives {now!r}"
        yield Flaw("provenance", METADATA, "", cause)


@dataclass(frozen=True, kw_only=True)
class Recomputation:
    """A prediction that is computed again, in part."""

    output: Volume  # what is stored
    said: Prediction  # what it says of how it was made
    job: Job  # the prediction
    plan: Plan  # under which it was computed

    @property
    def intensity(self) -> Intensity:
        """The rule that normalises grey values, as stored."""
        return self.said.intensity.intensity

    @property
    def execution(self) -> Execution:
        return execution(self.job, self.plan)

    def choose(self, share: float, seed: int, bad: set[str]) -> list[Box]:
        """Draw blocks, one at least, of which all is stored and no object is in ``bad``.

        They come in the order of the grid.
        """
        grid = self.plan.grid
        order = random.Random(seed).sample(range(len(grid)), len(grid))  # noqa: S311
        whole = (i for i in order if bad.isdisjoint(self._objects(grid[i])))
        count = max(1, round(share * len(grid)))
        return [grid[i] for i in sorted(i for i, _ in zip(whole, range(count), strict=False))]

    def _objects(self, block: Box) -> Iterator[str]:
        return (object_path(self.output, key) for key in self.output.shard_keys(block))

    def stated(self, facts: Mapping[str, Any]) -> Prediction:
        """State what the output's provenance would be if it were made now."""
        said = self.said.intensity
        rule = IntensityRule(said.rule, said.void, clip=said.percentiles)
        known = rule.known(self.job.header, said) or self.intensity
        # Which of the two was inverted, the rule or the model, is not stored, only the sum.
        numbers = dataclasses.replace(known, invert=self.intensity.invert)
        dtype = output_dtype(self.job, self.output)
        grey = rule.stated(numbers)
        return provenance(self.job, self.plan, intensity=grey, facts=facts, dtype=dtype)

    def compare(self, facts: Mapping[str, Any]) -> tuple[list[Flaw], list[str]]:
        """Compare what the output says with what would be said now.

        Gives the fields that determine values and differ, and the differences of the numeric plan,
        under which values agree within a tolerance.
        """
        said, now = self.said.determinants(), self.stated(facts).determinants()
        found = _differences(self.output, said, now)
        plan = {name: found.pop(name) for name in list(found) if name.startswith(PLAN)}
        numeric = [
            f"{name.removeprefix(PLAN)} was {before}, and is {after} here"
            for name, (before, after) in plan.items()
        ]
        if f"{PLAN}digest" in plan:  # convolutions give other bits: what may be the reason
            numeric += self._explaining(facts)
        unknown = unstated(said, now)
        if unknown:
            numeric.append(f"it does not state {listed(unknown)}, as older versions did not")
        return list(_as_flaws(found)), numeric

    def reasons(self, facts: Mapping[str, Any]) -> str:
        """Say why bits may differ although all that decides them is the same."""
        names = self._explaining(facts)
        known = f"Known to differ: {', '.join(names)}" if names else "Nothing known differs"
        return (
            "bits differ although the numeric plan, the versions and the digest of the device are "
            f"the same. {known}. Voxels were changed, or a processor computes otherwise"
        )

    def task(self, facts: Mapping[str, Any], *, exact: bool) -> RecomputeTask:
        output = OutputReference(self.output.location, self.output.creation)
        predict = predict_task(
            self.job, self.plan, output, intensity=self.intensity, facts=facts, run=uuid.uuid4().hex
        )
        tolerance = TOLERANCES[self.plan.request.precision]
        return RecomputeTask(predict=predict, tolerance=tolerance, exact=exact)

    def _explaining(self, facts: Mapping[str, Any]) -> list[str]:
        said = self.said.numeric_plan.model_extra or {}
        return [
            f"{name} was {said.get(name, 'unset')}, and is {facts.get(name, 'unset')} here"
            for name in EXPLAINING
            if said.get(name) != facts.get(name)
        ]


def prepare(
    output: Volume, region: Box, basis: Basis, *, device: str, cluster: ClusterOptions
) -> Recomputation:
    """Plan a prediction as it was planned when it was begun."""
    said = Prediction.from_attributes(output.attributes)
    needed = {"--model": basis.model, "--source": basis.source}
    if said.mask is not None:
        needed["--mask"] = basis.mask
    _check_at_hand([name for name, given in needed.items() if given is None])
    assert basis.model is not None
    assert basis.source is not None
    # Whoever made it may have been allowed another voxel size; that is no longer the question.
    choices = Choices(device=device, ignore_voxel_size=True)
    job = check_job(basis.source, basis.model, mask=basis.mask, choices=choices)
    plan = plan_job(job, region, cluster, output)
    check_inputs(job, plan)
    return Recomputation(output=output, said=said, job=job, plan=plan)


def _check_at_hand(missing: Sequence[str]) -> None:
    if missing:
        problem = f"needs {' and '.join(missing)}: an output knows what made it by digests only"
        raise InvalidData("--recompute", problem, "Give what the prediction was made of.")
