"""The map of a pass's blocks as a picture: a panel per layer of blocks, seen along z.

What does not fit is binned: then a panel stands for several layers, and a cell for several blocks.
A cell with a block that failed or is running shows that; others mix the colours of their blocks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipelines.watching.block_map import (
    DONE,
    DONE_BEFORE,
    FAILED,
    MISSING,
    NAMES,
    RUNNING,
    SKIPPED,
    States,
)
from pipelines.watching.pass_state import PassState

Colours = npt.NDArray[np.uint8]

#: Colours of the states, told apart in dark and light, and by people who see few colours.
COLOURS = {
    MISSING: (148, 155, 168),
    RUNNING: (245, 175, 25),
    FAILED: (214, 39, 72),
    DONE: (32, 118, 214),
    DONE_BEFORE: (120, 180, 235),
    SKIPPED: (172, 140, 200),
}

#: Opacity of a missing block, so that what is stored stands out on any background; of 255.
FAINT = 115

#: Cells of a panel along y and x at most, and cells and panels of a picture.
SIDE, CELLS, PANELS = 256, 100_000, 1000

#: Pixels of the area that the panels fill, of a cell at most, and of a cell that has a frame.
WIDTH, HEIGHT, LARGEST, FRAMED = 1200, 700, 56, 5

#: Pixels between panels, of a label, and of a panel's width that has one.
GAP, LABEL, LABELLED = 6, 18, 64

#: Labels are worth cells that are smaller by this factor.
WORTH = 0.75

#: What lies where.
AXES = "Layers of blocks along z; in each, y goes down and x to the right."

_TEXT = (128, 132, 140, 255)


@dataclass(frozen=True)
class _Layout:
    # Panels in rows of so many, and pixels of a cell.
    columns: int
    rows: int
    cell: int
    label: int


def draw_map(pass_state: PassState) -> Image.Image:
    """Draw the map of a pass, transparent between the cells."""
    states, layers = pass_state.states, pass_state.layers
    if not states.size:  # nothing has begun yet
        return Image.new("RGBA", (1, 1))
    cells, depth = bin_states(states)
    layout = _arrange(len(cells), cells.shape[1], cells.shape[2])
    size = [n * layout.cell for n in cells.shape[1:3]]
    step = (size[0] + GAP + layout.label, size[1] + GAP)
    shape = (layout.columns * step[1] - GAP, layout.rows * step[0] - GAP)
    image = Image.new("RGBA", shape)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(LABEL - 5)
    for n, panel in enumerate(cells):
        row, column = divmod(n, layout.columns)
        corner = (column * step[1], row * step[0])
        if layout.label:
            stop = layers[min((n + 1) * depth, len(layers)) - 1][1]
            text = f"z {layers[n * depth][0]:,} - {stop:,}"
            pen.text(corner, text, fill=_TEXT, font=font)
        tile = Image.fromarray(_enlarge(panel, layout.cell))
        corner = (corner[0], corner[1] + layout.label)
        image.paste(tile, corner)
        _mark(pen, panel, corner, layout.cell)
    return image


def bin_states(states: States) -> tuple[Colours, int]:
    """Give colours, (panels, y, x, RGBA), to the cells of the map, and the layers of a panel."""
    layers, height, width = states.shape
    side = math.ceil(max(height, width) / SIDE)
    cells = math.ceil(height / side) * math.ceil(width / side)
    depth = math.ceil(layers / max(1, min(PANELS, CELLS // cells)))
    steps = (depth, side, side)
    weights = np.stack([_bin(states == state, steps) for state in COLOURS], axis=-1)
    palette = np.array([*COLOURS.values()], dtype=np.float64)
    known = weights.sum(axis=-1)
    colours = np.zeros((*known.shape, 4), np.uint8)
    mixed = weights @ palette / np.maximum(known, 1)[..., None]
    colours[..., :3] = np.rint(mixed)
    missing = weights[..., list(COLOURS).index(MISSING)] / np.maximum(known, 1)
    colours[..., 3] = np.where(known > 0, np.rint(255 - (255 - FAINT) * missing), 0)
    for state in (RUNNING, FAILED):  # the last wins
        colours[weights[..., list(COLOURS).index(state)] > 0] = (*COLOURS[state], 255)
    return colours, depth


def _bin(mask: npt.NDArray[np.bool_], steps: Sequence[int]) -> npt.NDArray[np.int64]:
    counts = mask.astype(np.int64)
    for axis, step in enumerate(steps):
        if step > 1:
            counts = np.add.reduceat(counts, range(0, counts.shape[axis], step), axis=axis)
    return counts


def _arrange(panels: int, height: int, width: int) -> _Layout:
    # The number of columns that lets cells be largest; of several the most.
    best = {LABEL: _Layout(1, panels, 1, 0), 0: _Layout(1, panels, 1, 0)}
    for columns in range(1, panels + 1):
        rows = math.ceil(panels / columns)
        across = (WIDTH - GAP * (columns - 1)) // (columns * width)
        for label in best:
            down = (HEIGHT - (GAP + label) * rows) // (rows * height)
            cell = min(across, down, LARGEST)
            if cell >= best[label].cell and (not label or cell * width >= LABELLED):
                best[label] = _Layout(columns, rows, cell, label)
    worth = best[LABEL].cell >= WORTH * best[0].cell
    return best[LABEL] if worth else best[0]


def _mark(pen: ImageDraw.ImageDraw, panel: Colours, corner: tuple[int, int], cell: int) -> None:
    # What is rare must be seen where cells are a few pixels.
    for state, size in ((RUNNING, 2), (FAILED, 4)):
        if cell > 2 * size:
            continue
        for y, x in np.argwhere((panel[..., :3] == COLOURS[state]).all(axis=-1)):
            left, top = corner[0] + int(x) * cell + cell // 2, corner[1] + int(y) * cell + cell // 2
            pen.rectangle((left - size, top - size, left + size, top + size), COLOURS[state])


def _enlarge(panel: Colours, cell: int) -> Colours:
    pixels = panel.repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= FRAMED:
        pixels[cell - 1 :: cell, :, 3] = 0
        pixels[:, cell - 1 :: cell, 3] = 0
    return pixels


def map_png(pass_state: PassState) -> bytes:
    return _png(draw_map(pass_state))


def report_png(pass_state: PassState, title: str) -> bytes:
    """Draw the map on white, with a title and a legend, for a run report."""
    drawn, margin, line = draw_map(pass_state), 24, 28
    counts = pass_state.to_dict()["blocks"]
    width = max(drawn.width, 900) + 2 * margin
    image = Image.new("RGB", (width, drawn.height + 2 * margin + 3 * line), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(17)
    pen.text((margin, margin), title, fill=(20, 24, 32), font=font)
    left, top = margin, margin + line
    for state, name in NAMES.items():
        if not counts[name]:
            continue
        pen.rectangle((left, top + 4, left + 13, top + 17), fill=on_white(state))
        text = f"{name.replace('_', ' ')} {counts[name]:,}"
        pen.text((left + 20, top), text, fill=(60, 64, 72), font=font)
        left += 20 + int(pen.textlength(text, font=font)) + 28
    image.paste(drawn, (margin, top + line + 8), drawn)
    below = top + line + 8 + drawn.height + 8
    pen.text((margin, below), AXES, fill=(120, 124, 132), font=ImageFont.load_default(LABEL - 5))
    return _png(image)


def on_white(state: int) -> tuple[int, int, int]:
    """Give the colour that a state has on a white background."""
    share = FAINT / 255 if state == MISSING else 1.0
    red, green, blue = (round(255 + (value - 255) * share) for value in COLOURS[state])
    return red, green, blue


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
