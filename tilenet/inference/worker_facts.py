"""What a worker computes with: asked as a run starts, and checked by each that comes later."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilenet.errors import WorkerUnfit
from tilenet.networks import Execution, explained

#: What :func:`numeric_facts` gives, such that it can be hashed.
Facts = tuple[tuple[str, Any], ...]


def numeric_facts(device: str, precision: str = "float32", threads: int = 1) -> dict[str, Any]:
    """Tell, from inside a worker, what decides the last bits of its results."""
    from tilenet.inference import predictor

    return predictor.numeric_facts(device, precision, threads)


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What a worker computes with, and where it is.

    Parameters
    ----------
    facts : mapping, from :func:`numeric_facts`
    node : str, by the name that SLURM has for it where it runs there
    in_slurm : bool
        Whether it runs in a job of SLURM.
    """

    facts: Mapping[str, Any]
    node: str
    in_slurm: bool


def worker_kind(execution: Execution) -> WorkerKind:
    """Tell, from inside a worker, what kind it is of.

    Parameters
    ----------
    execution : Execution

    Returns
    -------
    WorkerKind
        The same wherever results are the same bits, and its node.
    """
    facts = numeric_facts(execution.device, execution.precision, execution.threads)
    node = os.environ.get("SLURMD_NODENAME", platform.node())
    return WorkerKind(facts, node, "SLURM_JOB_ID" in os.environ)


def check_facts(facts: Facts, execution: Execution) -> None:
    """Refuse to compute in a worker of another kind than those that a run began with."""
    # The workers that were there when the run began agreed; this one may have come later.
    if not facts:
        return
    here = worker_kind(execution)
    differences = explained(here.facts, dict(facts))
    if differences:
        problem = f"differs from the workers that the run began with: {', '.join(differences)}"
        cure = "One output comes from one kind of device and one set of versions: stop this worker."
        if here.in_slurm:
            cure += f" To be given none of that node, say --directive=--exclude={here.node}."
        raise WorkerUnfit(here.node, problem, cure)
