"""Opening what others wrote: which array is meant, what its axes are, how large its voxels."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from tilenet.errors import AmbiguousVolume, UnreadableBlock, UnreadableVolume
from tilenet.geometry import Box
from tilenet.volumes import Volume, open_volume

#: Every voxel tells where it lies; no two axes have one size.
DATA = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)

WHOLE = Box((0, 0, 0), DATA.shape)

#: A box that cuts chunks on every side.
INNER = Box((1, 2, 1), (4, 5, 5))


def check(volume: Volume) -> None:
    """The volume is DATA, whole and in part."""
    assert volume.shape == DATA.shape
    assert volume.channels is None
    np.testing.assert_array_equal(volume.read(WHOLE), DATA)
    np.testing.assert_array_equal(volume.read(INNER), DATA[INNER.slices])


def stored_as(axes: str) -> np.ndarray[Any, Any]:
    """DATA with its axes in another order."""
    return np.ascontiguousarray(DATA.transpose(["zyx".index(axis) for axis in axes]))


def write_image(
    path: Path,
    levels: dict[str, Any],
    *,
    axes: str = "zyx",
    version: str = "0.4",
    scales: Sequence[Sequence[float]] | None = None,
    unit: str | None = "nanometer",
    separator: str = "/",
    whole: list[dict[str, Any]] | None = None,
) -> zarr.Group:
    """Write OME-Zarr by hand, as other tools do."""
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    encoding: Any = {"name": "v2" if version == "0.4" else "default", "separator": separator}
    for name, values in levels.items():
        chunks = tuple(min(3, n) for n in values.shape)
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=chunks, chunk_key_encoding=encoding
        )
        array[:] = values
    kinds = {"t": "time", "c": "channel"}
    spaces = {axis: {"unit": unit} for axis in "zyx" if unit}
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
        for name, scale in zip(levels, scales or [[1.0] * len(axes)] * len(levels), strict=True)
    ]
    image: dict[str, Any] = {
        "axes": [
            {"name": axis, "type": kinds.get(axis, "space"), **spaces.get(axis, {})}
            for axis in axes
        ],
        "datasets": datasets,
    }
    if whole:
        image["coordinateTransformations"] = whole
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return group


# -- OME-Zarr ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "separator"), [("0.4", "/"), ("0.4", "."), ("0.5", "/")])
def test_ome_zarr_of_both_versions(tmp_path: Path, version: str, separator: str) -> None:
    write_image(tmp_path, {"0": DATA}, version=version, separator=separator)
    check(open_volume(str(tmp_path)))


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yxz", "zxy"])
def test_any_order_of_axes(tmp_path: Path, axes: str) -> None:
    scale = [{"z": 50.0, "y": 8.0, "x": 4.0}[axis] for axis in axes]
    write_image(tmp_path, {"0": stored_as(axes)}, axes=axes, version="0.5", scales=[scale])
    volume = open_volume(str(tmp_path))
    check(volume)
    assert volume.voxel_size == (50, 8, 4)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("nanometer", 4.0), ("micrometer", 0.004), ("angstrom", 40.0), ("picometer", 4000.0)],
)
def test_units_become_nanometres(tmp_path: Path, unit: str, scale: float) -> None:
    write_image(tmp_path, {"0": DATA}, unit=unit, scales=[[10 * scale, scale, 2 * scale]])
    assert open_volume(str(tmp_path)).voxel_size == pytest.approx((40, 4, 8))


def test_without_units_there_is_no_voxel_size(tmp_path: Path) -> None:
    write_image(tmp_path, {"0": DATA}, unit=None, scales=[[50, 4, 4]])
    assert open_volume(str(tmp_path)).voxel_size is None


def test_the_scale_of_the_whole_image_counts_too(tmp_path: Path) -> None:
    whole = [
        {"type": "scale", "scale": [2, 2, 2]},
        {"type": "translation", "translation": [10, 20, 30]},
    ]
    write_image(tmp_path, {"0": DATA}, scales=[[25, 2, 3]], whole=whole)
    volume = open_volume(str(tmp_path))
    assert volume.voxel_size == pytest.approx((50, 4, 6))
    assert volume.layout.translation == pytest.approx((10, 20, 30))


@pytest.fixture
def pyramid(tmp_path: Path) -> str:
    """Two levels with names of their own, each with its own content."""
    path = tmp_path / "em.zarr"
    levels = {"s0": DATA, "s1": DATA[:, ::2, ::2] + 1000}
    write_image(
        path, levels, unit="micrometer", scales=[[0.05, 0.004, 0.004], [0.05, 0.008, 0.008]]
    )
    return str(path)


def test_the_finest_level_is_the_default(pyramid: str) -> None:
    volume = open_volume(pyramid)
    check(volume)
    levels = volume.layout.levels or {}
    assert list(levels) == ["s0", "s1"]
    assert levels["s0"] == pytest.approx((50, 4, 4))
    assert levels["s1"] == pytest.approx((50, 8, 8))


@pytest.mark.parametrize("level", ["s1", "1"])
def test_a_level_by_name_and_by_index(pyramid: str, level: str) -> None:
    volume = open_volume(pyramid, level=level)
    assert volume.read(Box((0, 0, 0), volume.shape)).min() == 1000
    assert volume.voxel_size == pytest.approx((50, 8, 8))


def test_the_path_of_a_level_gives_its_own_voxel_size(pyramid: str) -> None:
    volume = open_volume(f"{pyramid}/s1/")
    assert volume.shape == (4, 3, 3)
    assert volume.voxel_size == pytest.approx((50, 8, 8))


@pytest.mark.parametrize("level", ["2", "s2", "-1"])
def test_an_unknown_level_names_the_known_ones(pyramid: str, level: str) -> None:
    with pytest.raises(AmbiguousVolume, match=rf"no level '{level}' \(s0, s1\).*--level"):
        open_volume(pyramid, level=level)


def test_an_array_has_no_levels(pyramid: str) -> None:
    with pytest.raises(UnreadableVolume, match="is one array and has no level 's1'"):
        open_volume(f"{pyramid}/s0", level="s1")


# -- many chunks and large ones ----------------------------------------------------------------


class Spy:
    """An array that remembers what was read of it at once."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array, self.read = array, list[tuple[slice, ...]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        self.read.append(index)
        return self.array[index]


