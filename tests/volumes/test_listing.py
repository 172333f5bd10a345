"""What is stored is told from the names of files alone, and nothing else is taken for a shard."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import obstore
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from tests.support.runs import environment
from tilenet.geometry import BlockGrid, Box, zyx
from tilenet.volumes import Volume, key_reader, open_volume
from tilenet.volumes.listing import stored_shards
from tilenet.volumes.stores import RemoteStore, in_turn
from tilenet.volumes.stores.remote_store import PAGE, PARALLEL

#: Stored axes, sizes, chunks, and chunks per shard (0: no shards).
LAYOUTS = (
    ("zyx", (5, 7, 6), (2, 3, 2), 0),
    ("xyz", (6, 7, 5), (2, 3, 2), 0),
    ("zyx", (9, 8, 11), (1, 2, 2), 2),
    ("tczyx", (1, 3, 5, 4, 6), (1, 2, 2, 2, 3), 0),
    ("yx", (7, 9), (2, 4), 0),
)


def make(path: Path, layout: tuple[str, tuple[int, ...], tuple[int, ...], int], key: str) -> None:
    """Make an array of a layout, whose keys are like c/0/1, c.0.1, 0/1 or 0.1."""
    _, shape, chunks, per_shard = layout
    version: Literal[2, 3] = 3 if key[0] == "3" else 2
    shards = tuple(n * per_shard for n in chunks) if per_shard and version == 3 else None
    encoding: dict[str, Any] = {"name": "default" if version == 3 else "v2", "separator": key[1]}
    zarr.create_array(
        path, shape=shape, chunks=chunks, shards=shards, dtype="u1", zarr_format=version,
        chunk_key_encoding=encoding,
    )  # fmt: skip


def keys_of(volume: Volume, box: Box) -> set[str]:
    """The dumb way: the key of every voxel."""
    sizes = volume.array.shards or volume.array.chunks
    ranges = dict(zip("zyx", (range(s.start, s.stop) for s in box.slices), strict=True))
    channel, channels = volume.layout.channel, volume.array.shape
    every = []
    for axis, size in zip(volume.layout.axes, channels, strict=True):
        whole = range(size) if channel is None else range(channel, channel + 1)
        every.append(ranges.get(axis, whole if axis == "c" else range(1)))
    return {
        volume.array.metadata.encode_chunk_key(
            tuple(i // n for i, n in zip(voxel, sizes, strict=True))
        )
        for voxel in itertools.product(*every)
    }


@settings(max_examples=25)
@given(data=st.data())
def test_missing_is_what_a_look_at_the_file_of_every_voxel_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(LAYOUTS))
    path = tmp_path_factory.mktemp("listing") / "a.zarr"
    make(path, layout, data.draw(st.sampled_from(["3/", "3.", "2/", "2."])))
    channel = data.draw(st.sampled_from([None, 0, 2])) if "c" in layout[0] else None
    volume = open_volume(str(path), axes=layout[0], channel=channel)
    every = sorted(keys_of(open_volume(str(path), axes=layout[0]), Box.of_shape(volume.shape)))
    left_out = data.draw(st.sets(st.sampled_from(every), max_size=3))
    stored = set(every) - left_out if data.draw(st.booleans()) else left_out
    for key in stored:
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).touch()
    times = data.draw(st.tuples(*[st.integers(1, 3)] * 3))
    block = zyx(n * t for n, t in zip(volume.write_shape, times, strict=True))
    start = zyx(data.draw(st.integers(0, n - 1)) for n in volume.shape)
    stop = zyx(data.draw(st.integers(a + 1, n)) for a, n in zip(start, volume.shape, strict=True))
    grid = BlockGrid(volume.shape, block, Box(start, stop))
    expected = [i for i, box in enumerate(grid) if not keys_of(volume, box) <= stored]
    assert volume.missing(grid) == expected
    assert volume.missing(list(grid)) == expected
    # Blocks that cut shards: all that they touch has to be there.
    voxels = BlockGrid(volume.shape, (1, 1, 1), Box(start, stop))
    expected = [i for i, box in enumerate(voxels) if not keys_of(volume, box) <= stored]
    assert volume.missing(voxels) == expected


@pytest.mark.parametrize("key", ["3/", "3.", "2/", "2."])
def test_only_a_file_of_the_right_name_is_a_shard(tmp_path: Path, key: str) -> None:
    make(tmp_path / "a.zarr", ("zyx", (4, 4, 20), (2, 2, 2), 0), key)
    volume = open_volume(str(tmp_path / "a.zarr"), axes="zyx")
    (first,) = volume.shard_keys(Box((0, 0, 0), (1, 1, 1)))
    folder = (tmp_path / "a.zarr" / first).parent
    folder.mkdir(parents=True, exist_ok=True)
    stem = first.removesuffix("0")
    for name in (
        "00",
        "+1",
        " 2",
        "3 ",
        "-4",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "6.partial",
        "10",
        "7_",
        "zarr.json",
        "1/0",
    ):
        path = tmp_path / "a.zarr" / f"{stem}{name}"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a.zarr" / f"{stem}8").mkdir()
    (tmp_path / "a.zarr" / f"{stem}9").symlink_to("nowhere")
    assert not stored_shards(volume.array).any()
    (tmp_path / "a.zarr" / f"{stem}3").touch()
    assert np.argwhere(stored_shards(volume.array)).tolist() == [[0, 0, 3]]


@pytest.mark.parametrize("key", ["3/", "2/"])
def test_shards_behind_a_linked_folder_are_stored_and_loops_end(tmp_path: Path, key: str) -> None:
    make(tmp_path / "a.zarr", LAYOUTS[0], key)
    volume = open_volume(str(tmp_path / "a.zarr"), axes="zyx")
    whole = Box.of_shape(volume.shape)
    for name in volume.shard_keys(whole):
        (tmp_path / "a.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a.zarr" / name).touch()
    root = tmp_path / "a.zarr" / ("c" if key[0] == "3" else "")
    (root / "1").rename(tmp_path / "disk2")
    (root / "1").symlink_to(tmp_path / "disk2")
    (root / "0" / "0").rename(tmp_path / "disk3")
    (root / "0" / "0").symlink_to("../../../disk3" if key[0] == "3" else "../../disk3")
    (tmp_path / "disk2" / "up").symlink_to(root)
    (root / "round").symlink_to(tmp_path / "disk2")
    assert volume.missing([whole]) == []
    (tmp_path / "disk3" / "1").unlink()
    assert np.argwhere(~stored_shards(volume.array)).tolist() == [[0, 0, 1]]


def test_a_shape_of_countless_shards_takes_no_memory_for_their_names(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", LAYOUTS[0], "3/")
    text = (tmp_path / "a.zarr" / "zarr.json").read_text().split()
    shape = text.index('"shape":')
    text[shape + 2] = f"{2 * 10**10},"
    (tmp_path / "a.zarr" / "zarr.json").write_text(" ".join(text))
    array = open_volume(str(tmp_path / "a.zarr"), axes="zyx").array
    position = key_reader(array)
    assert position(f"c/{10**9}/2/1") == 10**9 * 9 + 2 * 3 + 1
    assert position("c/0/3/0") is position(f"c/{10**10}/0/0") is None
    assert position("c/0/0") is position("0/0/0") is position("c/00/0/0") is None


def test_of_an_object_store_every_page_of_every_folder_is_listed() -> None:
    inside = MemoryStore()
    keys = {f"a/{z}/{y}" for z in range(PARALLEL + 3) for y in range(2)} | {"b", "a/c"}
    keys |= {f"a/0/{y}/{x}" for y in (7, 8) for x in range(PAGE + y)}
    for key in keys:
        obstore.put(inside, key, b"")
    store = RemoteStore(inside, location="s3://lab/x")
    listed = list(in_turn(store.list_prefix("")))
    assert len(listed) == len(keys)
    assert set(listed) == keys
    below = in_turn(store.list_prefix("a/0/"))
    assert set(below) == {key for key in keys if key.startswith("a/0/")}


_LIST_AS_NOBODY = """
import os, sys
from tilenet.volumes.volume import open_volume
from tilenet.errors import UnreadableVolume
volume = open_volume(sys.argv[1], axes="zyx")
if os.geteuid() == 0:  # who may list everything
    os.setuid(65534)
try:
    volume.missing([])
except UnreadableVolume as error:
    print(error)
"""


def test_a_folder_that_must_not_be_listed_is_an_error_and_not_empty(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", LAYOUTS[0], "3/")
    (tmp_path / "a.zarr" / "c" / "1").mkdir(parents=True)
    (tmp_path / "a.zarr" / "c" / "1").chmod(0)
    found = subprocess.run(
        [sys.executable, "-c", _LIST_AS_NOBODY, str(tmp_path / "a.zarr")],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    (tmp_path / "a.zarr" / "c" / "1").chmod(0o755)
    assert found.returncode == 0, found.stderr
    assert "cannot be accessed: Permission denied" in found.stdout
