"""Creating volumes and writing blocks: what is written is read, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import Image

from tilenet.errors import InvalidData, OutputExists, UnreadableVolume
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.volumes import (
    CODECS,
    NewVolume,
    Volume,
    create_volume,
    identify,
    open_volume,
    reopen_for_writing,
)

#: Nothing divides anything.
NEW = NewVolume(
    shape=(5, 50, 70),
    dtype="uint8",
    chunk=(2, 8, 16),
    shard=(4, 16, 32),
    voxel_size=(50.0, 4.0, 4.5),
    attributes={"kind": "test", "nested": {"numbers": [1, 2]}},
)

#: One block is two shards along y.
BLOCK = (4, 32, 32)

WHOLE = Box.of_shape(NEW.shape)


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> npt.NDArray[Any]:
    """Values that no codec makes smaller."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def blocks(shape: ZYX = NEW.shape) -> BlockGrid:
    return BlockGrid(shape, BLOCK)


def fill(volume: Volume, values: npt.NDArray[Any]) -> None:
    """Write block after block, as tasks do."""
    for box in blocks(volume.shape):
        volume.write(box, values[(..., *box.slices)])


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "out.zarr")


# -- what is written is read -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("channels", [None, ("one",), ("membrane", "interior", "glia")])
def test_blocks_come_back_bit_for_bit(
    location: str, dtype: str, channels: tuple[str, ...] | None
) -> None:
    create_volume(location, dataclasses.replace(NEW, dtype=dtype, channels=channels))
    values = noise((*([len(channels)] if channels else []), *NEW.shape), dtype)
    fill(reopen_for_writing(location), values)
    volume = open_volume(location)
    several = channels is not None and len(channels) > 1
    assert volume.channels == (len(channels or ()) if several else None)
    read = volume.read(WHOLE)
    assert read.dtype == dtype
    assert read.tobytes() == values.tobytes()
    inner = Box((1, 3, 30), (5, 49, 70))
    expected = values[(..., *inner.slices)]
    np.testing.assert_array_equal(volume.read(inner), expected if several else expected.reshape(
        inner.shape
    ))  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 32), (4, 17, 1), (9, 5, 100)])
def test_volumes_of_any_size(location: str, shape: ZYX) -> None:
    create_volume(location, dataclasses.replace(NEW, shape=shape))
    values = noise(shape)
    fill(reopen_for_writing(location), values)
    np.testing.assert_array_equal(open_volume(location).read(Box.of_shape(shape)), values)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
@pytest.mark.parametrize("codec", [*CODECS, "numcodecs.lz4", "numcodecs.bz2"])
def test_every_codec(location: str, codec: str) -> None:
    create_volume(location, dataclasses.replace(NEW, codec=codec))
    values = noise(NEW.shape)
    fill(reopen_for_writing(location), values)
    np.testing.assert_array_equal(open_volume(location).read(WHOLE), values)


def test_a_created_volume_says_what_it_is(location: str) -> None:
    creation = create_volume(location, NEW)
    volume = open_volume(location)
    assert (volume.shape, str(volume.dtype), volume.channels) == (NEW.shape, "uint8", None)
    assert (volume.chunk_shape, volume.write_shape) == (NEW.chunk, NEW.shard)
    assert volume.voxel_size == NEW.voxel_size
    assert volume.attributes == {**NEW.attributes, "creation": creation}
    assert not volume.read(WHOLE).any()


def test_each_channel_has_shards_of_its_own(location: str) -> None:
    create_volume(location, dataclasses.replace(NEW, channels=("a", "b")))
    array = open_volume(location).array
    assert array.shards == (1, *NEW.shard)
    assert array.chunks == (1, *NEW.chunk)


@pytest.mark.parametrize("channels", [None, ("membrane", "interior")])
@pytest.mark.parametrize("voxel_size", [None, (50.0, 4.0, 4.0)])
@pytest.mark.parametrize("translation", [None, (0.0, 0.0, 0.0), (100.0, 0.0, 8.0)])
def test_the_metadata_obey_the_specification(
    location: str, channels: Any, voxel_size: Any, translation: Any
) -> None:
    new = dataclasses.replace(
        NEW, channels=channels, voxel_size=voxel_size, translation=translation
    )
    create_volume(location, new)
    image = open_ome_zarr(zarr.open_group(location, mode="r"))
    assert isinstance(image, Image)
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == [*("c" if channels else ""), *"zyx"]
    assert multiscale.datasets[0].path == "0"
    volume = open_volume(location)
    assert volume.voxel_size == voxel_size
    if voxel_size is not None:
        assert volume.translation == translation


def test_a_volume_may_lie_in_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    location = str(tmp_path / "a" / "b" / "out.zarr")
    create_volume(location, NEW)
    assert open_volume(location).shape == NEW.shape


# -- what is there already ---------------------------------------------------------------------


def _file(path: Path) -> None:
    path.write_text("precious")


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("precious")


def _array(path: Path) -> None:
    zarr.create_array(str(path), shape=(4,), chunks=(2,), dtype="u1")


def _group(path: Path) -> None:
    zarr.create_group(str(path)).create_array("raw", shape=(4,), chunks=(2,), dtype="u1")


NOT_OURS: dict[str, Callable[[Path], object]] = {
    "a file": _file,
    "a folder that is not Zarr": _folder,
    "an empty folder": Path.mkdir,
}
ZARRS: dict[str, Callable[[Path], object]] = {"a Zarr array": _array, "a Zarr group": _group}


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("found", [*NOT_OURS, *ZARRS])
def test_what_is_there_is_not_touched(location: str, found: str) -> None:
    {**NOT_OURS, **ZARRS}[found](Path(location))
    before = contents(Path(location).parent)
    with pytest.raises(OutputExists, match=f"{location} exists and is {found}"):
        create_volume(location, NEW)
    assert contents(Path(location).parent) == before


