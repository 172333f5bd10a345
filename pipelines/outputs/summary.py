"""What a run over blocks did, for people, for programs and for the shell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import click

from pipelines.engine import Outcome
from pipelines.progress import clock, error_text, rate
from pipelines.watching import Watch, is_unfinished, write_report
from tilenet.errors import BlocksFailed


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Parameters
    ----------
    command, output : str
        What ran, and path or URL of what it wrote.
    blocks, before : int
        Blocks in all, and those that were stored already.
    outcome : Outcome
        What became of the others.
    watch : Watch or None
        What is reported beside the output; None reports nothing.
    part : str or None
        Which share of the run it was, "17/100".
    """

    command: str
    output: str
    blocks: int
    before: int
    outcome: Outcome
    watch: Watch | None = None
    part: str | None = None

    @property
    def voxels_per_second(self) -> float:
        return self.outcome.voxels / max(1e-9, self.outcome.seconds["wall"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "output": self.output,
            "blocks": self.blocks,
            "done_before": self.before,
            "computed": self.outcome.computed,
            "stored": self.stored,
            "retried": self.outcome.retried,
            "failed": [{"box": str(box), "error": why} for box, why in self.outcome.failed],
            "missing": self.blocks - self.stored,
            "stopped": self.outcome.stopped,
            "stopped_by": self.outcome.stopped_by,
            "ended_by": None
            if self.outcome.ended_by is None
            else error_text(self.outcome.ended_by),
            "seconds": self.outcome.seconds,
            "voxels_per_second": self.voxels_per_second,
        }

    @property
    def stored(self) -> int:
        """Blocks that are stored: as the store said, or else by count."""
        told = self.outcome.stored
        return self.before + self.outcome.computed if told is None else told

    def __str__(self) -> str:
        wall, retried = clock(self.outcome.seconds["wall"]), self.outcome.retried
        return (
            f"{self.output}: {self.stored} of {self.blocks} blocks stored, "
            f"{self.outcome.computed} of them now, in {wall} ({rate(self.voxels_per_second)})"
            + (f", {retried:,} tried again" if retried else "")
        )

    def finish(self, *, as_json: bool = False) -> int:
        """Print the summary, and tell the shell how it went: 0, or 130 or 143 after a signal.

        Failed blocks, and what ended the run, are raised.
        """
        click.echo(json.dumps(self.to_dict(), indent=2) if as_json else str(self))
        self._report()
        failed = [(str(box), error) for box, error in self.outcome.failed]
        if self.outcome.ended_by is not None:
            for box, error in failed:
                click.echo(f"{box}: {error}", err=True)
            raise self.outcome.ended_by
        if failed:
            raise BlocksFailed(self.command, failed, self.blocks)
        if self.outcome.stopped_by is None:
            return 0
        if self.stored < self.blocks:
            click.echo("Stopped. Run the same command again to go on.", err=True)
        else:
            click.echo("Stopped, but every block is stored.", err=True)
        return 128 + self.outcome.stopped_by

    def _report(self) -> None:
        # Not where nothing was to be done: the report of the run that did it stays, unless that was
        # stopped and did not hear of its last blocks.
        if self.watch is None:
            return
        if self.before == self.blocks and not is_unfinished(self.watch.output, self.part):
            return
        try:
            place = write_report(self.watch, self.to_dict(), self.part)
        except OSError as error:  # the output is stored all the same
            click.echo(f"The report could not be written: {error}", err=True)
        else:
            click.echo(f"Report: {place}, and a picture of the blocks beside it (.png)", err=True)
