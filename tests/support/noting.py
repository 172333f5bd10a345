"""Notes of a prediction: which blocks are begun, and counted; in a module that workers import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilenet.geometry import Box
from tilenet.worker import BlockReport

if TYPE_CHECKING:
    from pipelines.engine import Task

BEGUN, COUNTED = "begun", "counted"


@dataclass(frozen=True)
class Noting:
    """A task, and a line in a file every time that a worker begins it on a block."""

    task: Task
    notes: str

    def __call__(self, box: Box) -> BlockReport:
        _note(self.notes, BEGUN, box)
        return self.task(box)


def note_in(notes: str) -> None:
    """Have this process's prediction noted, also where the command hears of finished blocks."""
    from pipelines.engine import Outcome
    from pipelines.predict import command as predict  # here, for workers need no command
    from pipelines.predict import job as prediction

    make, add = prediction.predict_task, Outcome.add

    def noted_task(*arguments: Any, **named: Any) -> Noting:
        return Noting(make(*arguments, **named), notes)

    def noted_add(outcome: Outcome, report: BlockReport, keep: bool) -> None:
        add(outcome, report, keep)
        _note(notes, COUNTED, report.box)

    predict.predict_task = noted_task  # type: ignore[attr-defined, assignment]
    Outcome.add = noted_add  # type: ignore[method-assign, assignment]


def _note(notes: str, what: str, box: Box) -> None:
    with Path(notes).open("a") as file:
        file.write(f"{what} {box}\n")
