"""Bare PyTorch loops over plain tiles of an array in memory: small ones, and the largest."""

from __future__ import annotations

import itertools
import math

import torch

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers import arrays
from benchmarks.peers.cluster import planned
from benchmarks.peers.contestant import Contestant, Run, Setting, timed
from tilenet.geometry import ZYX, BlockGrid, Box, round_up, zyx
from tilenet.networks import UNetArchitecture
from tilenet.networks.layers import shape_after
from tilenet.volumes import open_volume

#: Memory of a process that has PyTorch loaded; and live values to peak memory: what oneDNN
#: reorders, and what the allocator keeps. Measured: 1.2 to 1.4, tiles of 64^3 to 128 x 128 x 256.
PROCESS_BYTES, FACTOR = 400 * 2**20, 1.3

#: Tiles along an axis of the volume that are tried.
PARTS = range(1, 17)


def run(inputs: Inputs, output: str, setting: Setting, cores: int) -> Run:
    """Predict tile after tile; reading and writing are not timed."""
    torch.set_num_threads(cores)
    model, volume = methods.load(inputs.model), open_volume(inputs.source)
    values = volume.read(Box.of_shape(volume.shape))
    with timed(model) as watch:
        result = methods.predict_tiles(model, values, setting.kept)
    arrays.save(output, result)
    return watch


def _largest(inputs: Inputs, cores: int) -> Setting | None:
    # In 2-D tiles need so little that any fits.
    if inputs.case.architecture.is_planar:
        return None
    plan = planned(inputs, cores)
    memory = plan.request.workers * plan.worker_bytes
    return Setting(largest_tile(inputs.case.architecture, inputs.case.shape, memory))


def largest_tile(architecture: UNetArchitecture, shape: ZYX, memory: int) -> ZYX:
    """Choose the plain tile of fewest operations for a volume that fits a memory."""
    sides = [
        {round_up(-(-n // parts), step) for parts in PARTS}
        for n, step in zip(shape, architecture.alignment, strict=True)
    ]
    tiles = [zyx(tile) for tile in itertools.product(*sides)]
    fitting = [tile for tile in tiles if plain_bytes(architecture, shape, tile) <= memory]

    def operations(tile: ZYX) -> int:
        given = architecture.input_for(architecture.output_for(tile))
        return len(BlockGrid(shape, tile)) * architecture.evaluation(given).operations

    return min(fitting, key=operations)


def plain_bytes(architecture: UNetArchitecture, shape: ZYX, tile: ZYX) -> int:
    """Estimate the peak memory of a loop over plain tiles of a volume in memory."""
    padded = zyx(
        round_up(n, t) + 2 * h for n, t, h in zip(shape, tile, architecture.halo, strict=True)
    )
    # Grey values, their mirror-padded copy in uint8 and float32, and the result.
    volume = math.prod(shape) * (1 + 4) + math.prod(padded) * (1 + 4)
    given = architecture.input_for(architecture.output_for(tile))
    return int(PROCESS_BYTES + volume + FACTOR * 4 * _live_values(architecture, given))


def _live_values(architecture: UNetArchitecture, input_shape: ZYX) -> int:
    # Every feature of a level is held for its skip connection while the levels below are computed.
    shape, skips, most = input_shape, [], 0
    for layer in architecture.layers():
        given, shape = layer.inputs * math.prod(shape), shape_after(layer, shape)
        made = layer.outputs * math.prod(shape)
        if layer.kind == "pool":
            skips.append(given)
        # An up-convolution's output is copied beside the cropped skip.
        most = max(most, sum(skips) + made + max(given, 2 * made * (layer.kind == "up")))
        if layer.kind == "up":
            skips.pop()
    return most


CONTESTANTS = (
    Contestant(
        name="loop",
        title="bare loop",
        run=run,
        choose=lambda inputs, _: Setting(inputs.case.loop_tile),
        code=(methods.load, methods.foreground, methods.mirrored, methods.predict_tiles),
    ),
    Contestant(
        name="loop-large",
        title="bare loop, same memory",
        run=run,
        choose=_largest,
        code=(methods.load, methods.foreground, methods.mirrored, methods.predict_tiles),
    ),
)
