"""Invariants 3 and 4: the stitched result equals one pass over the whole mirror-padded volume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks.test_unet_architecture import architectures
from tests.support.oracles import (
    ARCHITECTURES,
    grey_values,
    integer_network,
    probabilities,
    random_network,
    save_linear,
    save_softmax,
    whole_pass,
)
from tests.support.runs import predict_blocks, predict_task, store_volume
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.inference import Model, ModelHeader, OutputChannel, Predictor, UNet, mirror
from tilenet.inference import predict_task as tasks
from tilenet.inference.block_reader import Feed
from tilenet.networks import IDENTITY, Execution, Orientation, TileGrid, UNetArchitecture
from tilenet.planning import ReadingOrder
from tilenet.volumes import Intensity, Volume, open_volume

#: Smaller than a tile; not multiples of anything; thinner than the halo; one voxel; long.
SHAPES: list[ZYX] = [(3, 9, 11), (13, 37, 53), (2, 5, 70), (1, 1, 1), (9, 24, 96)]


def scaled(architecture: UNetArchitecture, factors: ZYX) -> ZYX:
    return zyx(a * f for a, f in zip(architecture.alignment, factors, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_zarr_to_zarr_equals_the_whole_pass_bit_for_bit(
    tmp_path: Path, name: str, shape: ZYX
) -> None:
    architecture = ARCHITECTURES[name]
    network = integer_network(architecture)
    values = grey_values(shape)
    expected = whole_pass(network, values)
    assert len(np.unique(expected)) > 2 or shape == (1, 1, 1), "the oracle must not be constant"
    model = save_linear(tmp_path / "model.safetensors", network)
    source = store_volume(tmp_path / "em.zarr", values)
    for i, (tile, block) in enumerate(
        [
            ((1, 1, 1), (1, 1, 1)),
            ((1, 2, 3), (2, 4, 3)),
            ((4, 4, 4), (4, 8, 8)),
            ((2, 3, 2), (6, 9, 8)),
        ]
    ):
        if len(BlockGrid(shape, scaled(architecture, block))) > 200:
            continue  # minutes of synced writes, and nothing new
        task = predict_task(
            source,
            model,
            tmp_path / f"out{i}.zarr",
            block=scaled(architecture, block),
            tile=scaled(architecture, tile),
            dtype="float32",
            precision="float64",
        )
        stitched = predict_blocks(task, scaled(architecture, block))
        np.testing.assert_array_equal(stitched, expected.astype(np.float32))


PLANAR = [name for name in ARCHITECTURES if ARCHITECTURES[name].is_planar]


@pytest.mark.parametrize(
    ("name", "axis", "sections"),
    [
        # Planar networks are never fed along z; they take sections one by one, or stream one.
        *((name, axis, 8) for name in ARCHITECTURES for axis in range(name in PLANAR, 3)),
        *((name, axis, 1) for name in PLANAR for axis in (1, 2)),
    ],
)
def test_blocks_that_stream_read_every_voxel_once_and_write_every_shard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, axis: int, sections: int
) -> None:
    architecture = ARCHITECTURES[name]
    network, shape = integer_network(architecture), (19, 50, 61)
    values = grey_values(shape)
    source = store_volume(tmp_path / "em.zarr", values, chunk=(5, 16, 7))
    model = save_linear(tmp_path / "model.safetensors", network)
    # The block is one tile; along every axis it is several shards.
    block = scaled(architecture, (sections, 12, 12))
    shard = scaled(architecture, (min(sections, 2), 4, 3))
    task = predict_task(
        source,
        model,
        tmp_path / "out.zarr",
        block=shard,
        tile=zyx((1, *block[1:])) if architecture.is_planar else block,
        dtype="float32",
        execution=Execution(precision="float64", axis=axis, slab=2 * architecture.alignment[axis]),
    )
    read, written = Counter[Box](), Counter[Box]()
    honest_read, honest_write = Volume.read, Volume.write

    def count_read(self: Volume, box: Box) -> np.ndarray:
        read[box] += 1
        return honest_read(self, box)

    def count_write(self: Volume, box: Box, values: np.ndarray) -> None:
        written[box] += 1
        honest_write(self, box, values)

    monkeypatch.setattr(Volume, "read", count_read)
    monkeypatch.setattr(Volume, "write", count_write)
    result = open_volume(str(tmp_path / "out.zarr"))
    for box in BlockGrid(shape, block):
        read.clear()
        task(box)
        tiles = TileGrid(box, block, architecture, shape)
        times = np.zeros(shape, int)
        for part in read:
            times[part.slices] += 1
        assert set(read.values()) == {1}
        assert len(read) > 1 or box.shape != block, "in pieces"
        assert times.max() == 1, "no voxel is read twice"
        assert times[box.slices].min() == 1
        assert not times[outside(tiles.read_box, shape)].any()
    assert written == Counter(BlockGrid(shape, shard))
    monkeypatch.undo()
    stitched = result.read(Box.of_shape(shape))
    np.testing.assert_array_equal(stitched, whole_pass(network, values).astype(np.float32))


def outside(box: Box, shape: ZYX) -> np.ndarray:
    found = np.ones(shape, bool)
    found[box.slices] = False
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["threads", "processes"])
def test_threads_and_processes_give_the_same_bits(tmp_path: Path, how: str, client: Client) -> None:
    architecture = ARCHITECTURES["anisotropic"]
    network = integer_network(architecture)
    values = grey_values((13, 37, 53))
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_linear(tmp_path / "model.safetensors", network)
    block, tile = scaled(architecture, (2, 4, 4)), scaled(architecture, (2, 2, 2))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=tile,
        dtype="float32", precision="float64",
    )  # fmt: skip
    stitched = predict_blocks(task, block, how, client)
    np.testing.assert_array_equal(stitched, whole_pass(network, values).astype(np.float32))


@settings(max_examples=40)
@given(architectures(), st.tuples(*[st.integers(1, 17)] * 3), st.tuples(*[st.integers(1, 3)] * 6))
def test_any_network_any_volume_any_tiles(
    architecture: UNetArchitecture, shape: ZYX, multiples: tuple[int, ...]
) -> None:
    network = integer_network(architecture)
    values = grey_values(shape)
    tile = scaled(architecture, zyx(multiples[:3]))
    block = zyx(t * m for t, m in zip(tile, multiples[3:], strict=True))
    if np.prod(TileGrid(Box((0, 0, 0), tile), tile, architecture, tile).input_shape) > 4e5:
        return  # seconds per tile; the cases above and below cover it
    np.testing.assert_array_equal(stitch(network, values, block, tile), whole_pass(network, values))


def stitch(
    network: UNet,
    values: np.ndarray,
    block: ZYX,
    tile: ZYX,
    shift: int = 0,
    orientations: tuple[Orientation, ...] = (IDENTITY,),
) -> np.ndarray:
    """Predict block by block in memory; ``shift`` displaces what the second block reads."""
    architecture = network.architecture
    outputs = tuple(
        OutputChannel(f"c{i}", activation="linear") for i in range(architecture.out_channels)
    )
    header = ModelHeader(architecture, Intensity(), outputs)
    predictor = Predictor(Model(network, header), Execution(precision="float64"))
    shape = zyx(values.shape)
    result = np.empty((architecture.out_channels, *shape))
    for i, box in enumerate(BlockGrid(shape, block)):
        tiles = TileGrid(box, tile, architecture, shape, orientations)
        moved = shift if i == 1 else 0
        input_box = tiles.input_box.relative_to((0, 0, -moved))
        everything = Box.of_shape(shape)
        padded = mirror(values, everything, input_box=input_box, volume_shape=shape)
        result[(slice(None), *box.slices)] = predictor.predict(padded, tiles, np.float64)
    return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_of_the_test_a_tile_shifted_by_one_voxel_is_noticed(name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = integer_network(architecture)
    values = grey_values((13, 37, 53))
    block, expected = scaled(architecture, (2, 3, 3)), whole_pass(network, values)
    np.testing.assert_array_equal(stitch(network, values, block, block), expected)
    assert not np.array_equal(stitch(network, values, block, block, shift=1), expected)


def test_of_the_test_a_shifted_read_in_the_task_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = ARCHITECTURES["planar"]
    network = integer_network(architecture)
    values = grey_values((3, 37, 53))
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_linear(tmp_path / "model.safetensors", network)
    block = scaled(architecture, (2, 4, 4))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=block,
        dtype="float32", precision="float64",
    )  # fmt: skip
    honest = tasks.feed_of

    class Shifted(Feed):
        def planes(self, piece: slice) -> np.ndarray:
            return np.roll(super().planes(piece), 1, axis=-1)

    def shifted(volume: Volume, tiles: TileGrid, order: ReadingOrder, *wait: Any) -> Feed:
        feed = honest(volume, tiles, order, *wait)
        if tiles.block.start != (0, 0, 0):
            feed.__class__ = Shifted
        return feed

    monkeypatch.setattr(tasks, "feed_of", shifted)
    stitched = predict_blocks(task, block)
    assert not np.array_equal(stitched, whole_pass(network, values).astype(np.float32))


def test_a_tile_at_another_phase_gives_other_numbers() -> None:
    # Why blocks start at multiples of the alignment: max-pooling would group other voxels.
    architecture = ARCHITECTURES["planar"]
    network = integer_network(architecture)
    values = grey_values((1, 40, 40))
    aligned, moved = whole_pass(network, values), whole_pass(network, np.roll(values, 1, axis=-1))
    assert not np.array_equal(aligned[..., 20:-12], moved[..., 21:-11])


@pytest.mark.parametrize("name", ["planar", "volumetric", "anisotropic"])
def test_float32_agrees_within_1e_5_on_probabilities(tmp_path: Path, name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = random_network(architecture)
    values = grey_values((9, 40, 44), top=256)
    intensity = Intensity(mean=120.0, std=50.0)
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_softmax(tmp_path / "model.safetensors", network, intensity)
    block, tile = scaled(architecture, (4, 8, 8)), scaled(architecture, (2, 4, 4))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=tile,
        dtype="float32", precision="float32",
    )  # fmt: skip
    stitched = predict_blocks(task, block)
    expected = probabilities(whole_pass(network, intensity.apply(values, np.float64)))[1]
    np.testing.assert_allclose(stitched, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1, "the oracle must not be constant"


def test_uint8_stores_255_times_the_probability(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["planar"]
    network = random_network(architecture)
    values = grey_values((2, 40, 44))
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_softmax(tmp_path / "model.safetensors", network)
    block = scaled(architecture, (2, 8, 8))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=block,
        dtype="uint8", precision="float64",
    )  # fmt: skip
    expected = np.rint(255 * probabilities(whole_pass(network, values))[1])
    np.testing.assert_array_equal(predict_blocks(task, block), expected)


def test_several_input_channels_and_more_than_two_classes(tmp_path: Path) -> None:
    architecture = UNetArchitecture.planar(2, 2, in_channels=2, out_channels=3, dropout=0.0)
    network = integer_network(architecture)
    values = np.random.default_rng(1).integers(0, 4, (2, 5, 37, 41), dtype=np.uint8)
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_linear(tmp_path / "model.safetensors", network)
    block = scaled(architecture, (2, 4, 4))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=block,
        dtype="float32", precision="float64",
    )  # fmt: skip
    stitched = predict_blocks(task, block)
    assert stitched.shape == (3, 5, 37, 41)
    np.testing.assert_array_equal(stitched, whole_pass(network, values).astype(np.float32))


@pytest.mark.parametrize("threads", [1, 2])
def test_one_numeric_plan_gives_one_result_whatever_the_order(threads: int) -> None:
    architecture = UNetArchitecture.planar(8, 3, dropout=0.0)
    header = ModelHeader(architecture)
    network = random_network(architecture)
    predictor = Predictor(Model(network, header), Execution(threads=threads))
    values = grey_values((1, 200, 200), top=256)
    tiles = TileGrid(Box.of_shape((1, 200, 200)), (1, 64, 64), architecture, (1, 200, 200))
    padded = mirror(
        values, Box.of_shape((1, 200, 200)), input_box=tiles.input_box, volume_shape=(1, 200, 200)
    )
    first = predictor.predict(padded, tiles, np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(predictor.predict(padded, tiles, np.float32), first)


@pytest.mark.parametrize("threads", [2, 3])
def test_a_network_computes_with_the_threads_of_its_plan(threads: int) -> None:
    # Another number may split sums elsewhere, and so give other bits.
    architecture = ARCHITECTURES["planar"]
    model = Model(random_network(architecture), ModelHeader(architecture))
    predictor = Predictor(model, Execution(threads=threads, slab=architecture.alignment[0]))
    tiles = TileGrid(Box.of_shape((1, 64, 64)), (1, 64, 64), architecture, (1, 64, 64))
    seen, before = set[int](), torch.get_num_threads()

    def load(piece: slice) -> np.ndarray:
        seen.add(torch.get_num_threads())
        shape = [*tiles.input_shape]
        shape[0] = piece.stop - piece.start
        return np.zeros(shape, np.uint8)

    try:
        for _ in predictor.planes(load, tiles, np.float32):
            seen.add(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == {threads}
