"""Random deformations and grey-value curves for training patches, on any device.

All geometry is one mapping, applied by one resampling: a smooth elastic displacement, then mirror
and rotation about the patch's centre. Grey values are interpolated linearly, labels are taken from
the nearest voxel, and weights are interpolated linearly.

Shapes: C channels, Z sections, Y rows, X columns; coordinates come first, as (z, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import BSpline
from torch import Tensor
from torch.nn import functional

from tilenet.geometry import ZYX, zyx

#: Control points move by at most so many standard deviations, so that it is known beforehand what
#: a patch needs to have read.
LARGEST_DEVIATION = 3.0

#: Grey values between minus and plus so many standard deviations run through the curve; beyond,
#: it goes on straight.
GREY_RANGE = 3.0

#: Slopes that a grey-value curve is drawn from, equally spaced over its range.
GREY_KNOTS = 5

#: Degree of the B-splines that carry the displacement.
_CUBIC = 3


@dataclass(frozen=True, kw_only=True)
class Deformation:
    control: npt.NDArray[np.float64]  # displacements of the control points, voxels
    # Their distance, voxels, (z, y, x); 0 where all voxels along an axis move alike.
    spacing: tuple[float, float, float]
    signs: ZYX = (1, 1, 1)  # -1 along mirrored axes, else 1, (z, y, x)
    angle: float = 0.0  # rotation in the section, radians

    def field(self, shape: ZYX, device: torch.device | str = "cpu") -> Tensor:
        """Give the displacement of every voxel, by cubic B-splines over the control points.

        The splines approximate their control points, as those of the authors' later code do, so
        that the displacement varies less than they.
        """
        z, y, x = (spline_basis(n, s).to(device) for n, s in zip(shape, self.spacing, strict=True))
        control = torch.from_numpy(self.control).to(device)
        return torch.einsum("dabc,za,yb,xc->dzyx", control, z, y, x).float()

    def coordinates(self, shape: ZYX, device: torch.device | str = "cpu") -> Tensor:
        """Give where every voxel of a patch comes from, relative to the patch's centre, voxels."""
        axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in shape]
        z, y, x = torch.stack(torch.meshgrid(*axes, indexing="ij")) + self.field(shape, device)
        z, y, x = (sign * along for sign, along in zip(self.signs, (z, y, x), strict=True))
        cosine, sine = _exact(math.cos(self.angle)), _exact(math.sin(self.angle))
        return torch.stack([z, cosine * y - sine * x, sine * y + cosine * x])


def _exact(value: float) -> float:
    # cos(pi / 2) is 6e-17: a quarter turn is to hit voxels, not their neighbourhood.
    return float(round(value)) if abs(value - round(value)) < 1e-12 else value


def spline_basis(size: int, spacing: float) -> Tensor:
    """Give the weights of uniform cubic B-splines along an axis, (voxel, control point)."""
    if spacing == 0:
        return torch.ones(size, 1, dtype=torch.float64)
    knots = spacing * np.arange(-_CUBIC, control_points(size, spacing) + 1)
    matrix = BSpline.design_matrix(np.arange(size, dtype=float), knots, _CUBIC)
    return torch.from_numpy(matrix.toarray())


def control_points(size: int, spacing: float) -> int:
    return 1 if spacing == 0 else math.floor((size - 1) / spacing) + _CUBIC + 1


def draw_deformation(
    rng: np.random.Generator,
    shape: ZYX,
    *,
    std: Sequence[float],
    spacing: tuple[float, float, float],
    rotation: str,
    flips: bool,
) -> Deformation:
    """Draw how a patch is deformed.

    ``std`` is the standard deviation of the control points' displacement, ``spacing`` their
    distance, each in voxels, (z, y, x).
    """
    counts = zyx(control_points(n, s) for n, s in zip(shape, spacing, strict=True))
    normal = rng.standard_normal((3, *counts)).clip(-LARGEST_DEVIATION, LARGEST_DEVIATION)
    turn = {"any": rng.uniform(0, 4), "quarter": float(rng.integers(4)), "none": 0.0}[rotation]
    signs = zyx(1 - 2 * int(n) for n in rng.integers(0, 2, 3)) if flips else (1, 1, 1)
    return Deformation(
        control=normal * np.reshape(std, (3, 1, 1, 1)),
        spacing=spacing,
        signs=signs,
        angle=turn * math.pi / 2,
    )


def reach(shape: ZYX, *, std: Sequence[float], rotation: str) -> tuple[float, float, float]:
    """Give how far from a patch's centre its deformed voxels can come from, voxels, (z, y, x)."""
    z, y, x = ((n - 1) / 2 + LARGEST_DEVIATION * s for n, s in zip(shape, std, strict=True))
    if rotation == "any":
        return z, math.hypot(y, x), math.hypot(y, x)
    return (z, max(y, x), max(y, x)) if rotation == "quarter" else (z, y, x)


def resample(values: Tensor, positions: Tensor, *, nearest: bool = False) -> Tensor:
    """Look up values at positions between voxels: indices into the box, and inside of it."""
    last = torch.tensor([max(1, n - 1) for n in values.shape[1:]], device=values.device)
    unit = 2 * positions / last.view(3, 1, 1, 1) - 1
    # grid_sample wants x first, and positions last.
    grid = unit.flip(0).permute(1, 2, 3, 0)[None]
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(
        values[None], grid, mode=mode, padding_mode="border", align_corners=True
    )[0]


@dataclass(frozen=True)
class GreyCurve:
    """A smooth monotone curve of normalised grey values."""

    # Positive, equally spaced over the range, linearly interpolated between.
    slopes: tuple[float, ...] = (1.0,) * GREY_KNOTS
    shift: float = 0.0  # added to all values

    def apply(self, values: Tensor) -> Tensor:
        steps = 256
        grid = np.linspace(-GREY_RANGE, GREY_RANGE, steps + 1)
        knots = np.linspace(-GREY_RANGE, GREY_RANGE, len(self.slopes))
        slopes = np.interp((grid[1:] + grid[:-1]) / 2, knots, self.slopes)
        rise = np.concatenate([[0.0], np.cumsum(slopes * np.diff(grid))])
        table = torch.tensor(rise - rise[steps // 2] + self.shift, dtype=torch.float32)
        table = table.to(values.device)
        inside = values.clamp(-GREY_RANGE, GREY_RANGE)
        place = (inside + GREY_RANGE) * (steps / (2 * GREY_RANGE))
        below = place.floor().clamp(max=steps - 1).long()
        mapped = torch.lerp(table[below], table[below + 1], place - below)
        slope = torch.where(values < 0, self.slopes[0], self.slopes[-1])
        return mapped + (values - inside) * slope


def draw_grey_curve(rng: np.random.Generator, slope: float, shift: float) -> GreyCurve:
    slopes = rng.uniform(1 - slope, 1 + slope, GREY_KNOTS)
    return GreyCurve(tuple(slopes.tolist()), float(rng.uniform(-shift, shift)))
