"""The file that chunkflow's ``universal`` framework loads: a network that is given patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import methods
from benchmarks.methods import Floats


class PatchInferencer:
    """Evaluates patches, and weights them by chunkflow's mask, (z, y, x), so that they add up."""

    def __init__(self, path: str, mask: Any) -> None:
        self.model, self.mask = methods.load(path), np.asarray(mask)

    def __call__(self, patches: Floats) -> Floats:
        """Predict (b, 1, z, y, x) of grey values that chunkflow has divided by 255."""
        grey = self.model.intensity.apply(patches[:, 0] * np.float32(255), np.float32)
        weighted: Floats = methods.foreground(self.model, grey)[:, None] * self.mask
        return weighted
