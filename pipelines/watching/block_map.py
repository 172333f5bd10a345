"""The state of every block of a pass, one byte each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, BlockGrid, Box, zyx

States = npt.NDArray[np.uint8]

#: What may be said of a block. "Absent" is a place of the lattice whose block is not of this pass.
ABSENT, MISSING, RUNNING, FAILED, DONE, DONE_BEFORE, SKIPPED = range(7)

#: The states that blocks are counted in, and the words for them.
NAMES = {
    MISSING: "missing",
    RUNNING: "running",
    FAILED: "failed",
    DONE: "done",
    DONE_BEFORE: "done_before",
    SKIPPED: "skipped",
}


@dataclass(frozen=True)
class Lattice:
    """Where blocks begin and end, axis by axis."""

    # starts, stops: first voxels and ends of the blocks along z, y and x, ascending.
    starts: tuple[list[int], ...]
    stops: tuple[list[int], ...]

    @classmethod
    def of(cls, grid: Sequence[Box]) -> Lattice:
        """Find the lattice that blocks lie on."""
        if isinstance(grid, BlockGrid):  # a million blocks are not looked at one by one
            place = grid.lattice
            shape, ends = grid.block_shape, grid.covered.stop
            cells = [range(a, b) for a, b in zip(place.start, place.stop, strict=True)]
            starts = tuple([n * size for n in c] for c, size in zip(cells, shape, strict=True))
            pairs = zip(starts, shape, ends, strict=True)
            return cls(starts, tuple([min(a + n, end) for a in axis] for axis, n, end in pairs))
        found: list[dict[int, int]] = [{}, {}, {}]
        for box in grid:
            for axis in range(3):
                found[axis][box.start[axis]] = box.stop[axis]
        ordered = [sorted(axis.items()) for axis in found]
        return cls(*(tuple([pair[n] for pair in axis] for axis in ordered) for n in (0, 1)))

    @property
    def shape(self) -> ZYX:
        """Blocks along z, y and x."""
        return zyx(len(axis) for axis in self.starts)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Voxels of every block, shape (z, y, x)."""
        z, y, x = (
            np.array(stops, np.int64) - np.array(starts, np.int64)
            for starts, stops in zip(self.starts, self.stops, strict=True)
        )
        voxels: npt.NDArray[np.int64] = z[:, None, None] * y[:, None] * x
        return voxels


class BlockMap:
    """The blocks of a pass and their states; ``missing``: positions of those not stored yet."""

    def __init__(self, grid: Sequence[Box], missing: Sequence[int]) -> None:
        self.lattice = Lattice.of(grid)
        self._index = [{a: n for n, a in enumerate(axis)} for axis in self.lattice.starts]
        whole = isinstance(grid, BlockGrid)
        self.states: States = np.full(self.lattice.shape, DONE_BEFORE if whole else ABSENT, "u1")
        if whole:
            self.states.flat[np.asarray(missing, dtype=np.int64)] = MISSING
        else:
            self._set_all(grid, DONE_BEFORE)
            self._set_all((grid[n] for n in missing), MISSING)

    def _set_all(self, boxes: Iterable[Box], state: int) -> None:
        for box in boxes:
            self.states[self.place(box.start)] = state

    def place(self, start: Sequence[int]) -> tuple[int, ...]:
        """Give the place on the map of the block that begins there; KeyError where none does."""
        return tuple(index[a] for index, a in zip(self._index, start, strict=True))

    def set(self, box: Box, state: int) -> None:
        """Say what became of a block."""
        self.states[self.place(box.start)] = state

    def now(self, running: Iterable[Sequence[int]]) -> States:
        """Copy the states, and mark the blocks that are being computed, as workers last said."""
        states = self.states.copy()
        for start in running:
            # A worker may still speak of the pass before, whose blocks begin elsewhere.
            if all(a in index for index, a in zip(self._index, start, strict=True)):
                place = self.place(start)
                states[place] = RUNNING if states[place] == MISSING else states[place]
        return states

    def voxels(self, state: int) -> int:
        """Count the voxels of blocks in a state."""
        return int(self.lattice.sizes[self.states == state].sum())


def count(states: States) -> dict[str, int]:
    counts = np.bincount(states.ravel(), minlength=len(NAMES) + 1)
    return {name: int(counts[state]) for state, name in NAMES.items()}
