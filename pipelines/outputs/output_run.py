"""Storing an output block by block: what is to be done, doing it, and asking the store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.cluster import ClusterOptions
from pipelines.engine import Limits, Outcome, Runner, Task, ending, open_runner
from pipelines.outputs.parts import Part, check_part, share_of
from pipelines.outputs.summary import Summary
from tilenet.errors import UnreadableVolume
from tilenet.geometry import Box
from tilenet.volumes import (
    MAKE_WRITABLE,
    NewVolume,
    OutputReference,
    Volume,
    create_volume,
    open_volume,
    remove_partial_files,
    write_problem,
)
from tilenet.volumes.stores import is_remote, local_path

#: What a command does when workers are there and nothing is written yet, its first pass for
#: example. It gives the output to be created (None where one is continued), and what makes the task
#: that stores blocks once there is an output.
Prepare = Callable[[Runner], tuple[NewVolume | None, Callable[[OutputReference], Task]]]


@dataclass(frozen=True, kw_only=True)
class OutputRun:
    """An output, and the blocks of it that a command has to store.

    Parameters
    ----------
    command, output : str
        What runs, and path or URL of what it writes.
    begun : Volume or None
        The output that is continued; None when one is to be created.
    grid : sequence of Box
        All blocks of the output.
    part : Part or None
        The share of them that this call has; None: all.
    overwrite : bool
        Replace a Zarr that is there.
    """

    command: str
    output: str
    begun: Volume | None
    grid: Sequence[Box]
    part: Part | None = None
    overwrite: bool = False

    @functools.cached_property
    def blocks(self) -> Sequence[Box]:
        return share_of(self.grid, self.part)

    @functools.cached_property
    def missing(self) -> Sequence[int]:
        """Positions of the blocks that are not stored yet, as the store said once."""
        return range(len(self.blocks)) if self.begun is None else self.begun.missing(self.blocks)

    def check(self, *, first_pass: bool = False, ready: bool | None = None) -> None:
        """Refuse what this call must not begin, and an output that cannot be written to.

        ``first_pass``: a pass over the whole volume comes before blocks are stored. ``ready``: it
        is done; None means that it is where the output is begun.
        """
        begun = self.begun is not None if ready is None else ready
        check_part(
            self.part, self.output, begun=begun, first_pass=first_pass, overwrite=self.overwrite
        )
        if self.begun is None or is_remote(self.output):
            return  # tried by check_writable already
        problem = write_problem(local_path(self.output))
        if problem and self.missing:  # one that lacks nothing may be read only
            raise UnreadableVolume(self.output, problem, MAKE_WRITABLE)

    def store(
        self, cluster: ClusterOptions, prepare: Prepare, *, small: bool = False,
        limits: Limits | None = None, one_by_one: bool = False,
    ) -> Summary:  # fmt: skip
        """Create the output where there is none, store what is missing, and ask the store.

        ``small``: so little is to be done that no cluster of this machine's own is worth its start.
        ``limits`` are what the workers may take, by default what the options say; ``one_by_one``: a
        worker computes one block at a time. Blocks may have failed.
        """
        opened = open_runner(
            cluster, command=self.command, output=self.output, small=small, limits=limits
        )
        with opened as runner:
            new, make_task = prepare(runner)
            written = OutputReference(self.output, self._create(runner, new))
            if self.begun is not None and self.part is None:  # nobody else writes
                remove_partial_files(self.output)
            title = self.command.capitalize()
            task = make_task(written)
            runner.store(title, task, self.blocks, self.missing, one_by_one=one_by_one)
        shared, before = self.part is not None, len(self.blocks) - len(self.missing)
        check_stored(self.output, self.blocks, self.missing, runner.outcome, shared=shared)
        return Summary(
            self.command, self.output, len(self.blocks), before, runner.outcome, runner.watch,
            str(self.part) if shared else None,
        )  # fmt: skip

    def _create(self, runner: Runner, new: NewVolume | None) -> str | None:
        if self.begun is not None:
            return self.begun.creation
        assert new is not None
        # Only now: whatever was wrong has been said. A stop meanwhile must cost no old output.
        runner.stop.check()
        return create_volume(self.output, new, overwrite=self.overwrite)


def check_stored(
    output: str, grid: Sequence[Box], todo: Sequence[int], outcome: Outcome, *, shared: bool = False
) -> None:
    """Ask the store before success is said: a block that is not there has failed.

    ``todo`` are positions in ``grid``. Where other calls write too (``shared``), what killed
    workers left half written is not removed.
    """
    if outcome.ended_by is not None:
        return
    failed, done, missing = {box for box, _ in outcome.failed}, set(todo), list[int]()
    with ending(outcome):  # a store that does not answer: what was done is told all the same
        missing = open_volume(output).missing(grid)
        outcome.stored = len(grid) - len(missing)
    if outcome.ended_by is not None or outcome.stopped_by is not None:
        return
    for i in missing:
        if grid[i] in failed:
            continue
        outcome.failed.append((grid[i], "was written, but is now missing from the store"))
        if i in done:
            outcome.computed -= 1
            outcome.voxels -= grid[i].size
    if todo and outcome.complete and not shared:
        with ending(outcome):
            remove_partial_files(output)
