"""Invariant 5: a block counts as done only after its data are durably in the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.volumes.test_volume_write import BLOCK, NEW, WHOLE, blocks, fill, noise
from tilenet.errors import UnreadableBlock
from tilenet.geometry import Box
from tilenet.volumes import (
    CODECS,
    NewVolume,
    create_volume,
    open_volume,
    remove_partial_files,
    reopen_for_writing,
)
from tilenet.volumes.stores import write_durably
from tilenet.volumes.stores.local_store import ATTEMPTS

VALUES = noise(NEW.shape)


@pytest.fixture
def location(tmp_path: Path) -> str:
    path = str(tmp_path / "out.zarr")
    create_volume(path, NEW)
    return path


def shard_files(location: str) -> list[Path]:
    return sorted(path for path in Path(location, "0", "c").rglob("*") if path.is_file())


def partial_files(location: str) -> list[Path]:
    return sorted(Path(location).rglob("*.partial"))


# -- the order of things -----------------------------------------------------------------------


def test_a_shard_is_synced_before_it_gets_its_name_and_its_folder_after(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    names: dict[str, int] = {}
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("synced", os.fstat(descriptor).st_ino))

    def spy_replace(source: Path, target: Path) -> Path:
        names[str(target)] = source.stat().st_ino
        events.append(("named", source.stat().st_ino))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    fill(reopen_for_writing(location), VALUES)

    files = shard_files(location)
    assert sorted(names) == [str(path) for path in files], "nothing is written but shards"
    assert len(files) == 2 * 4 * 3
    for path in files:
        inode, folder = path.stat().st_ino, path.parent.stat().st_ino
        named = events.index(("named", inode))
        assert ("synced", inode) in events[:named]
        assert ("synced", folder) in events[named:]


def test_new_folders_are_synced_into_the_folders_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_durably(tmp_path / "a" / "b" / "file", b"data")
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        assert folder.stat().st_ino in synced


def test_the_metadata_are_written_durably_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    create_volume(str(tmp_path / "out.zarr"), NEW)
    files = list(tmp_path.rglob("zarr.json"))
    assert len(files) == 2
    assert all(path.stat().st_ino in synced for path in files)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_volume_has_its_name_for_good_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    events: list[str] = []
    rename, fsync, rmtree = Path.rename, os.fsync, shutil.rmtree

    def spy_rename(source: Path, target: Path) -> Path:
        events.append(f"named {target.name.partition('.zarr')[2][:1]}")
        return rename(source, target)

    def spy_fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino:
            events.append("synced")
        fsync(descriptor)

    def spy_rmtree(path: Path) -> None:
        events.append("removed")
        rmtree(path)

    if overwrite:
        create_volume(str(tmp_path / "out.zarr"), NEW)
    monkeypatch.setattr(Path, "rename", spy_rename)
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(shutil, "rmtree", spy_rmtree)
    create_volume(str(tmp_path / "out.zarr"), NEW, overwrite=overwrite)
    named = events.index("named ")
    assert events[named:] == ["named ", "synced", *["removed"] * overwrite]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_no_shard_and_no_partial_file(
    location: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    volume = reopen_for_writing(location)
    where: object = os if step == "fsync" else Path
    monkeypatch.setattr(where, step, fail)
    shard = Box((0, 0, 0), NEW.shard)  # of several, the others might still be under way
    with pytest.raises(OSError, match="disk full"):
        volume.write(shard, VALUES[shard.slices])
    assert shard_files(location) == []
    assert volume.missing(blocks())[0] == 0


@pytest.fixture
def removals(location: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many times, another command goes on with the output while a file is being written."""
    fsync = os.fsync

    def begin(times: int) -> None:
        left = iter(range(times))

        def meanwhile(descriptor: int) -> None:
            fsync(descriptor)
            if partial_files(location) and next(left, None) is not None:
                remove_partial_files(location)

        monkeypatch.setattr(os, "fsync", meanwhile)

    return begin


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_a_write_whose_partial_file_another_command_removes_is_made_again(
    location: str, removals: Callable[[int], None], times: int
) -> None:
    removals(times)
    fill(reopen_for_writing(location), VALUES)
    np.testing.assert_array_equal(open_volume(location).read(WHOLE), VALUES)
    assert open_volume(location).missing(blocks()) == []
    assert partial_files(location) == []


