"""Averaging turned and flipped sections equals averaging the passes over the turned volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks.test_tiles import check_tiles
from tests.networks.test_unet_architecture import architectures, square
from tests.support.oracles import (
    ARCHITECTURES,
    SYMMETRIES,
    grey_values,
    integer_network,
    mean_pass,
    probabilities,
    random_network,
    save_linear,
    save_softmax,
    turned,
    turned_pass,
    whole_pass,
)
from tests.support.runs import predict_blocks, predict_task, store_volume
from tests.whole.test_exactness import scaled, stitch
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.inference.turning import turn, turn_back
from tilenet.networks import (
    IDENTITY,
    Orientation,
    Tile,
    TileGrid,
    UNetArchitecture,
    averaged,
    orientations_to_json,
    parse_orientations,
)
from tilenet.networks.orientations import FLIPS, ORIENTATIONS
from tilenet.volumes import Intensity

#: What is averaged, and the oracle's names for it.
AVERAGES: dict[str, tuple[tuple[Orientation, ...], list[tuple[bool, int]]]] = {
    "7": (averaged(7, False), SYMMETRIES[:7]),
    "8": (averaged(8, False), SYMMETRIES),
    "flips": (averaged(1, True), [(False, 0), (False, 2), (True, 0), (True, 2)]),
}

#: The first two emit more than a tile keeps, as the paper's network does (260 and 256).
SQUARE = {
    "deep": UNetArchitecture.planar(2, 3, dropout=0.0),
    "single": UNetArchitecture.volumetric(2, 2, convolutions=1, dropout=0.0),
    "planar": ARCHITECTURES["planar"],
    "anisotropic": ARCHITECTURES["anisotropic"],
}
NETWORKS = {**SQUARE, "pool of three": ARCHITECTURES["pool of three"]}
CASES = [*((name, "7") for name in SQUARE), ("single", "8"), ("deep", "flips")]
CASES += [("pool of three", "flips")]

#: Smaller than a tile; not multiples of anything; one voxel; long.
SHAPES: list[ZYX] = [(2, 9, 11), (5, 19, 29), (1, 1, 1), (1, 8, 61)]


# -- the group ---------------------------------------------------------------------------------


def test_turning_is_numpys_and_turning_back_undoes_it() -> None:
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    for orientation, symmetry in zip(ORIENTATIONS, SYMMETRIES, strict=True):
        seen = turn(values, orientation)
        np.testing.assert_array_equal(seen, turned(values, *symmetry), err_msg=orientation.name)
        np.testing.assert_array_equal(turn_back(seen, orientation), values)
        assert seen.flags.c_contiguous


def test_seven_are_all_but_the_last_and_flips_exchange_no_axes() -> None:
    assert averaged(1, False) == (IDENTITY,)
    assert averaged(7, False) == averaged(8, False)[:7]
    assert len({turn(np.arange(4).reshape(1, 2, 2), o).tobytes() for o in ORIENTATIONS}) == 8
    assert [o.name for o in FLIPS] == ["identity", "turn 180", "flip x", "flip y"]
    assert averaged(1, True) == FLIPS


@pytest.mark.parametrize("rotations", [-1, 0, 2, 4, 9])
def test_other_numbers_of_rotations_are_refused(rotations: int) -> None:
    with pytest.raises(InvalidData, match=rf"Rotations: {rotations} .* choose 1, 7 or 8"):
        averaged(rotations, False)


def test_flips_and_rotations_together_are_refused() -> None:
    with pytest.raises(InvalidData, match=r"together with 7 rotations.*--flips or --rotations"):
        averaged(7, True)


def test_what_is_stated_is_read_again() -> None:
    for orientations in [(IDENTITY,), *(chosen for chosen, _ in AVERAGES.values())]:
        stored = orientations_to_json(orientations, "softmax probabilities", "float32")
        assert parse_orientations(stored) == orientations
    scores = orientations_to_json(averaged(7, False), "linear scores", "float64")
    assert isinstance(scores, dict)
    assert scores["average"] == "linear scores, summed in this order in float64, divided by 7"
    unknowns: list[object] = ["mirrors", {"orientations": ["turn 45"]}, {"orientations": []}, None]
    for unknown in unknowns:
        with pytest.raises(InvalidData, match="not known to this version"):
            parse_orientations(unknown)


# -- exactness ---------------------------------------------------------------------------------


def test_the_oracle_without_a_turn_is_the_whole_pass() -> None:
    for architecture in NETWORKS.values():
        network, values = integer_network(architecture), grey_values((5, 23, 37))
        expected = whole_pass(network, values)
        np.testing.assert_array_equal(turned_pass(network, values, False, 0), expected)
        assert not np.array_equal(turned_pass(network, values, True, 0), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "average"), CASES)
def test_any_shape_equals_the_mean_of_turned_passes_bit_for_bit(
    name: str, average: str, shape: ZYX
) -> None:
    architecture = NETWORKS[name]
    network, values = integer_network(architecture), grey_values(shape)
    orientations, symmetries = AVERAGES[average]
    expected = mean_pass(network, values, symmetries)
    tile, block = scaled(architecture, (2, 2, 2)), scaled(architecture, (2, 4, 3))
    stitched = stitch(network, values, block, tile, orientations=orientations)
    np.testing.assert_array_equal(stitched, expected)


@settings(max_examples=20)
@given(
    architectures(),
    st.tuples(*[st.integers(1, 17)] * 3),
    st.tuples(*[st.integers(1, 2)] * 5),
    st.sampled_from(sorted(AVERAGES)),
)
def test_any_network_any_volume_any_tiles(
    architecture: UNetArchitecture, shape: ZYX, multiples: tuple[int, ...], average: str
) -> None:
    depth, height, *blocks = multiples
    architecture = architecture if average == "flips" else square(architecture)
    tile = scaled(architecture, zyx((depth, height, height)))
    block = zyx(t * m for t, m in zip(tile, blocks, strict=True))
    if np.prod(TileGrid(Box((0, 0, 0), tile), tile, architecture, tile).input_shape) > 2e4:
        return  # seconds per tile; the cases above cover it
    network, values = integer_network(architecture), grey_values(shape)
    orientations, symmetries = AVERAGES[average]
    stitched = stitch(network, values, block, tile, orientations=orientations)
    np.testing.assert_array_equal(stitched, mean_pass(network, values, symmetries))


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["loop", "threads", "processes"])
def test_zarr_to_zarr_by_any_executor(tmp_path: Path, how: str, client: Client) -> None:
    architecture = SQUARE["single"]
    network, values = integer_network(architecture), grey_values((7, 22, 37))
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_linear(tmp_path / "model.safetensors", network)
    block, tile = scaled(architecture, (2, 4, 4)), scaled(architecture, (2, 3, 3))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=tile,
        dtype="float32", precision="float64",
    )  # fmt: skip
    task = replace(task, orientations=averaged(7, False))
    stitched = predict_blocks(task, block, how, client)
    expected = mean_pass(network, values, SYMMETRIES[:7]).astype(np.float32)
    np.testing.assert_array_equal(stitched, expected)
    assert not np.array_equal(stitched, np.rint(stitched)), "sevenths, not whole numbers"


@pytest.mark.parametrize(("name", "average"), [("deep", "7"), ("single", "8"), ("deep", "flips")])
def test_probabilities_are_averaged_and_float32_agrees_within_1e_5(
    tmp_path: Path, name: str, average: str
) -> None:
    architecture = NETWORKS[name]
    network, values = random_network(architecture), grey_values((5, 30, 44), top=256)
    intensity = Intensity(mean=120.0, std=50.0)
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_softmax(tmp_path / "model.safetensors", network, intensity)
    block, tile = scaled(architecture, (4, 4, 8)), scaled(architecture, (2, 4, 4))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=tile,
        dtype="float32", precision="float32",
    )  # fmt: skip
    orientations, symmetries = AVERAGES[average]
    stitched = predict_blocks(replace(task, orientations=orientations), block)
    grey = intensity.apply(values, np.float64)
    expected = mean_pass(network, grey, symmetries, probabilities)[1]
    np.testing.assert_allclose(stitched, expected, rtol=0, atol=1e-5)
    of_scores = probabilities(mean_pass(network, grey, symmetries))[1]
    assert np.abs(of_scores - expected).max() > 1e-3, "not the probabilities of mean scores"


def test_several_input_channels_and_classes(tmp_path: Path) -> None:
    architecture = UNetArchitecture.planar(2, 3, in_channels=2, out_channels=3, dropout=0.0)
    network = integer_network(architecture)
    values = np.random.default_rng(1).integers(0, 4, (2, 2, 13, 29), dtype=np.uint8)
    source = store_volume(tmp_path / "em.zarr", values)
    model = save_linear(tmp_path / "model.safetensors", network)
    block = scaled(architecture, (2, 2, 2))
    task = predict_task(
        source, model, tmp_path / "out.zarr", block=block, tile=block,
        dtype="float32", precision="float64",
    )  # fmt: skip
    stitched = predict_blocks(replace(task, orientations=ORIENTATIONS), block)
    assert stitched.shape == (3, 2, 13, 29)
    np.testing.assert_array_equal(stitched, mean_pass(network, values, SYMMETRIES))


# -- tests of the test -------------------------------------------------------------------------


def unshifted(self: TileGrid, tile: Tile, orientation: Orientation) -> Tile:
    """The trap: flip the input of the tile as it is. The excess is at the wrong end."""
    return tile


def off_by_one(self: TileGrid, tile: Tile, orientation: Orientation) -> Tile:
    """Another phase along flipped axes."""
    honest = seen(self, tile, orientation)
    back = zyx(-int(flipped) for flipped in orientation.flips)
    return Tile(honest.kept, honest.output.relative_to(back), honest.input.relative_to(back))


def cropped(self: TileGrid, tile: Tile, orientation: Orientation) -> Tile:
    """Flip what is kept at the volume's edge, which is no multiple of the alignment."""
    honest = seen(self, tile, orientation)
    ends = zip(orientation.flips, honest.output.stop, tile.kept.stop, strict=True)
    back = zyx(b - kept if flipped else 0 for flipped, b, kept in ends)
    return Tile(honest.kept, honest.output.relative_to(back), honest.input.relative_to(back))


