"""``tilenet demo``: the whole way on synthetic EM, with figures and a picture at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.cluster import ClusterOptions
from pipelines.options import cluster_options
from pipelines.outputs import Summary
from pipelines.predict import Choices, run_prediction
from pipelines.progress import rate
from pipelines.stopping import stop_on_signals
from pipelines.train import TrainingOptions, run_training
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx
from tilenet.metrics import isbi_figures
from tilenet.networks import UINT8
from tilenet.synthetic import SyntheticEM, synthetic_em
from tilenet.volumes import (
    NewVolume,
    VolumeReference,
    create_volume,
    open_volume,
    reopen_for_writing,
)

# Seeds of the volume to learn from and of the one to be judged on: no section is in both.
_TRAINING_SEED, _TEST_SEED = 1, 2

# What the demonstration changes of the usual recipe: AdamW needs fewer steps than the paper's SGD.
_TRAINING = {
    "optimization.optimizer": "adamw",
    "optimization.learning_rate": 0.002,
    "targets.names": ("membrane", "interior"),
}

# Height of the captions above the pictures, pixels.
_CAPTION = 16


class _Paths:
    """Where the demonstration puts things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train_em = str(folder / "train-em.zarr")
        self.train_cells = str(folder / "train-cells.zarr")
        self.test_em = str(folder / "test-em.zarr")
        self.test_cells = str(folder / "test-cells.zarr")
        self.model = str(folder / "membrane.safetensors")
        self.prediction = str(folder / "prediction.zarr")
        self.picture = str(folder / "sections.png")


@click.command()
@click.argument("folder", default="demo")
@click.option("--steps", type=click.IntRange(1), default=250, show_default=True)
@click.option("--sections", type=click.IntRange(1), default=8, show_default=True)
@click.option("--side", type=click.IntRange(64), default=512, show_default=True, help="Pixels.")
@cluster_options
def demo(folder: str, steps: int, sections: int, side: int, cluster: ClusterOptions) -> int:
    """Make synthetic EM, train a U-Net on it, predict another volume and judge the result.

    Everything is written into FOLDER; what an earlier demonstration left there is replaced.
    """
    paths = _Paths(Path(folder))
    if paths.folder.exists() and not paths.folder.is_dir():
        raise InvalidData(folder, "is not a folder", "Give another one.")
    paths.folder.mkdir(parents=True, exist_ok=True)
    _say(f"1/4  Synthetic EM: twice {sections} sections of {side} x {side} pixels")
    shape = (sections, side, side)
    _store(synthetic_em(shape, seed=_TRAINING_SEED), paths.train_em, paths.train_cells)
    truth = synthetic_em(shape, seed=_TEST_SEED)
    _store(truth, paths.test_em, paths.test_cells)
    _say(f"2/4  Training: {steps} steps")
    changes = {**_TRAINING, "optimization.steps": steps}
    options = TrainingOptions(
        output=paths.model, changes=changes, threads=cluster.threads, overwrite=True
    )
    with stop_on_signals() as stop:
        train_em, cells = VolumeReference(paths.train_em), VolumeReference(paths.train_cells)
        run_training(train_em, cells, options, stop)
    if stop.signal is not None:
        return 128 + stop.signal
    _say("3/4  Prediction")
    summary = run_prediction(
        VolumeReference(paths.test_em),
        paths.prediction,
        model=paths.model,
        cluster=cluster,
        choices=Choices(overwrite=True),
    )
    code = summary.finish()
    if code:
        return code
    _say("4/4  Judgement")
    click.echo(_judge(paths, truth, summary))
    return 0


def _say(text: str) -> None:
    click.echo(text, err=True)


def _store(em: SyntheticEM, raw: str, cells: str) -> None:
    for path, values in ((raw, em.raw), (cells, em.cells)):
        shape = zyx(values.shape)
        chunk = _chunk(shape)
        new = NewVolume(
            shape=shape,
            dtype=str(values.dtype),
            chunk=chunk,
            shard=chunk,
            voxel_size=em.voxel_size,
            attributes={"kind": "volume", "source": "synthetic"},
        )
        create_volume(path, new, overwrite=True)
        reopen_for_writing(path).write(Box.of_shape(shape), values)


def _chunk(shape: ZYX) -> ZYX:
    return zyx(min(n, m) for n, m in zip(shape, (16, 256, 256), strict=True))


def _judge(paths: _Paths, truth: SyntheticEM, summary: Summary) -> str:
    stored = open_volume(paths.prediction)
    values = stored.read(Box.of_shape(stored.shape))
    proposal = values / UINT8.one
    middle = stored.shape[0] // 2
    panels = {
        f"raw, section {middle}": truth.raw[middle],
        "truth": truth.cells[middle],
        "prediction": values[middle],
    }
    _draw_panels(panels).save(paths.picture)
    found = isbi_figures(truth.cells, proposal, figures=["pixel", "rand"])
    facts: dict[str, Any] = {
        "pixel error": f"{found.pixel:.4f}   (1 - best F score)",
        "Rand error": f"{found.rand:.4f}   (foreground-restricted)",
        "speed": rate(summary.voxels_per_second),
        "input": paths.test_em,
        "model": paths.model,
        "prediction": paths.prediction,
        "picture": paths.picture,
    }
    return "\n".join(f"{name:12} {value}" for name, value in facts.items())


def _draw_panels(panels: dict[str, npt.NDArray[np.uint8]]) -> Image.Image:
    # By caption sections of shape (y, x), drawn side by side.
    height, width = next(iter(panels.values())).shape
    picture = Image.new("L", (len(panels) * (width + 4) - 4, height + _CAPTION), 255)
    pen = ImageDraw.Draw(picture)
    for i, (caption, section) in enumerate(panels.items()):
        pen.text((i * (width + 4) + 2, 2), caption, fill=0)
        picture.paste(Image.fromarray(section), (i * (width + 4), _CAPTION))
    return picture
