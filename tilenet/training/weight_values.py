"""What stored loss weights may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import Box
from tilenet.training.volumes import TrainingVolume


def check_weights(volume: TrainingVolume, box: Box, known: npt.NDArray[np.bool]) -> bool:
    """Refuse weights that cannot be meant; tell whether any voxel of a known class counts."""
    if volume.weights is None:
        return False
    weights = volume.weights.read(box)
    if not np.isfinite(weights).all():
        raise bad_weights(volume, box, "hold NaN or infinite values")
    if weights.min() < 0:
        raise bad_weights(volume, box, f"hold negative values, down to {weights.min():g}")
    return bool((weights[known] > 0).any())


def bad_weights(volume: TrainingVolume, box: Box, problem: str) -> InvalidData:
    """Say what is wrong with the weights of a box."""
    assert volume.weights is not None
    where = f"The weights {volume.weights.location} in {box}"
    return InvalidData(where, problem, "Make them with 'tilenet weights', or correct them.")
