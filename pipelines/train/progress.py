"""What a person sees of a training: a bar or lines, and TensorBoard."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipelines.outputs import check_folder
from pipelines.progress import LINE_SECONDS, clock
from tilenet.errors import InvalidData

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from tilenet.training import Step, ValidationResult

#: Steps over which the loss that is shown is averaged, as a share of the steps so far.
RECENT = 0.1

#: Share of the patches that may teach nothing before it is said.
MANY_EMPTY = 0.1

#: What to do where patches hold no voxel that counts, by the recipe's ``positions``.
CURE = "For patches where labels are, say --positions labelled."
CURE_OF_LABELLED = (
    "Patches lie where labels are already: see where the weight map is 0, or give larger patches "
    "(--patch)."
)


def cure_of(positions: str | None) -> str:
    """Say what to do where patches that lie so hold no voxel that counts."""
    return CURE_OF_LABELLED if positions == "labelled" else CURE


class TrainingReporter:
    """Shows loss, steps per second, share of waiting and time left.

    ``log`` is a folder for TensorBoard; ``silent`` shows nothing, because another process does.
    ``cure`` says what to do where patches hold no voxel that counts.
    """

    def __init__(
        self, steps: int, before: int, *, log: str | None, silent: bool, cure: str = CURE
    ) -> None:
        self.steps, self.before, self.silent, self.cure = steps, before, silent, cure
        self.losses: list[float] = []
        self.empty: list[float] = []  # shares of the patches of which no voxel counted
        self._log: SummaryWriter | None = None if log is None or silent else open_log(log)
        self._start = self._last = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=silent or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("Train", total=steps, completed=before, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._log is not None:
            self._log.close()

    @property
    def recent_loss(self) -> float | None:
        """Mean loss of the last tenth of the steps of this run; None where no voxel counted."""
        last = slice(-max(1, int(RECENT * len(self.losses))), None)
        patches = len(self.empty[last]) - sum(self.empty[last])
        return float(np.sum(self.losses[last])) / patches if patches else None

    @property
    def learnt_nothing(self) -> bool:
        """Whether no voxel counted, in all steps from the first on."""
        return self.before == 0 and min(self.empty, default=0) == 1

    def step(self, step: Step) -> None:
        self.losses.append(step.loss)
        self.empty.append(step.empty)
        if self._log is not None:
            for name in ("loss", "rate", "waiting"):
                self._log.add_scalar(f"training/{name}", getattr(step, name), step.done)
        now = time.monotonic()
        rate = len(self.losses) / max(1e-9, now - self._start)
        loss = "not known" if self.recent_loss is None else f"{self.recent_loss:.3f}"
        facts = f"loss {loss}, {rate:.2f} steps/s, waiting {step.waiting:.0%}"
        self._bar.update(self._task, completed=step.done, facts=facts)
        due = now - self._last >= LINE_SECONDS or step.done == self.steps
        if due and self._bar.disable and not self.silent:
            self._last = now
            left = clock((self.steps - step.done) / rate)
            self.note(f"Train: {step.done}/{self.steps} steps, {facts}, {left} left")

    def finish(self) -> None:
        """Say so where many patches taught nothing."""
        share = float(np.mean(self.empty)) if self.empty else 0.0
        if share > MANY_EMPTY:
            self.note(
                f"Warning: {share:.0%} of the patches held no voxel that counts, labelled and of a "
                f"weight above 0, and taught nothing. {self.cure}"
            )

    def validation(self, done: int, result: ValidationResult, *, best: bool) -> None:
        self.note(f"Validation after {done} steps: {result}{' (best so far)' if best else ''}")
        if self._log is not None:
            for name in ("loss", "pixel_error", "rand_error"):
                value = getattr(result, name)
                if value is not None:
                    self._log.add_scalar(f"validation/{name}", value, done)

    def note(self, text: str) -> None:
        if not self._bar.disable:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self.silent:
            click.echo(text, err=True)


def check_log(folder: str) -> None:
    check_folder("--log", folder)
    if importlib.util.find_spec("tensorboard") is None:
        cure = "Install it: pip install 'tilenet[tensorboard]'."
        raise InvalidData(f"--log {folder}", "needs the package tensorboard", cure)


def open_log(folder: str) -> SummaryWriter:
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(folder)
