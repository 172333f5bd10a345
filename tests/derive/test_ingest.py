"""What ``ingest`` stores: channels, a region, another type, positions; what it refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from pipelines.cluster import ClusterOptions
from pipelines.derive.ingest import IngestOptions, run_ingest
from pipelines.derive.ingest import ingest as command
from pipelines.outputs import problems
from pipelines.verify.command import run_verify
from pipelines.verify.recompute import Basis
from tests.volumes.test_volume_open import write_image
from tilenet.errors import AmbiguousVolume, RegionOutside, ResumeRefused
from tilenet.formats import open_source
from tilenet.geometry import Box
from tilenet.volumes import Volume, VolumeReference, open_volume

LOCAL = ClusterOptions(workers=1, slots=1, memory=2 * 2**30)
SHAPE = (6, 20, 36)
OPENING = ("axes", "channel", "series", "missing")
SIZES: dict[str, Any] = {"chunk": (2, 8, 16), "shard": (4, 16, 16)}
TRUTH = np.random.default_rng(3).integers(0, 256, (2, *SHAPE)).astype(np.uint8)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(None)
    )


def ingest(source: Path, output: Path, **options: Any) -> Volume:
    given = {name: options.pop(name) for name in OPENING if name in options}
    opened = open_source(str(source), **given)
    run_ingest(opened, str(output), IngestOptions(**SIZES, **options), LOCAL).finish()
    return open_volume(str(output))


def stored(volume: Volume) -> npt.NDArray[Any]:
    return volume.read(Box.of_shape(volume.shape))


def npy(folder: Path, values: npt.NDArray[Any]) -> Path:
    np.save(folder / "em.npy", values)
    return folder / "em.npy"


# -- channels -----------------------------------------------------------------------------------


def test_channels_are_stored_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "em.ome.tif"
    metadata = {"axes": "CZYX", "Channel": {"Name": ["SE", "BSE"]}}
    tifffile.imwrite(path, TRUTH, ome=True, photometric="minisblack", metadata=metadata)
    volume = ingest(path, tmp_path / "em.zarr")
    assert volume.channels == 2
    assert volume.layout.channel_names == ("SE", "BSE")
    np.testing.assert_array_equal(stored(volume), TRUTH)
    assert problems(volume) == []
    np.testing.assert_array_equal(stored(ingest(path, tmp_path / "one.zarr", channel=1)), TRUTH[1])


def test_a_volume_of_channels_goes_on_and_is_verified(tmp_path: Path) -> None:
    source = npy(tmp_path, TRUTH)
    output = tmp_path / "em.zarr"
    ingest(source, output, axes="czyx")
    lost = output / "0/c/1/1/1/2"
    before = lost.read_bytes()
    lost.unlink()
    np.testing.assert_array_equal(stored(ingest(source, output, axes="czyx")), TRUTH)
    assert lost.read_bytes() == before
    for channel, sound in ((None, True), (0, False)):
        basis = Basis(source=VolumeReference(str(source), axes="czyx", channel=channel))
        report = run_verify(str(output), basis=basis, cluster=LOCAL)
        assert (report.flaws == []) == sound
    with pytest.raises(ResumeRefused, match=r"source\.channel"):
        ingest(source, output, axes="czyx", channel=0)


# -- sections and images of TIFF files ----------------------------------------------------------


def sections(folder: Path, numbers: tuple[int, ...]) -> Path:
    (folder / "sections").mkdir()
    for number in numbers:
        tifffile.imwrite(folder / "sections" / f"s{number}.tif", TRUTH[0, number])
    return folder / "sections"


@pytest.mark.parametrize(
    ("missing", "read"), [("skip", [0, 1, 4]), ("repeat", [0, 1, 1, 1, 4]), ("blank", [0, 1, 4])]
)
def test_missing_sections_are_stored_as_told_and_verified(
    tmp_path: Path, missing: str, read: list[int]
) -> None:
    source, output = sections(tmp_path, (0, 1, 4)), tmp_path / "em.zarr"
    with pytest.raises(AmbiguousVolume, match="missing: 2 to 3"):
        ingest(source, output)
    values = stored(ingest(source, output, missing=missing))
    expected = TRUTH[0, read] if missing != "blank" else np.zeros((5, *SHAPE[1:]), np.uint8)
    if missing == "blank":
        expected[[0, 1, 4]] = TRUTH[0, read]
    np.testing.assert_array_equal(values, expected)
    basis = Basis(source=VolumeReference(str(source)))
    assert run_verify(str(output), basis=basis, cluster=LOCAL).flaws == []
    if missing != "skip":
        with pytest.raises(ResumeRefused, match=r"source\."):
            ingest(source, output, missing="blank" if missing == "repeat" else "repeat")
    tifffile.imwrite(source / "s2.tif", TRUTH[0, 2])
    assert run_verify(str(output), basis=basis, cluster=LOCAL).flaws != []


def test_one_of_several_images_is_stored_and_verified(tmp_path: Path) -> None:
    source, output = tmp_path / "em.tif", tmp_path / "em.zarr"
    with tifffile.TiffWriter(source) as file:
        file.write(TRUTH[0, :, :4, :4], photometric="minisblack")
        file.write(TRUTH[0], photometric="minisblack")
    np.testing.assert_array_equal(stored(ingest(source, output, series=1)), TRUTH[0])
    basis = Basis(source=VolumeReference(str(source)))
    assert run_verify(str(output), basis=basis, cluster=LOCAL).flaws == []
    with pytest.raises(ResumeRefused, match=r"source\.series"):
        ingest(source, output, series=0)


def test_the_command_hands_on_series_and_missing(tmp_path: Path) -> None:
    source = sections(tmp_path, (0, 1, 4))
    for given, match in ((["--series", "3"], "has no image 3"), ([], "missing: 2 to 3")):
        called = CliRunner().invoke(command, [str(source), f"{tmp_path}/em.zarr", *given])
        assert isinstance(called.exception, AmbiguousVolume)
        assert match in str(called.exception)
    given = ["--missing", "blank", "--level", "0"]
    called = CliRunner().invoke(command, [str(source), f"{tmp_path}/em.zarr", *given])
    assert "has no pyramid level" in str(called.exception)


# -- regions and positions ----------------------------------------------------------------------

REGION = ((1, 6), (3, None), (0, 30))
PART = TRUTH[0, 1:6, 3:, :30]


def placed(folder: Path) -> Path:
    group = write_image(folder / "in.zarr", {"0": TRUTH[0]}, scales=[(40.0, 8.0, 4.0)])
    image: Any = group.attrs["multiscales"]
    move = {"type": "translation", "translation": [400.0, 80.0, -40.0]}
    image[0]["datasets"][0]["coordinateTransformations"].append(move)
    group.attrs["multiscales"] = image
    return folder / "in.zarr"


def test_the_position_of_the_source_is_kept(tmp_path: Path) -> None:
    volume = ingest(placed(tmp_path), tmp_path / "out.zarr")
    assert volume.voxel_size == (40.0, 8.0, 4.0)
    assert volume.translation == (400.0, 80.0, -40.0)


def test_a_region_is_stored_where_it_lies(tmp_path: Path) -> None:
    volume = ingest(placed(tmp_path), tmp_path / "out.zarr", region=REGION)
    np.testing.assert_array_equal(stored(volume), PART)
    assert volume.translation == (440.0, 104.0, -40.0)
    assert problems(volume) == []
    basis = Basis(source=VolumeReference(str(tmp_path / "in.zarr")))
    assert run_verify(str(tmp_path / "out.zarr"), basis=basis, cluster=LOCAL).flaws == []


def test_a_region_of_a_file_is_placed_by_the_voxel_size_that_is_given(tmp_path: Path) -> None:
    source = npy(tmp_path, TRUTH)
    options: dict[str, Any] = {"axes": "czyx", "region": REGION, "voxel_size": (40.0, 8.0, 4.0)}
    volume = ingest(source, tmp_path / "out.zarr", **options)
    np.testing.assert_array_equal(stored(volume), TRUTH[:, 1:6, 3:, :30])
    assert volume.translation == (40.0, 24.0, 0.0)


def test_a_position_that_cannot_be_stored_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(npy(tmp_path, TRUTH[0]), tmp_path / "out.zarr", region=REGION)
    assert "out.zarr: Its position is not stored" in capsys.readouterr().err


def test_another_region_is_refused(tmp_path: Path) -> None:
    source, output = npy(tmp_path, TRUTH[0]), tmp_path / "out.zarr"
    ingest(source, output, region=REGION)
    np.testing.assert_array_equal(stored(ingest(source, output, region=REGION)), PART)
    # Of the same shape, so that the region alone tells them apart.
    for region in (((0, 5), *REGION[1:]), None):
        with pytest.raises(ResumeRefused, match="region"):
            ingest(source, output, region=region)
    with pytest.raises(RegionOutside):
        ingest(source, tmp_path / "other.zarr", region=((0, 7), (0, None), (0, None)))
    whole = ingest(source, tmp_path / "whole.zarr")
    again = ingest(source, tmp_path / "whole.zarr", region=((0, 6), (0, None), (0, None)))
    assert whole.attributes == again.attributes


def test_an_output_begun_without_its_position_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = placed(tmp_path), tmp_path / "out.zarr"
    ingest(source, output)
    group = zarr.open_group(output, mode="r+")
    ome: Any = group.attrs["ome"]
    dataset = ome["multiscales"][0]["datasets"][0]
    dataset["coordinateTransformations"] = dataset["coordinateTransformations"][:1]
    group.attrs["ome"] = ome
    np.testing.assert_array_equal(stored(ingest(source, output)), TRUTH[0])
    said = "begun without the position of its source, z 400, y 80, x -40 nm"
    assert said in capsys.readouterr().err


def test_an_output_at_another_position_is_refused(tmp_path: Path) -> None:
    ingest(placed(tmp_path), tmp_path / "out.zarr")
    group = zarr.open_group(tmp_path / "in.zarr", mode="r+")
    image: Any = group.attrs["multiscales"]
    image[0]["datasets"][0]["coordinateTransformations"][1]["translation"][0] = 401.0
    group.attrs["multiscales"] = image
    with pytest.raises(ResumeRefused, match="translation"):
        ingest(tmp_path / "in.zarr", tmp_path / "out.zarr")


# -- types --------------------------------------------------------------------------------------


def test_values_are_stored_as_another_type(tmp_path: Path) -> None:
    volume = ingest(npy(tmp_path, TRUTH[0].astype(">f4")), tmp_path / "out.zarr", dtype="uint8")
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(stored(volume), TRUTH[0])
    assert problems(volume) == []


def test_another_type_is_another_output(tmp_path: Path) -> None:
    source, output = npy(tmp_path, TRUTH[0]), tmp_path / "out.zarr"
    ingest(source, output, dtype="uint16")
    for dtype in ("int16", None):
        with pytest.raises(ResumeRefused, match="dtype"):
            ingest(source, output, dtype=dtype)
