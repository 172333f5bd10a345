"""A U-Net's layers and its shape law. Pure: standard library only.

The network is that of Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for
Biomedical Image Segmentation" (2015), with unpadded ("valid") convolutions, so each level loses
voxels at its faces and the output is smaller than the input. Along one axis, with ``b`` voxels
after the deepest level, ``A`` the product of the pooling factors (the *alignment*)::

    input  = A * b + gain
    output = A * b - loss

so ``input - output`` is the same for every legal size, and half of it is the *halo*.
Network, shape law, operation count and memory estimate are all made from these fields.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tilenet.errors import ArchitectureError, IllegalSize
from tilenet.geometry import AXES, ZYX, zyx
from tilenet.networks.axis_law import AxisLaw
from tilenet.networks.layers import Evaluation, Layer, evaluate, operations_per_voxel


@dataclass(frozen=True)
class UNetArchitecture:
    """The layers of a U-Net, and with them every size it can take and give.

    Parameters
    ----------
    channels : tuple of int
        Feature channels per level, from full resolution down.
    kernels : tuple of (int, int, int)
        Kernel of the convolutions per level, (z, y, x), odd. 1 along z makes a level planar.
    pools : tuple of (int, int, int)
        Pooling factors from each level to the next, (z, y, x); one fewer than levels.
    in_channels, out_channels : int
        Channels of the input and of the output scores.
    convolutions : int
        Convolutions per level on either path.
    dropout : float
        Probability of dropping a feature while training, at the end of the two deepest contracting
        levels and before the skip is taken, as the authors' released network does.

    Raises
    ------
    ArchitectureError
        When no network can have these layers.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    kernels: tuple[ZYX, ...] = ((1, 3, 3),) * 5
    pools: tuple[ZYX, ...] = ((1, 2, 2),) * 4
    in_channels: int = 1
    out_channels: int = 2
    convolutions: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if levels < 2:
            raise ArchitectureError("channels", self.channels, "at least two levels are needed")
        if len(self.kernels) != levels:
            raise ArchitectureError("kernels", self.kernels, f"one per level, so {levels}, needed")
        if len(self.pools) != levels - 1:
            raise ArchitectureError("pools", self.pools, f"one per step down, so {levels - 1}")
        for name in ("channels", "in_channels", "out_channels", "convolutions"):
            self._check_whole(name, getattr(self, name))
        for name in ("kernels", "pools"):
            for triple in getattr(self, name):
                if len(triple) != 3:
                    raise ArchitectureError(name, triple, "three values (z, y, x) needed")
                self._check_whole(name, triple)
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ArchitectureError("kernels", self.kernels, "kernels must be odd")
        if not 0 <= self.dropout < 1:
            raise ArchitectureError("dropout", self.dropout, "a probability in [0, 1) needed")

    @staticmethod
    def _check_whole(name: str, value: object) -> None:
        values = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values):
            raise ArchitectureError(name, value, "positive whole numbers needed")

    @classmethod
    def planar(cls, base_channels: int = 64, depth: int = 4, **others: Any) -> Self:
        """Describe a 2-D network; the defaults are the paper's.

        Parameters
        ----------
        base_channels, depth : int
            Channels at full resolution, doubled at every level, and number of poolings.
        **others : int or float
            ``in_channels``, ``out_channels``, ``convolutions`` and ``dropout``.

        Returns
        -------
        UNetArchitecture
            Kernels 1x3x3 and pooling 1x2x2 at every level.
        """
        return cls._uniform(base_channels, depth, (1, 3, 3), (1, 2, 2), others)

    @classmethod
    def volumetric(cls, base_channels: int = 16, depth: int = 3, **others: Any) -> Self:
        """Describe a 3-D network for isotropic volumes.

        Parameters
        ----------
        base_channels, depth : int
            Channels at full resolution, doubled at every level, and number of poolings.
        **others : int or float
            ``in_channels``, ``out_channels``, ``convolutions`` and ``dropout``.

        Returns
        -------
        UNetArchitecture
            Kernels 3x3x3 and pooling 2x2x2 at every level.
        """
        return cls._uniform(base_channels, depth, (3, 3, 3), (2, 2, 2), others)

    @classmethod
    def _uniform(
        cls, base: int, depth: int, kernel: ZYX, pool: ZYX, others: Mapping[str, Any]
    ) -> Self:
        channels = tuple(base * 2**level for level in range(depth + 1))
        return cls(channels, (kernel,) * (depth + 1), (pool,) * depth, **others)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values.

        Returns
        -------
        dict
            What :meth:`from_dict` takes.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the fields from JSON values.

        Parameters
        ----------
        values : mapping
            Fields by name; those that have a default may be left out.

        Returns
        -------
        UNetArchitecture
            The same network.

        Raises
        ------
        ArchitectureError
            For an unknown field (the nearest known one is named) or an impossible value.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1) or known
                problem = f"unknown field; did you mean {near[0]}"
                raise ArchitectureError(name, values[name], problem)
        return cls(**{name: _as_tuples(value) for name, value in values.items()})

    @property
    def depth(self) -> int:
        """Number of poolings."""
        return len(self.pools)

    @property
    def is_planar(self) -> bool:
        """True when no layer mixes sections, so that it runs as a 2-D network."""
        return all(k[0] == 1 for k in (*self.kernels, *self.pools))

    def layers(self) -> Iterator[Layer]:
        """List the layers in the order of evaluation.

        Yields
        ------
        Layer
            Each layer of the network once.
        """
        yield from self._layers

    @functools.cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return tuple(self._list_layers())

    def _list_layers(self) -> Iterator[Layer]:
        width = self.in_channels
        for level, features in enumerate(self.channels):
            yield from self._convolutions("down", level, width)
            width = features
            if level < self.depth:
                yield Layer("pool", level, "", self.pools[level], width, width)
        for level in reversed(range(self.depth)):
            features = self.channels[level]
            yield Layer("up", level, f"up.{level}", self.pools[level], width, features)
            yield from self._convolutions("merge", level, 2 * features)
            width = features
        yield Layer("head", 0, "score", (1, 1, 1), width, self.out_channels)

    def _convolutions(self, path: str, level: int, width: int) -> Iterator[Layer]:
        for i in range(self.convolutions):
            ends = path == "down" and level >= self.depth - 1 and i == self.convolutions - 1
            name, features = f"{path}.{level}.{i}", self.channels[level]
            dropout = self.dropout if ends else 0.0
            yield Layer("conv", level, name, self.kernels[level], width, features, dropout)
            width = features

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases; 31,030,658 for the paper's network."""
        return sum(layer.parameters for layer in self.layers())

    @functools.cached_property
    def laws(self) -> tuple[AxisLaw, AxisLaw, AxisLaw]:
        """The shape law of each axis, (z, y, x)."""
        z, y, x = (
            AxisLaw(
                tuple(self.convolutions * (kernel[axis] - 1) for kernel in self.kernels),
                tuple(pool[axis] for pool in self.pools),
            )
            for axis in range(3)
        )
        return z, y, x

    @functools.cached_property
    def alignment(self) -> ZYX:
        """Product of the pooling factors, (z, y, x): every tile starts at a multiple of it."""
        return zyx(law.alignment for law in self.laws)

    @functools.cached_property
    def halo(self) -> ZYX:
        """Context voxels needed beyond each face of the output, (z, y, x)."""
        return zyx(law.halo for law in self.laws)

    @functools.cached_property
    def smallest_output(self) -> ZYX:
        """Smallest legal output shape, (z, y, x)."""
        return zyx(law.smallest_output for law in self.laws)

    @functools.cached_property
    def receptive_field(self) -> ZYX:
        """Largest extent of the input that one output voxel depends on, (z, y, x)."""
        return zyx(law.receptive_field for law in self.laws)

    def output_for(self, kept: ZYX) -> ZYX:
        """Give the smallest legal output that is at least as large.

        Parameters
        ----------
        kept : tuple of int
            Voxels wanted, (z, y, x). The paper's network keeps 256 of an output of 260.

        Returns
        -------
        tuple of int
            A legal output shape, (z, y, x).
        """
        return zyx(law.output_for(size) for law, size in zip(self.laws, kept, strict=True))

    def input_for(self, output: ZYX) -> ZYX:
        """Give the input shape that yields an output shape.

        Parameters
        ----------
        output : tuple of int, legal, (z, y, x)

        Returns
        -------
        tuple of int
            Input shape, (z, y, x).

        Raises
        ------
        IllegalSize
            Naming the first axis whose size the network cannot give, and the nearest it can.
        """
        self._check("An output", output, (0, 0, 0))
        return zyx(n + 2 * h for n, h in zip(output, self.halo, strict=True))

    def output_of(self, input_shape: ZYX) -> ZYX:
        """Give the output shape that an input shape yields.

        Parameters
        ----------
        input_shape : tuple of int, (z, y, x)

        Returns
        -------
        tuple of int
            Output shape, (z, y, x).

        Raises
        ------
        IllegalSize
            Naming the first axis whose size the network cannot take, and the nearest it can.
        """
        self._check("An input", input_shape, zyx(2 * h for h in self.halo))
        return zyx(n - 2 * h for n, h in zip(input_shape, self.halo, strict=True))

    def _check(self, what: str, shape: ZYX, excess: ZYX) -> None:
        for axis, law, size, more in zip(AXES, self.laws, shape, excess, strict=True):
            nearest = law.nearest_outputs(size - more)
            if size - more not in nearest:
                raise IllegalSize(what, axis, size, tuple(n + more for n in nearest))

    def evaluation(self, input_shape: ZYX) -> Evaluation:
        """Count what one evaluation costs.

        Parameters
        ----------
        input_shape : tuple of int, legal, (z, y, x)

        Returns
        -------
        Evaluation
            Output shape and operations.
        """
        self.output_of(input_shape)
        return evaluate(self._layers, input_shape)

    @property
    def operations_per_voxel(self) -> float:
        """Operations per output voxel of one infinite tile: nothing is computed twice."""
        return operations_per_voxel(self.layers())


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list | tuple) else value