@pytest.mark.parametrize("chunks", [(1, 2, 2, 3), (2, 9, 9, 9), (1, 3, 5, 1)])
@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_chunks_are_read_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...], at_once: int
) -> None:
    values = np.stack([DATA, DATA + 1000])
    zarr.create_array(tmp_path / "a", data=values, chunks=chunks)
    volume = open_volume(str(tmp_path / "a"), axes="czyx")
    # Half a chunk more: it does not make another one.
    monkeypatch.setattr(
        "tilenet.volumes.volume.READ_BYTES", volume.chunk_bytes * (2 * at_once + 1) // 2
    )
    for box in (WHOLE, INNER, Box((3, 4, 5), (4, 5, 6))):
        spy: Any = Spy(volume.array)
        read = replace(volume, array=spy).read(box)
        np.testing.assert_array_equal(read, values[:, *box.slices])
        seen = [chunks_of(index, values.shape, chunks) for index in spy.read]
        assert max(len(group) for group in seen) <= at_once
        # Each chunk is read in one group only: none is decoded twice.
        assert len(set().union(*seen)) == sum(len(group) for group in seen)


def chunks_of(
    index: tuple[slice, ...], shape: tuple[int, ...], chunks: tuple[int, ...]
) -> set[tuple[int, ...]]:
    """The chunks that an index cuts, voxel by voxel."""
    voxels = np.argwhere(np.ones(shape, bool)[index]) + [s.start or 0 for s in index]
    return {tuple(place) for place in (voxels // chunks).tolist()}


def test_what_fits_is_read_at_once(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=DATA, chunks=(1, 2, 3))
    volume = open_volume(str(tmp_path / "a"), axes="zyx")
    spy: Any = Spy(volume.array)
    replace(volume, array=spy).read(INNER)
    assert spy.read == [INNER.slices]


#: Reads two planes of 32 chunks of 4 MiB and prints by how many MiB the process has grown.
THIN = """
import sys
from benchmarks.memory import peak_bytes
from tilenet.geometry.box import Box
from tilenet.volumes.volume import open_volume
volume = open_volume(sys.argv[1], axes="zyx")
volume.read(Box((0, 0, 0), (1, 1, 1)))
before = peak_bytes()
assert (volume.read(Box((30, 0, 0), (32, 2048, 1024))) == 7).all()
print((peak_bytes() - before) // 2**20)
"""


def test_a_thin_box_through_many_chunks_takes_little_memory(tmp_path: Path) -> None:
    shape, chunks = (64, 2048, 1024), (64, 256, 256)
    array = zarr.create_array(tmp_path / "a", shape=shape, chunks=chunks, dtype="uint8")
    array[:] = 7
    process = subprocess.run(
        [sys.executable, "-c", THIN, str(tmp_path / "a")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    # 4 MiB wanted, 16 MiB of chunks at once, twice while they are decoded; all are 128 MiB.
    assert int(process.stdout) < 64


# -- time, channels, series --------------------------------------------------------------------


def write_series(path: Path, count: int) -> None:
    """The layout of bioformats2raw: a group of numbered images."""
    group = zarr.create_group(str(path), zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    group.create_group("OME").attrs["series"] = [str(i) for i in range(count)]
    for i in range(count):
        write_image(path / str(i), {"0": DATA[None, None] + i}, axes="tczyx")


def test_bioformats2raw(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    check(open_volume(str(tmp_path)))
    check(open_volume(str(tmp_path), level="0"))


def test_several_series_are_not_chosen_from(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    with pytest.raises(AmbiguousVolume, match=r"several image series \(0, 1\)"):
        open_volume(str(tmp_path))
    check(open_volume(f"{tmp_path}/0"))


def test_a_bioformats2raw_group_without_series_holds_no_image(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path), attributes={"bioformats2raw.layout": 3})
    with pytest.raises(UnreadableVolume, match="is a Zarr group without an image"):
        open_volume(str(tmp_path))


@pytest.fixture
def coloured(tmp_path: Path) -> str:
    write_image(tmp_path, {"0": np.stack([DATA, DATA + 500])[None]}, axes="tczyx")
    return str(tmp_path)


def test_all_channels_are_read_where_none_is_chosen(coloured: str) -> None:
    volume = open_volume(coloured)
    assert (volume.shape, volume.channels) == (DATA.shape, 2)
    expected = np.stack([DATA, DATA + 500])[(slice(None), *INNER.slices)]
    np.testing.assert_array_equal(volume.read(INNER), expected)


def test_one_channel_is_read_as_a_volume_without_channels(coloured: str) -> None:
    volume = open_volume(coloured, channel=1)
    assert volume.channels is None
    np.testing.assert_array_equal(volume.read(INNER), DATA[INNER.slices] + 500)


@pytest.mark.parametrize("channel", [2, -1])
def test_an_unknown_channel_names_the_known_ones(coloured: str, channel: int) -> None:
    with pytest.raises(AmbiguousVolume, match=rf"no channel {channel} \(0, 1\).*--channel"):
        open_volume(coloured, channel=channel)


def test_channels_may_be_stored_last(tmp_path: Path) -> None:
    values = np.stack([DATA, DATA + 500], axis=-1)
    zarr.create_array(str(tmp_path / "a"), data=values, chunks=(2, 3, 3, 1))
    volume = open_volume(str(tmp_path / "a"), axes="zyxc")
    np.testing.assert_array_equal(volume.read(WHOLE), np.moveaxis(values, -1, 0))


def test_several_time_points_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path, {"0": np.stack([DATA, DATA])[:, None]}, axes="tczyx")
    with pytest.raises(UnreadableVolume, match="has 2 time points"):
        open_volume(str(tmp_path))


# -- plain arrays and groups -------------------------------------------------------------------


def plain(path: Path, values: np.ndarray[Any, Any] = DATA, **options: Any) -> str:
    options = {"chunks": tuple(min(3, n) for n in values.shape), **options}
    array = zarr.create_array(str(path), shape=values.shape, dtype=values.dtype, **options)
    array[:] = values
    return str(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_is_zyx(tmp_path: Path, zarr_format: int) -> None:
    volume = open_volume(plain(tmp_path / "a", zarr_format=zarr_format))
    check(volume)
    assert volume.voxel_size is None


def test_a_plane_is_one_section(tmp_path: Path) -> None:
    volume = open_volume(plain(tmp_path / "a", DATA[0]))
    assert volume.shape == (1, 5, 6)
    np.testing.assert_array_equal(volume.read(Box((0, 1, 2), (1, 4, 6))), DATA[:1, 1:4, 2:6])


def test_dimension_names_are_believed(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", stored_as("yxz"), dimension_names=["y", "x", "z"])
    check(open_volume(path))


def test_names_of_dimensions_after_xarray_are_believed(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", stored_as("xyz"), zarr_format=2)
    zarr.open_array(path).attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    check(open_volume(path))


def test_names_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    check(open_volume(plain(tmp_path / "a", dimension_names=["depth", "row", "column"])))


def test_given_axes_win_over_the_stored_names(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", stored_as("xyz"), dimension_names=["z", "y", "x"])
    check(open_volume(path, axes="XYZ"))


def test_four_axes_without_names_have_to_be_named(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", np.stack([DATA, DATA]))
    with pytest.raises(AmbiguousVolume, match=r"\(2, 4, 5, 6\), and nothing says .*--axes czyx"):
        open_volume(path)
    check(open_volume(path, axes="czyx", channel=1))
    with pytest.raises(AmbiguousVolume, match=r"--axes tczyx\."):
        open_volume(plain(tmp_path / "b", np.stack([DATA, DATA])[None]))


@pytest.mark.parametrize("axes", [None, "x"])
@pytest.mark.parametrize("shape", [(120,), (1, 1, 1, 4, 5, 6)])
def test_lines_and_six_axes_are_no_volumes(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None
) -> None:
    path = plain(tmp_path / "a", DATA.reshape(shape))
    with pytest.raises(UnreadableVolume, match=rf"has {len(shape)} axes .* has 2 to 5\. Store it"):
        open_volume(path, axes=axes)


WRONG_AXES = {
    "zyxc": r"has 3 axes of sizes \(4, 5, 6\), but 4 axes are named: 'zyxc'",
    "yx": "but 2 axes are named: 'yx'",
    "zzx": "has axes named 'zzx', which must be among t, c, z, y, x, each once",
    "qyx": "has axes named 'qyx'",
    "tcz": "has axes named 'tcz'",
}


@pytest.mark.parametrize("axes", WRONG_AXES)
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, axes: str) -> None:
    with pytest.raises((AmbiguousVolume, UnreadableVolume), match=WRONG_AXES[axes]):
        open_volume(plain(tmp_path / "a"), axes=axes)


def plain_group(path: Path, *names: str) -> str:
    zarr.create_group(str(path))
    for i, name in enumerate(names):
        plain(path / name, DATA + np.uint16(i))
    return str(path)


def test_s0_is_the_finest_of_a_group_without_metadata(tmp_path: Path) -> None:
    check(open_volume(plain_group(tmp_path, "s0", "s1", "s2")))


def test_levels_without_metadata_are_counted_as_people_count(tmp_path: Path) -> None:
    path = plain_group(tmp_path, "s0", "s1", "s10", "s2")
    assert open_volume(path, level="2").layout.level == "s2"


def test_the_only_array_of_a_group_is_meant(tmp_path: Path) -> None:
    check(open_volume(plain_group(tmp_path, "raw")))


def test_several_arrays_are_not_chosen_from(tmp_path: Path) -> None:
    path = plain_group(tmp_path, "raw", "labels")
    with pytest.raises(AmbiguousVolume, match=r"no metadata \(labels, raw\).*--level"):
        open_volume(path)
    check(open_volume(path, level="raw"))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        pytest.param("uint16", {"compressors": numcodecs.LZMA()}, id="codec"),
        pytest.param("uint16", {"filters": [numcodecs.Delta(dtype="u2")]}, id="filter"),
        pytest.param(">u2", {}, id="big-endian"),
        pytest.param("uint16", {"order": "F"}, id="Fortran order"),
    ],
)
def test_what_zarrs_cannot_decode_is_read_by_zarr_python(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    check(open_volume(plain(tmp_path / "a", DATA.astype(dtype), zarr_format=2, **options)))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_of_blosc_that_says_what_cannot_be_is_an_error(
    tmp_path: Path, zarr_format: int
) -> None:
    blosc = numcodecs.Blosc() if zarr_format == 2 else BloscCodec()
    path = plain(tmp_path / "a", zarr_format=zarr_format, compressors=blosc)
    volume = open_volume(path)
    check(volume)
    assert type(volume.array.async_array.codec_pipeline).__name__ == "BatchedCodecPipeline"
    files = [path for path in (tmp_path / "a").rglob("*") if path.name[0] not in ".z"]
    chunk = next(path for path in files if path.is_file())
    stored = bytearray(chunk.read_bytes())
    stored[4:8] = (2**31 - 1).to_bytes(4, "little")  # bytes when decoded
    chunk.write_bytes(stored)
    with pytest.raises(UnreadableBlock):
        volume.read(Box.of_shape(volume.shape))


def test_a_shard_whose_index_no_memory_would_hold_is_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", chunks=(1, 5, 6), shards=(4, 5, 6))
    stored = tmp_path / "a" / "zarr.json"
    values = json.loads(stored.read_text())
    values["chunk_grid"]["configuration"]["chunk_shape"] = [2**31, 5, 6]
    stored.write_text(json.dumps(values))
    with pytest.raises(UnreadableVolume, match="2,147,483,648 chunks in a shard"):
        open_volume(path)


def test_what_zarrs_can_decode_is_read_by_zarrs(tmp_path: Path) -> None:
    volume = open_volume(plain(tmp_path / "a"))
    assert type(volume.array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"


class Queue:
    """A lock that notes when somebody comes to it, and tells."""

    def __init__(self) -> None:
        self.lock, self.came = threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        if self.lock.locked():
            self.came.set()
        self.lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lock.release()


def test_of_two_threads_that_open_at_once_each_has_its_own_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One is decoded by zarrs and the other is not; the setting that says so is the process's.
    first, second = plain(tmp_path / "a"), plain(tmp_path / "b", compressors=BloscCodec())
    queue, honest, found, inside = Queue(), zarr.open, dict[str, Volume](), list[str]()
    monkeypatch.setattr("tilenet.volumes.stores.zarr_access._settings_lock", queue)

    def open_second() -> None:
        found[second] = open_volume(second)

    other = threading.Thread(target=open_second)

    def opened(store: Any, **options: Any) -> Any:
        # The first one is in the middle: the other comes to the lock, or in as well.
        name = "second" if threading.current_thread() is other else "first"
        inside.append(name)
        if name == "second":
            queue.came.set()
        elif not queue.came.is_set():
            other.start()
            queue.came.wait()
        try:
            return honest(store, **options)
        finally:
            inside.append(name)

    before = zarr.config.get("codec_pipeline.path")
    monkeypatch.setattr(zarr, "open", opened)
    found[first] = open_volume(first)
    other.join()
    monkeypatch.undo()
    assert inside[:2] == ["first", "first"], "nobody else was in while it was"
    pipelines = [
        type(found[path].array.async_array.codec_pipeline).__name__ for path in (first, second)
    ]
    assert pipelines == ["ZarrsCodecPipeline", "BatchedCodecPipeline"]
    assert zarr.config.get("codec_pipeline.path") == before
    for volume in found.values():
        check(volume)