@pytest.mark.parametrize("found", NOT_OURS)
def test_overwriting_never_touches_what_is_not_zarr(location: str, found: str) -> None:
    NOT_OURS[found](Path(location))
    before = contents(Path(location).parent)
    with pytest.raises(OutputExists, match=found) as caught:
        create_volume(location, NEW, overwrite=True)
    assert "--overwrite" not in str(caught.value), "which would not help"
    assert contents(Path(location).parent) == before


def replace_creation(location: str) -> None:
    """Give a volume a creation id that is the same for all."""
    metadata = Path(location) / "zarr.json"
    creation = open_volume(location).creation
    assert creation is not None
    metadata.write_text(metadata.read_text().replace(creation, "same"))


@pytest.mark.parametrize("found", ZARRS)
def test_overwriting_replaces_a_zarr_and_leaves_nothing_of_it(location: str, found: str) -> None:
    ZARRS[found](Path(location))
    create_volume(location, NEW, overwrite=True)
    fresh = str(Path(location).parent / "fresh" / "out.zarr")
    create_volume(fresh, NEW)
    for path in (location, fresh):  # alike but for the random id
        replace_creation(path)
    assert contents(Path(location)) == contents(Path(fresh))
    assert {path.name for path in Path(location).parent.iterdir()} == {"out.zarr", "fresh"}


@pytest.mark.parametrize("step", [(zarr.Group, "create_array"), (zarr.core.attributes.Attributes,
                                                                "put")])  # fmt: skip
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_creation_that_fails_leaves_everything_as_it_was(
    location: str, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], overwrite: bool
) -> None:
    if overwrite:
        _group(Path(location))
    before = contents(Path(location).parent)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(*step, fail)
    with pytest.raises(UnreadableVolume, match="cannot be created: disk full"):
        create_volume(location, NEW, overwrite=overwrite)
    assert contents(Path(location).parent) == before


@pytest.mark.parametrize("codec", ["zip", "numcodecs.nothing", "numcodecs.delta"])
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_an_unknown_codec_is_refused_and_leaves_nothing(location: str, codec: str) -> None:
    with pytest.raises(InvalidData, match=rf"Codec '{codec}': is not known.*zstd.*gzip"):
        create_volume(location, dataclasses.replace(NEW, codec=codec))
    assert contents(Path(location).parent) == {}


# -- URLs --------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path}/out.zarr"
    fsspec.filesystem("memory").rm(str(tmp_path), recursive=True)


def test_a_volume_behind_a_url(url: str) -> None:
    create_volume(url, NEW)
    volume, values = reopen_for_writing(url), noise(NEW.shape)
    assert volume.missing(blocks()) == list(range(len(blocks())))
    fill(volume, values)
    assert volume.missing(blocks()) == []
    np.testing.assert_array_equal(open_volume(url).read(WHOLE), values)


def test_a_zarr_behind_a_url_is_replaced_only_on_demand(url: str) -> None:
    create_volume(url, NEW)
    fill(reopen_for_writing(url), noise(NEW.shape))
    with pytest.raises(OutputExists, match="is a Zarr group"):
        create_volume(url, NEW)
    create_volume(url, NEW, overwrite=True)
    assert len(open_volume(url).missing(blocks())) == len(blocks())


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_behind_a_url_that_are_not_zarr_are_never_deleted(url: str, overwrite: bool) -> None:
    fsspec.filesystem("memory").pipe(f"{url}/notes.txt", b"precious")
    with pytest.raises(OutputExists, match="is a folder that is not Zarr"):
        create_volume(url, NEW, overwrite=overwrite)
    assert fsspec.filesystem("memory").cat(f"{url}/notes.txt") == b"precious"


# -- recognising an input ----------------------------------------------------------------------


def made(location: str, values: npt.NDArray[Any], **changes: Any) -> Volume:
    new = dataclasses.replace(NEW, dtype=str(values.dtype), shape=values.shape, **changes)
    create_volume(location, new)
    fill(reopen_for_writing(location), values)
    return open_volume(location)


def test_identity_does_not_depend_on_the_place(tmp_path: Path) -> None:
    volume = made(str(tmp_path / "a.zarr"), noise(NEW.shape))
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "deep" / "b")
    assert identify(open_volume(str(tmp_path / "deep" / "b"))) == identify(volume)


def test_identity_tells_other_content_other_shapes_and_other_types(tmp_path: Path) -> None:
    smooth = np.zeros(NEW.shape, np.uint8)
    smooth[:, 25:] = noise((5, 25, 70))
    contents_of = {
        "noise": noise(NEW.shape),
        "half": smooth,
        "cut": noise((5, 50, 69)),
        "wide": noise(NEW.shape, "uint16"),
        "float": noise(NEW.shape, "float16"),
    }
    found = [identify(made(str(tmp_path / n), v)) for n, v in contents_of.items()]
    found.append(identify(made(str(tmp_path / "chunks"), noise(NEW.shape), chunk=(4, 8, 16))))
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_identity_tells_a_volume_with_a_shard_missing(location: str) -> None:
    volume = made(location, noise(NEW.shape))
    before = identify(volume)
    (Path(location) / "0/c/1/3/2").unlink()
    assert identify(volume) != before


def test_identity_tells_channels_apart(location: str) -> None:
    create_volume(location, dataclasses.replace(NEW, channels=("a", "b")))
    first, second = (identify(open_volume(location, channel=i)) for i in range(2))
    assert first != second
