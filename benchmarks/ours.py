"""tilenet as it is measured: a case planned, and predicted from Zarr to Zarr."""

from __future__ import annotations

from benchmarks.cases import Inputs
from pipelines.cluster import ClusterOptions
from pipelines.outputs import Summary
from pipelines.predict import Choices, check_job, plan_job, run_prediction
from tilenet.geometry import Box
from tilenet.planning import Plan
from tilenet.volumes import VolumeReference

#: What is stored, by tilenet and by the others: no rounding to grey levels hides a difference, and
#: no method writes less than another.
CHOICES = Choices(dtype="float32")


def plan_case(inputs: Inputs, cluster: ClusterOptions, choices: Choices = CHOICES) -> Plan:
    """Plan a case as the command would."""
    job = check_job(VolumeReference(inputs.source), inputs.model, mask=None, choices=choices)
    return plan_job(job, Box.of_shape(job.volume.shape), cluster)


def predict(
    source: str, output: str, *, model: str, cluster: ClusterOptions, choices: Choices = CHOICES
) -> Summary:
    """Predict from Zarr to Zarr."""
    return run_prediction(
        VolumeReference(source), output, model=model, cluster=cluster, choices=choices
    )
