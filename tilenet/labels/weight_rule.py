"""What the weights of voxels are: the parameters of the border term, and the classes' frequencies.

Distances are exact: the finest axis has steps of 1, the square of every other axis' step is
rounded to a multiple of 1/256, and so squared distances are sums of whole numbers.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, zyx
from tilenet.labels.separation import gap_margins, separate

#: Squared steps are multiples of 1 / this.
STEP_FRACTION = 256

#: Two instances lie 1 voxel away at least, and the term is below exp(-200) of its height there.
MIN_SIGMA = 0.1

#: Every block reads as many voxels more on every side, and the work grows with it.
MAX_RADIUS = 500


@dataclass(frozen=True, kw_only=True)
class WeightRule:
    """What determines a weight map, the labels and the class frequencies apart.

    Parameters
    ----------
    w0, sigma, radius : float
        Height of the border term, and its width; it is 0 where the second nearest instance is
        farther away than the radius; both in voxels of the finest axis.
    gap : int
        Width of the background made between touching instances, voxels.
    per_section : bool
        Sections are images of their own.
    ignore : int or None
        Label of voxels of weight 0, neither background nor an instance.
    voxel_size : tuple of float
        Of which only the proportions matter, (z, y, x); z does not per section.
    """

    w0: float = 10.0
    sigma: float = 5.0
    radius: float = 32.0
    gap: int = 0
    per_section: bool = False
    ignore: int | None = None
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("w0", "sigma", "radius"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                cure = "Give a positive number; the paper has w0 = 10 and sigma = 5 pixels."
                raise InvalidData(f"Weight rule: {name}", f"is {value:g}", cure)
        if not MIN_SIGMA <= self.sigma <= MAX_RADIUS:
            problem = f"is {self.sigma:g}, and can be {MIN_SIGMA:g} to {MAX_RADIUS} voxels"
            raise InvalidData("Weight rule: sigma", problem, "The paper has sigma = 5 pixels.")
        if self.radius > MAX_RADIUS:
            problem = f"is {self.radius:g}, and at most {MAX_RADIUS} voxels are read around a block"
            raise InvalidData("Weight rule: radius", problem, "6.5 sigma are enough.")
        if self.ignore == 0:
            cure = "Choose another label; 0 is background."
            raise InvalidData("Weight rule: ignore label", "is 0", cure)
        _ = self.gap_margins  # refuses a negative gap

    @functools.cached_property
    def squared_steps(self) -> tuple[float, float, float]:
        """Squared distance of neighbours, (z, y, x), in voxels of the finest axis; exact."""
        used = self.voxel_size[1:] if self.per_section else self.voxel_size
        z, y, x = (
            max(1.0, round((size / min(used)) ** 2 * STEP_FRACTION) / STEP_FRACTION)
            for size in self.voxel_size
        )
        return z, y, x

    @functools.cached_property
    def scale(self) -> int:
        """Units of a squared distance of 1 in which all squared steps are whole numbers."""
        used = self.squared_steps[1:] if self.per_section else self.squared_steps
        return max(step.as_integer_ratio()[1] for step in used)

    @functools.cached_property
    def step_units(self) -> ZYX:
        """Squared steps in units of 1 / :attr:`scale`, (z, y, x)."""
        return zyx(int(step * self.scale) for step in self.squared_steps)

    @functools.cached_property
    def far(self) -> int:
        """Smallest squared distance beyond the radius, in units of 1 / :attr:`scale`."""
        return math.floor(self.radius**2 * self.scale) + 1

    @functools.cached_property
    def reach(self) -> ZYX:
        """Voxels around a voxel whose labels its border term depends on, (z, y, x)."""
        reach = [math.isqrt(math.floor(self.radius**2 / step)) for step in self.squared_steps]
        return zyx([0, *reach[1:]] if self.per_section else reach)

    @property
    def gap_margins(self) -> tuple[ZYX, ZYX]:
        """Voxels below and above a voxel that decide whether it becomes gap, each (z, y, x)."""
        return gap_margins(self.gap, per_section=self.per_section)

    @property
    def margins(self) -> tuple[ZYX, ZYX]:
        """Voxels to read below and above a block, each (z, y, x)."""
        below, above = (
            zyx(a + b for a, b in zip(self.reach, gap, strict=True)) for gap in self.gap_margins
        )
        return below, above

    @property
    def cut_off(self) -> float:
        """Bound of the border term that the radius leaves out: d1 >= 0 and d2 > radius."""
        return self.w0 * math.exp(-(self.radius**2) / (2 * self.sigma**2))

    def separate(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Make the gap between touching instances."""
        return separate(labels, self.gap, per_section=self.per_section, ignore=self.ignore)


@dataclass(frozen=True)
class ClassCounts:
    """Voxels per class, and the range of the instances' labels.

    Parameters
    ----------
    background, foreground : int
        Voxels, those with the ignore label not counted.
    lowest, highest : int or None
        Label values of instances; None where there is none.
    """

    background: int = 0
    foreground: int = 0
    lowest: int | None = None
    highest: int | None = None

    @classmethod
    def of(cls, labels: npt.NDArray[Any], ignore: int | None = None) -> ClassCounts:
        """Count the classes of labels in which the gap was made."""
        instances = labels[labels != 0]
        if ignore is not None:
            instances = instances[instances != ignore]
        background = labels.size - int(np.count_nonzero(labels))
        if not instances.size:
            return cls(background)
        return cls(background, instances.size, int(instances.min()), int(instances.max()))

    def __add__(self, other: ClassCounts) -> ClassCounts:
        lowest = [n for n in (self.lowest, other.lowest) if n is not None]
        highest = [n for n in (self.highest, other.highest) if n is not None]
        return ClassCounts(
            self.background + other.background,
            self.foreground + other.foreground,
            min(lowest, default=None),
            max(highest, default=None),
        )

    @property
    def weights(self) -> tuple[float, float]:
        """Weight of background and foreground: voxels / (2 x voxels of the class); 0 if none."""
        total = self.background + self.foreground
        background, foreground = (
            total / (2 * voxels) if voxels else 0.0 for voxels in (self.background, self.foreground)
        )
        return background, foreground
