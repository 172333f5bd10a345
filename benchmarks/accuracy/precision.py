"""What slabs and precisions change on a trained network, against one pass over whole sections.

``python -m benchmarks.accuracy.precision MODEL VOLUME [--region z=0:4,y=0:512,x=0:512]``
"""

from __future__ import annotations

import dataclasses
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from pipelines.options import REGION, region_box
from tilenet.geometry import Box
from tilenet.inference import Predictor, load_model, read_mirrored
from tilenet.networks import Execution, TileGrid
from tilenet.volumes import Volume, open_volume

Values = npt.NDArray[np.floating[Any]]


@click.command()
@click.argument("model")
@click.argument("volume")
@click.option("--region", type=REGION)
def main(model: str, volume: str, region: Any) -> None:
    """Compare probabilities with those of one pass in float32."""
    opened = open_volume(volume)
    box = region_box(region, opened.shape)
    expected = one_pass(model, opened, box)
    settings = {
        "float32, slabs of 16": Execution(axis=1, slab=16),
        "float32, slabs of 128": Execution(axis=1, slab=128),
        "bfloat16, slabs of 64": Execution(precision="bfloat16", axis=1, slab=64),
    }
    table = Table(box=None, title=f"{box} of {volume}, against one pass in float32")
    for name in ("how", "99.9th percentile", "largest", "labels that flip at 1/2"):
        table.add_column(name)
    for how, chosen in settings.items():
        found = streamed(model, opened, box, chosen)
        away = np.abs(found - expected)
        flipped = ((found > 0.5) != (expected > 0.5)).mean()
        figures = (np.percentile(away, 99.9), away.max(), flipped)
        table.add_row(how, *(f"{value:.2g}" for value in figures))
    Console(width=110).print(table)


def one_pass(path: str, volume: Volume, box: Box) -> Values:
    """Evaluate the network as training does, on the whole mirror-padded region."""
    model = load_model(path)
    architecture = model.architecture
    output = architecture.output_for(box.shape)
    wanted = Box(box.start, box.start).grow((0, 0, 0), output).grow(*[architecture.halo] * 2)
    grey = torch.from_numpy(
        model.intensity.apply(
            read_mirrored(volume.read, wanted, Box.of_shape(volume.shape)), np.float32
        )
    )
    with torch.inference_mode():
        scores = model.network(grey[None, None])
    values: Values = torch.softmax(scores, dim=1)[0, 1].numpy()
    return values[tuple(slice(n) for n in box.shape)]


def streamed(path: str, volume: Volume, box: Box, settings: Execution) -> Values:
    """Evaluate it as a prediction does."""
    settings = dataclasses.replace(settings, threads=torch.get_num_threads())
    model = load_model(path)
    tile = model.architecture.output_for(box.shape)
    tile_kept = tuple(
        -(-n // a) * a for n, a in zip(tile, model.architecture.alignment, strict=True)
    )
    depth = 1 if model.architecture.is_planar else tile_kept[0]
    shape = (depth, tile_kept[1], tile_kept[2])
    tiles = TileGrid(box, shape, model.architecture, volume.shape)
    padded = read_mirrored(volume.read, tiles.input_box, Box.of_shape(volume.shape))
    return Predictor(model, settings).predict(padded, tiles, np.float32)


if __name__ == "__main__":
    main()
