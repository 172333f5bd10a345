"""One case, raced: all contestants take turns, each in processes of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import methods
from benchmarks.cases import Case, Inputs, prepare
from benchmarks.memory import tree_peak_bytes
from benchmarks.methods import Exact, Floats
from benchmarks.peers.cluster import planned
from benchmarks.peers.contestant import Contestant, Run, Setting, middle
from benchmarks.processes import Pool
from tilenet.geometry import Box, zyx
from tilenet.planning import Plan
from tilenet.volumes import open_volume

#: Seconds from which on a contestant runs once only, lest one of them takes the time of all.
SLOW = 25.0

#: What every contestant predicts first, so that no figure holds imports and first calls: a volume,
#: by tiles of at most this, of planar networks and of others. (Dask cuts otherwise than it is told
#: where a chunk is smaller than the halo, so none may be.)
WARM_UP = {True: ((1, 240, 240), (1, 128, 128)), False: ((72, 72, 72), (72, 72, 72))}


#: Contestants, each with the process that it runs in.
Pools = Sequence[tuple[Contestant, Pool]]


@contextlib.contextmanager
def opened(contestants: Sequence[Contestant], cores: int) -> Iterator[Pools]:
    """Start a process for each contestant, and end all that they have started."""
    with contextlib.ExitStack() as stack:
        pools = []
        for contestant in contestants:
            pool = stack.enter_context(Pool(1, threads=cores))
            pools.append((contestant, pool))
            if contestant.finish is not None:
                stack.callback(pool.alone, contestant.finish)
        yield pools


@dataclass
class Entry:
    """A contestant in a case."""

    contestant: Contestant
    setting: Setting  # how it cuts the volume
    pool: Pool
    runs: list[Run] = field(default_factory=list)
    part: float = 1.0  # share of the volume that a run predicts
    difference: float = 0.0  # largest absolute difference from the one pass
    # Largest absolute difference from the part that was computed in float64; 0 without one.
    error: float = 0.0
    peak: int = 0  # bytes that its processes have had resident

    @property
    def is_due(self) -> bool:
        """Whether it runs in the next repeat."""
        quick = not self.runs or self.runs[0].seconds < SLOW
        return quick or self.contestant.name == "tilenet"  # which all are compared with

    def compete(self, inputs: Inputs, output: str, cores: int, setting: Setting) -> None:
        shutil.rmtree(output, ignore_errors=True)
        self.runs.append(self.pool.alone(self.contestant.run, inputs, output, setting, cores))
        # Processes that wait hold little, so that all of them fit beside the one that runs.
        self.pool.alone(self.contestant.rest)

    def compare(self, output: str, expected: Floats, exact: Exact | None) -> None:
        """Note how far the output is from the one pass, and from the pass in float64."""
        stored = open_volume(output, axes="zyx")
        values = stored.read(Box.of_shape(stored.shape))
        where = middle(zyx(expected.shape), stored.shape)
        self.part = values.size / expected.size
        self.difference = max(self.difference, float(np.abs(values - expected[where.slices]).max()))
        if exact is not None and where.contains(exact.box):
            whole = exact.box.relative_to(where.start)
            self.error = max(self.error, Exact(whole, exact.values).error(values))


@dataclass(frozen=True)
class Result:
    """How a race went."""

    plan: Plan  # tilenet's
    rounding: float  # error of the one pass itself, where a part was computed in float64; else 0
    entries: list[Entry]  # how everyone did


@dataclass(frozen=True)
class Race:
    """Where contestants meet."""

    folder: Path  # for volumes; local disk
    cores: int  # cores that every contestant may use
    note: Callable[[str], None]  # told what is being done

    def run(self, case: Case, pools: Pools, repeats: int) -> Result:
        """Let contestants take turns."""
        inputs, output = prepare(case, self.folder), str(self.folder / "output.zarr")
        self.note(f"{case.name}: one pass over the whole")
        with Pool(1, threads=self.cores) as solo:
            expected = solo.alone(methods.whole_pass, inputs, self.cores)
            exact = solo.alone(methods.exact_part, inputs, self.cores)
        entries = self._enter(inputs, pools)
        self._warm_up(inputs, output, entries)
        for repeat in range(repeats):
            for entry in (entry for entry in entries if entry.is_due):
                self.note(f"{case.name}: {repeat + 1} of {repeats}: {entry.contestant.title}")
                entry.compete(inputs, output, self.cores, entry.setting)
                entry.compare(output, expected, exact)
        for entry in entries:
            entry.peak = entry.pool.alone(tree_peak_bytes)
        rounding = 0.0 if exact is None else exact.error(expected)
        return Result(planned(inputs, self.cores), rounding, entries)

    def _enter(self, inputs: Inputs, pools: Pools) -> list[Entry]:
        settings = [(c, c.choose(inputs, self.cores), pool) for c, pool in pools]
        return [Entry(c, setting, pool) for c, setting, pool in settings if setting is not None]

    def _warm_up(self, inputs: Inputs, output: str, entries: Sequence[Entry]) -> None:
        shape, most = WARM_UP[inputs.case.architecture.is_planar]
        case = dataclasses.replace(inputs.case, name=f"{inputs.case.name}-warm-up", shape=shape)
        small = dataclasses.replace(prepare(case, self.folder), model=inputs.model)
        for entry in entries:
            self.note(f"{case.name}: {entry.contestant.title}")
            kept = zyx(min(pair) for pair in zip(entry.setting.kept, most, strict=True))
            setting = dataclasses.replace(entry.setting, kept=kept)
            entry.compete(small, output, self.cores, setting)
            entry.runs.clear()