seen = TileGrid.seen


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("wrong", [unshifted, off_by_one, cropped])
def test_of_the_test_a_tile_cut_at_the_wrong_phase_is_noticed(
    monkeypatch: pytest.MonkeyPatch, wrong: object, average: str
) -> None:
    architecture = SQUARE["deep"]
    network, values = integer_network(architecture), grey_values((1, 37, 43))
    orientations, symmetries = AVERAGES[average]
    block, expected = scaled(architecture, (1, 3, 3)), mean_pass(network, values, symmetries)
    right = stitch(network, values, block, block, orientations=orientations)
    np.testing.assert_array_equal(right, expected)
    # Wide enough that also the wrong cut finds voxels.
    honest = TileGrid.input_box.fget  # type: ignore[attr-defined]
    wide = property(lambda tiles: honest(tiles).grow((0, 24, 24), (0, 1, 1)))
    monkeypatch.setattr(TileGrid, "input_box", wide)
    np.testing.assert_array_equal(
        stitch(network, values, block, block, orientations=orientations), expected
    )
    monkeypatch.setattr(TileGrid, "seen", wrong)
    stitched = stitch(network, values, block, block, orientations=orientations)
    assert not np.array_equal(stitched, expected)


# -- tiles -------------------------------------------------------------------------------------


