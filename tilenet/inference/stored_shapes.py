"""Whether the weights that a file holds are those of the architecture that it states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilenet.errors import InvalidModelFile
from tilenet.networks import UNetArchitecture


def check_shapes(path: str, architecture: UNetArchitecture, shapes: Mapping[str, Any]) -> None:
    """Refuse a file of other tensors than its architecture has."""
    # Counted before they are listed: a header may claim more layers than any memory holds.
    levels = len(architecture.channels)
    layers = (2 * levels - 1) * architecture.convolutions + levels
    if len(shapes) != 2 * layers:
        problem = f"has {len(shapes)} tensors, but its architecture has {2 * layers}"
        raise InvalidModelFile(path, problem)
    stored = sum(math.prod(shape) for shape in shapes.values())
    names = {
        f"layers.{layer.key}.{part}"
        for layer in architecture.layers()
        if layer.parameters
        for part in ("weight", "bias")
    }
    if set(shapes) != names or stored != architecture.parameter_count:
        problem = (
            f"has {stored} weights in {len(shapes)} tensors, but its architecture has "
            f"{architecture.parameter_count} in {len(names)}"
        )
        raise InvalidModelFile(path, problem)
