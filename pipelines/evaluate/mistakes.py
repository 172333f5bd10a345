"""A picture of the largest splits and mergers: truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.engine import Runner
from pipelines.evaluate.comparison import Comparison
from tilenet.geometry import Box, zyx
from tilenet.metrics import Mistake, PairTable, Sight, SightTask, best_sights, largest_mistakes

#: Pixels of a panel, of its caption, and between panels.
PANEL, CAPTION, GAP = 256, 14, 6

#: Pixels of the volume beside a mistake, and that a panel shows at most along y and x.
MARGIN, WIDEST = 16, 1024

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Seen:
    """A mistake, and the section in which it shows best."""

    mistake: Mistake
    z: int
    sight: Sight

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self.mistake), "box": str(self.box)}

    @property
    def box(self) -> Box:
        """Where both of its parts lie in that section."""
        (y, x), (last_y, last_x) = self.sight.low, self.sight.high
        return Box((self.z, y, x), (self.z + 1, last_y + 1, last_x + 1))


def locate(
    comparison: Comparison, runner: Runner, boxes: list[Box], table: PairTable
) -> tuple[Seen, ...]:
    """Find the largest mistakes, and the section in which each shows best."""
    mistakes = largest_mistakes(table)
    task = SightTask(
        prediction=comparison.prediction,
        truth=comparison.truth,
        run=runner.name,
        mistakes=mistakes,
        offset=comparison.true.offset,
    )
    if not mistakes:
        return ()
    best = runner.fold("Locate", task, boxes, lambda _, sights: best_sights(sights))
    return tuple(Seen(mistakes[n], *where) for n, where in sorted(best.items()))


def draw_mistakes(comparison: Comparison, found: Sequence[Seen], path: str) -> None:
    """Draw a row per mistake: the truth, and the prediction."""
    height = max(1, len(found)) * (PANEL + CAPTION + GAP)
    sheet = Image.new("RGB", (2 * PANEL + GAP, height), WHITE)
    pen = ImageDraw.Draw(sheet)
    if not found:
        pen.text((2, 1), "There is no split and no merger.", fill=(0, 0, 0))
    for row, seen in enumerate(found):
        top, mistake = row * (PANEL + CAPTION + GAP), seen.mistake
        box = _window(seen.box, comparison.region)
        others = " + ".join(map(str, mistake.parts))
        text = f"{mistake.kind} {mistake.instance}: {others}, {mistake.voxels:,} voxels; {box}"
        pen.text((2, top + 1), text, fill=(0, 0, 0))
        for column, read in enumerate((comparison.true.read, comparison.predicted.read)):
            picture = Image.fromarray(_coloured(read(box)[0]))
            scale = PANEL / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            place = (column * (PANEL + GAP), top + CAPTION)
            sheet.paste(picture.resize(size, Image.Resampling.NEAREST), place)
    sheet.save(path)


def _window(box: Box, region: Box) -> Box:
    """Give what is shown of a section: some more, and not too much."""
    starts, stops = [box.start[0]], [box.stop[0]]
    for low, high in zip(box.start[1:], box.stop[1:], strict=True):
        middle, half = (low + high) // 2, min(WIDEST, high - low + 2 * MARGIN) // 2
        starts.append(middle - half)
        stops.append(middle + half)
    return Box(zyx(starts), zyx(stops)).intersect(region)


def _coloured(ids: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Give every number a colour of its own, always the same; 0 is black."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    parts = [(mixed >> np.uint64(shift)) & np.uint64(127) for shift in (16, 32, 48)]
    colours = (np.stack(parts, axis=-1) + np.uint64(96)).astype(np.uint8)
    colours[ids == 0] = 0
    return colours