def test_a_write_whose_partial_file_is_always_removed_comes_to_an_end(
    location: str, removals: Callable[[int], None]
) -> None:
    removals(10**9)
    with pytest.raises(FileNotFoundError):
        write_durably(Path(location, "0", "c", "file"), b"data")
    assert list(Path(location, "0", "c").iterdir()) == []


def test_a_write_does_not_bring_back_a_folder_that_was_removed(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: shutil.rmtree(location))
    with pytest.raises(FileNotFoundError):
        write_durably(Path(location, "0", "c", "file"), b"data")
    assert not Path(location).exists()


def test_an_exclusive_write_leaves_a_file_that_is_there_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_durably(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


KILLED = r"""
import os, sys, threading
import numpy as np
from tilenet.networks.tiles import BlockGrid
from tilenet.volumes.volume import reopen_for_writing

def hang(descriptor):
    os.write(1, b"ready\n")  # at once, also where two threads come here together
    threading.Event().wait()

volume = reopen_for_writing(sys.argv[1])
first, second = BlockGrid(volume.shape, (4, 32, 32))[:2]
volume.write(first, np.ones(first.shape, np.uint8))
os.fsync = hang
volume.write(second, np.ones(second.shape, np.uint8))
"""


def test_a_kill_inside_a_shard_write_leaves_nothing_that_counts_as_done(location: str) -> None:
    command = [sys.executable, "-c", KILLED, location]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        child.kill()
    assert line == "ready\n"
    grid, volume = blocks(), open_volume(location)
    assert grid.block_shape == BLOCK
    assert volume.missing(grid) == list(range(1, len(grid)))
    assert partial_files(location), "it was killed in the middle of the write"
    stored = shard_files(location)
    assert len([path for path in stored if path.suffix != ".partial"]) == 2

    assert remove_partial_files(location) == len(stored) - 2
    assert len(shard_files(location)) == 2
    assert remove_partial_files(location) == 0
    fill(reopen_for_writing(location), VALUES)
    np.testing.assert_array_equal(open_volume(location).read(WHOLE), VALUES)


def test_partial_files_elsewhere_are_left_alone(location: str) -> None:
    other = Path(location).with_name("other.partial")
    other.write_text("precious")
    assert remove_partial_files(location) == 0
    assert remove_partial_files("memory://nothing") == 0
    assert other.exists()


# -- which blocks are there --------------------------------------------------------------------


def test_blocks_that_are_all_zero_are_stored_and_count_as_done(location: str) -> None:
    fill(reopen_for_writing(location), np.zeros(NEW.shape, np.uint8))
    assert open_volume(location).missing(blocks()) == []
    assert len(shard_files(location)) == 2 * 4 * 3


def test_missing_blocks_are_those_not_yet_written(location: str) -> None:
    volume, grid = reopen_for_writing(location), blocks()
    assert volume.missing(grid) == list(range(len(grid)))
    for i in (0, 5, len(grid) - 1):
        volume.write(grid[i], VALUES[grid[i].slices])
    assert volume.missing(grid) == [i for i in range(len(grid)) if i not in (0, 5, len(grid) - 1)]
    assert volume.missing(grid[4:7]) == [0, 2]


def shards_of(box: Box, channels: int) -> set[str]:
    """The dumb way: the shard of every voxel, as a path below the array."""
    grid = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box.slices), indexing="ij"))
    cells = np.unique(grid.reshape(3, -1) // np.reshape(NEW.shard, (3, 1)), axis=1).T
    paths = {"/".join(map(str, cell)) for cell in cells}
    if not channels:
        return {f"c/{path}" for path in paths}
    return {f"c/{channel}/{path}" for channel in range(channels) for path in paths}


@settings(max_examples=12)
@given(names=st.sampled_from([None, ("a", "b")]), data=st.data())
def test_missing_is_what_a_look_at_every_file_says(
    tmp_path_factory: pytest.TempPathFactory, names: tuple[str, ...] | None, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("missing") / "out.zarr"
    create_volume(str(root), replace(NEW, channels=names))
    channels = len(names or ())
    every = sorted(shards_of(WHOLE, channels))
    stored = data.draw(st.sets(st.sampled_from(every))) | set(data.draw(st.sampled_from(
        [[], every, every[1:], every[:-1]]
    )))  # fmt: skip
    for path in stored:
        (root / "0" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "0" / path).touch()
    grid = blocks()
    expected = [i for i, box in enumerate(grid) if not shards_of(box, channels) <= stored]
    assert open_volume(str(root)).missing(grid) == expected


# -- damage is found, never passed on ----------------------------------------------------------


def one_shard(path: Path, codec: str) -> Path:
    """A volume of one shard of noise, in which every byte matters; its file."""
    new = NewVolume(
        shape=(4, 32, 32), dtype="uint8", chunk=(2, 16, 32), shard=(4, 32, 32),
        codec=codec, attributes={},
    )  # fmt: skip
    create_volume(str(path), new)
    reopen_for_writing(str(path)).write(Box.of_shape(new.shape), noise(new.shape))
    return path / "0/c/0/0/0"


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, codec: str) -> None:
    # Read in part, as blocks with a halo are: zarrs checks some checksums of whole shards only.
    shard = one_shard(tmp_path / "x.zarr", codec)
    raw, box = shard.read_bytes(), Box((1, 2, 3), (4, 30, 31))
    for position in np.linspace(0, len(raw) - 1, 25).astype(int):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << int(position % 8)
        shard.write_bytes(damaged)
        if codec == "gzip" and position < 10:
            continue  # a time stamp and the like: the voxels are whole
        with pytest.raises(UnreadableBlock) as caught:
            open_volume(str(tmp_path / "x.zarr")).read(box)
        assert str(caught.value).startswith(f"{tmp_path / 'x.zarr'}: cannot read {box}: ")
    shard.write_bytes(raw)
    open_volume(str(tmp_path / "x.zarr")).read(box)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_shard_is_found(tmp_path: Path, codec: str, share: float) -> None:
    shard = one_shard(tmp_path / "x.zarr", codec)
    raw, box = shard.read_bytes(), Box((0, 0, 0), (4, 32, 32))
    shard.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(UnreadableBlock, match=str(box)):
        open_volume(str(tmp_path / "x.zarr")).read(box)


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_an_empty_shard_is_found(tmp_path: Path, codec: str) -> None:
    # What a power cut leaves of a file that was renamed and not synced.
    one_shard(tmp_path / "x.zarr", codec).write_bytes(b"")
    with pytest.raises(UnreadableBlock):
        open_volume(str(tmp_path / "x.zarr")).read(Box((0, 0, 0), (4, 32, 32)))


def test_damage_spoils_only_the_blocks_that_hold_it(location: str) -> None:
    fill(reopen_for_writing(location), VALUES)
    shard_files(location)[0].write_bytes(b"rubbish")
    volume, grid = open_volume(location), blocks()
    for i, box in enumerate(grid):
        if i == 0:
            with pytest.raises(UnreadableBlock):
                volume.read(box)
        else:
            np.testing.assert_array_equal(volume.read(box), VALUES[box.slices])


def test_all_of_a_small_file_is_on_the_disk_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python keeps a few kilobytes back until a file is flushed, and what it keeps is not synced.
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_durably(tmp_path / "file", b"data")
    assert sizes[0] == len(b"data")


def test_a_creation_removes_only_what_a_killed_one_of_its_name_left_long_ago(
    tmp_path: Path,
) -> None:
    target = tmp_path / "em[12].zarr"  # which as a pattern means em1.zarr
    killed, others, begun = (
        tmp_path / f"{name}.partial" for name in ("em[12].zarr.a", "em1.zarr.b", "em[12].zarr.c")
    )
    for folder in (killed, others, begun):
        folder.mkdir()
    for folder in (killed, others):
        os.utime(folder, (1e9, 1e9))
    create_volume(str(target), NEW)
    assert {path.name for path in tmp_path.iterdir()} == {others.name, begun.name, target.name}
