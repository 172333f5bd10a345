"""A contact sheet of training patches: what the network is shown, asked for, and told to mind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.training_job import TrainingJob
from tilenet.training.sampling import Patch, Patches

#: Patches on a sheet.
COUNT = 8

#: Pixels of a picture's longer side, at most, and of the captions.
SIDE, CAPTION = 320, 14

_Picture = npt.NDArray[np.uint8]


def write_preview(job: TrainingJob, folder: Path) -> str:
    """Draw the first patches of a training.

    Parameters
    ----------
    job : TrainingJob
        The training.
    folder : pathlib.Path
        Made if it is not there.

    Returns
    -------
    str
        What was written.
    """
    patches = Patches(job.volumes, job.architecture, job.recipe, job.statistics)
    drawn = [patches.augmented(patches.sample(index)) for index in range(COUNT)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "patches.png"
    sheet(drawn, patches.architecture.halo).save(path)
    y, x = patches.patch[1:]
    shown = f"input with the {y} x {x} pixels of output framed, classes, weights"
    return f"{path}: {COUNT} patches: {shown}"


def sheet(patches: list[Patch], halo: tuple[int, int, int]) -> Image.Image:
    """Draw patches, one per row: input with the output framed, classes, weights.

    Parameters
    ----------
    patches : list of Patch
        On the CPU.
    halo : tuple of int
        Context per side, (z, y, x).

    Returns
    -------
    PIL.Image.Image
        Middle sections of all patches.
    """
    rows = []
    for patch in patches:
        middle = patch.classes.shape[1] // 2
        grey = patch.x[0, 0, middle + halo[0]].numpy()
        classes = patch.classes[0, middle].numpy()
        weights = patch.weights[0, middle].numpy()
        framed = _frame(_stretch(grey, -2.5, 2.5), halo)
        top = max(1, int(patch.classes.max()))
        shown = [framed, _stretch(classes, 0, top), _heat(np.log1p(weights))]
        caption = f"weights {weights.min():.2g} to {weights.max():.3g}"
        rows.append((["input", "classes", caption], [_shrink(picture) for picture in shown]))
    width = sum(picture.width + 4 for picture in rows[0][1])
    heights = [max(p.height for p in pictures) + CAPTION for _, pictures in rows]
    canvas = Image.new("RGB", (width, sum(heights)), "white")
    pen, top_edge = ImageDraw.Draw(canvas), 0
    for (captions, pictures), height in zip(rows, heights, strict=True):
        left = 0
        for caption, picture in zip(captions, pictures, strict=True):
            pen.text((left + 2, top_edge + 1), caption, fill="black")
            canvas.paste(picture, (left, top_edge + CAPTION))
            left += picture.width + 4
        top_edge += height
    return canvas


def _stretch(values: npt.NDArray[np.generic], low: float, high: float) -> _Picture:
    unit = (values.astype(np.float32) - low) / (high - low)
    grey: _Picture = (255 * unit.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _heat(values: npt.NDArray[np.generic]) -> _Picture:
    # Black, red, yellow, white, as far as the largest weight.
    unit = 3 * values.astype(np.float32) / max(1e-6, float(values.max()))
    channels = np.stack([(unit - i).clip(0, 1) for i in range(3)], axis=-1)
    heat: _Picture = (255 * channels).astype(np.uint8)
    return heat


def _frame(picture: _Picture, halo: tuple[int, int, int]) -> _Picture:
    y, x = halo[1:]
    framed = picture.copy()
    bottom, right = picture.shape[0] - y - 1, picture.shape[1] - x - 1
    for row in (y, bottom):
        framed[row, x : right + 1] = (255, 200, 0)
    for column in (x, right):
        framed[y : bottom + 1, column] = (255, 200, 0)
    return framed


def _shrink(picture: _Picture) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    return image
