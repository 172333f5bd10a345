"""What ``tilenet verify`` found, for people, for programs and for the shell."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

import click

from pipelines.engine import Outcome
from pipelines.stopping import Stopped
from tilenet.errors import OutputDamaged, StoreFailed
from tilenet.volumes import Flaw, delete_objects

#: Flaws that a message lists; --json lists all.
LISTED = 50

#: Flaws that are gone when their objects are deleted and computed again.
DELETABLE = ("damaged", "impossible")

AGAIN = "run the command that made the output again: it computes only what is missing."

#: What to do about each kind of flaw.
CURES = {
    ("missing", "unfinished"): (
        "What is missing is computed by running the command that made it again (where only a "
        "--region was predicted, verify with the same --region)."
    ),
    DELETABLE: f"Delete those objects (rm, or --delete-bad), then {AGAIN}",
    ("different",): (
        "What is different is whole, and which of the two is right is not known: recompute it on "
        "another machine. --delete-bad keeps it; --delete-different deletes what differs by more "
        f"than numeric plans do. Then {AGAIN}"
    ),
    ("unreachable", "unchecked"): "What could not be looked at is not known to be bad: try again.",
    ("stray",): "Remove what does not belong to the output, after a look at it.",
    ("provenance",): (
        "Provenance cannot be made up from data: restore zarr.json, give what the output was made "
        "of, or make it anew with --overwrite."
    ),
}


@dataclass
class Report:
    # output, kind: path or URL, and what it is.
    output: str
    kind: str
    objects: int = 0  # stored objects that were looked at
    flaws: list[Flaw] = field(default_factory=list)  # what is wrong
    notes: list[str] = field(default_factory=list)  # what should be known, and is not wrong
    seed: int | None = None  # decides which blocks were recomputed
    # recomputed, blocks: blocks that were recomputed, of so many.
    recomputed: int = 0
    blocks: int = 0
    deleted: list[str] = field(default_factory=list)  # objects that were deleted

    def add(self, outcome: Outcome) -> int:
        """Take up what tasks found, also before a stop, and count the objects looked at."""
        found = sorted(outcome.reports, key=lambda report: report.box.start)
        self.flaws += [flaw for report in found for flaw in report.value.flaws]
        self.flaws += [Flaw("unchecked", "", str(box), why) for box, why in outcome.failed]
        if outcome.stopped_by is not None:
            raise Stopped(outcome.stopped_by)
        near = sum(report.value.near for report in found)
        if near:
            farthest = max(report.value.farthest for report in found)
            self.notes.append(f"{near} objects differ within it, by up to {farthest:g} as stored")
        return sum(report.value.objects for report in found)

    def delete(self, *, bad: bool, different: bool) -> None:
        """Delete objects, and note it where that fails.

        ``bad``: those that are damaged, or hold what cannot be; ``different``: those that differ
        from what is computed anew by more than numeric plans do.
        """
        chosen = [flaw for flaw in self.flaws if bad and flaw.kind in DELETABLE]
        others = [flaw for flaw in self.flaws if flaw.kind == "different"]
        chosen += [flaw for flaw in others if different and not flaw.tolerable]
        paths = list(dict.fromkeys(flaw.path for flaw in chosen))
        kept = {flaw.path for flaw in others} - set(paths)
        if kept:
            self.notes.append(f"{len(kept)} objects that are different were kept")
        try:
            delete_objects(self.output, paths)
        except (OSError, StoreFailed) as error:
            self.notes.append(f"not all bad objects could be deleted: {error}")
            return
        self.deleted = paths

    def finish(self, *, as_json: bool) -> int:
        """Print what was found, and tell the shell."""
        for note in self.notes:
            click.echo(f"Note: {note}", err=True)
        values = {"ok": not self.flaws, **dataclasses.asdict(self)}
        click.echo(json.dumps(values, indent=2) if as_json else str(self))
        if not self.flaws:
            return 0
        cures = self._cures()
        listed = [str(flaw) for flaw in self.flaws[:LISTED]]
        raise OutputDamaged(self.output, len(self.flaws), listed, "\n".join(cures))

    def _cures(self) -> list[str]:
        deleted = set(self.deleted)
        kinds = {flaw.kind for flaw in self.flaws if flaw.path not in deleted}
        cures = [cure for about, cure in CURES.items() if not kinds.isdisjoint(about)]
        if deleted:
            cures.append(f"{len(deleted)} objects were deleted: {AGAIN}")
        return cures

    def __str__(self) -> str:
        text = f"{self.output}: {self.kind}, {self.objects:,} stored objects looked at"
        if self.seed is not None:
            text += f", {self.recomputed} of {self.blocks} blocks recomputed (seed {self.seed})"
        return f"{text}: {'all is well' if not self.flaws else f'{len(self.flaws)} flaws'}"
