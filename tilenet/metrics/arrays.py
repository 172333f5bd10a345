"""What arrays of labels, probabilities and instances have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData

Labels = npt.NDArray[np.integer[Any] | np.bool]
Proposal = npt.NDArray[np.floating[Any] | np.integer[Any] | np.bool]
Mask = npt.NDArray[np.bool]
Ids = npt.NDArray[np.int32]
Counted = npt.NDArray[np.int64]


def as_sections(labels: Labels, proposal: Proposal) -> tuple[Labels, Proposal]:
    """Check labels and a proposal, and give them as stacks."""
    check_shapes(labels, proposal, "proposal")
    if labels.dtype.kind not in "biu":
        raise InvalidData(
            what="labels",
            problem=f"the dtype {labels.dtype} is neither integer nor bool",
            cure="Give 0 for membrane and a positive integer for interior.",
        )
    if proposal.dtype.kind not in "biuf":
        raise InvalidData(
            what="proposal",
            problem=f"the dtype {proposal.dtype} holds no probabilities",
            cure="Give floating-point probabilities of interior, 0 to 1.",
        )
    check_probabilities(proposal)
    if labels.ndim == 2:
        return labels[np.newaxis], proposal[np.newaxis]
    return labels, proposal


def check_shapes(labels: npt.NDArray[Any], other: npt.NDArray[Any], name: str) -> None:
    """Refuse arrays that are not of the same sections."""
    if labels.shape != other.shape:
        raise InvalidData(
            what=name,
            problem=f"its shape {other.shape} is not the shape {labels.shape} of the labels",
            cure="Give both for the same sections, (z, y, x).",
        )
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise InvalidData(
            what="labels",
            problem=f"the shape {labels.shape} is not that of one section or a stack of them",
            cure="Give a non-empty array (z, y, x), or (y, x) for one section.",
        )


def check_probabilities(proposal: Proposal) -> None:
    # NaN passes through both min and max, so two numbers tell about every voxel.
    lowest, highest = float(proposal.min()), float(proposal.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InvalidData(
            what="proposal",
            problem="it holds NaN or infinite values",
            cure="Give finite probabilities of interior, 0 to 1.",
            lasting=True,
        )
    if lowest < 0.0 or highest > 1.0:
        raise InvalidData(
            what="proposal",
            problem=f"its values reach from {lowest:g} to {highest:g}, but thresholds are 0 to 1",
            cure="Scale it to probabilities of interior first (divide an 8-bit map by 255).",
            lasting=True,
        )


def check_finite_values(values: npt.NDArray[Any]) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        problem = "it holds NaN or infinite values"
        raise InvalidData("proposal", problem, "Give finite values.", lasting=True)


def check_instances(ids: npt.NDArray[Any], name: str) -> None:
    """Refuse what cannot be numbers of instances.

    Parameters
    ----------
    ids : ndarray
    name : str
        What the message calls it.
    """
    if ids.dtype.kind not in "biu":
        raise InvalidData(
            what=name,
            problem=f"the dtype {ids.dtype} is not that of instances",
            cure="Give 0 for background and a positive integer for each instance.",
        )
    if ids.dtype.kind == "i" and int(ids.min()) < 0:
        lowest = int(ids.min())
        raise InvalidData(
            what=name,
            problem=f"it holds the negative value {lowest}",
            cure="Give 0 for background and a positive integer for each instance; in evaluate, "
            f"--ignore {lowest} leaves such voxels out of every figure.",
            lasting=True,
        )
