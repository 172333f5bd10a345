"""The sizes in the axis tags of vigra, which ilastik writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilenet.volumes.attribute_values import VoxelSize
from tilenet.volumes.units import nanometres_per


def size_in_axistags(values: Mapping[str, Any]) -> tuple[VoxelSize | None, tuple[str, ...]]:
    """Read a resolution per axis, 0 if it is not known, and the units beside (ilastik 1.4.1)."""
    table, units = values.get("axistags"), values.get("axis_units")
    tags = table.get("axes") if isinstance(table, Mapping) else None
    units = units if isinstance(units, Mapping) else {}
    sizes: dict[str, float] = {}
    for tag in tags if isinstance(tags, list) else ():
        axis, value = (
            (tag.get("key"), tag.get("resolution")) if isinstance(tag, Mapping) else ("", 0)
        )
        if axis not in ("z", "y", "x") or not isinstance(value, int | float) or not value > 0:
            continue
        unit = units.get(axis)
        factor = nanometres_per(unit)
        if factor is None:
            how = f"in {unit!r}, which is not understood" if unit else "without a unit"
            return None, (f"axistags states a resolution {how}; it is left out.",)
        sizes[axis] = float(f"{value * factor:.6g}")
    if len(sizes) < 3 or not all(map(math.isfinite, sizes.values())):
        return None, ()
    return (sizes["z"], sizes["y"], sizes["x"]), ()