def test_the_papers_tile_of_256_is_cut_from_both_sides() -> None:
    paper = UNetArchitecture.planar()
    block = Box((0, 256, 512), (1, 512, 768))
    tiles = TileGrid(block, (1, 256, 256), paper, (1, 2048, 2048), ORIENTATIONS)
    (tile,) = tiles
    assert tiles.input_box == Box((0, 256 - 92 - 4, 512 - 92 - 4), (1, 512 + 96, 768 + 96))
    flipped = tiles.seen(tile, Orientation("flip x", flip_x=True))
    assert flipped.input == Box((0, 256 - 92, 512 - 96), (1, 512 + 96, 768 + 92))
    assert flipped.output == Box((0, 256, 508), (1, 516, 768))
    assert flipped.crop == (slice(0, 1), slice(0, 256), slice(4, 260))
    plain = TileGrid(block, (1, 256, 256), paper, (1, 2048, 2048))
    assert plain.input_box == tile.input, "without the option nothing is read beyond"


@settings(max_examples=40)
@given(architectures(), st.tuples(*[st.integers(1, 30)] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_tiles_in_every_orientation(
    architecture: UNetArchitecture, shape: ZYX, multiples: ZYX
) -> None:
    step = architecture.alignment
    tile = scaled(architecture, multiples)
    for block in BlockGrid(shape, zyx(2 * t for t in tile))[:3]:
        tiles = TileGrid(block, tile, architecture, shape, FLIPS)
        check_tiles(tiles)
        for cut in (tiles.seen(t, o) for t in tiles for o in FLIPS):
            assert tiles.input_box.contains(cut.input)
            assert cut.input.shape == tiles.input_shape
            assert cut.output.contains(cut.kept)
        for flip in FLIPS:
            # Where the network begins: the low end, or, flipped, the high one.
            output = tiles.seen(tiles[0], flip).output
            ends = zip(flip.flips, output.start, output.stop, step, strict=True)
            assert all((b if flipped else a) % n == 0 for flipped, a, b, n in ends)


def test_a_network_that_is_not_square_cannot_be_turned() -> None:
    architecture = ARCHITECTURES["pool of three"]
    block = Box((0, 0, 0), (1, 6, 6))
    with pytest.raises(InvalidData, match=r"are \[3, 3, 3\] along y and \[3, 5, 3\] .*flips"):
        TileGrid(block, (1, 6, 6), architecture, (1, 6, 6), ORIENTATIONS)
    pools = replace(architecture, kernels=((1, 3, 3),) * 3)
    with pytest.raises(InvalidData, match=r"poolings are \[3, 2\] along y and \[2, 3\] along x"):
        TileGrid(block, (1, 6, 6), pools, (1, 6, 6), ORIENTATIONS)


def test_a_tile_that_is_not_square_cannot_be_turned() -> None:
    paper = UNetArchitecture.planar()
    with pytest.raises(InvalidData, match=r"a tile of 16 along y and 32 along x .* square"):
        TileGrid(Box((0, 0, 0), (1, 32, 32)), (1, 16, 32), paper, (1, 32, 32), ORIENTATIONS)
