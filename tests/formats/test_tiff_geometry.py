"""Voxel sizes and positions that TIFF files state, in every unit, or a word about them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tilenet.formats import Source, open_source
from tilenet.geometry import Box

VALUES = np.arange(7 * 9 * 11, dtype=np.uint8).reshape(7, 9, 11)


WITHOUT_DEPTH = (
    "Its voxel size is stated in part and is not used: y 6, x 4 nm, not z; give --voxel-size Z,6,4."
)


def imagej(folder: Path, *, resolution: tuple[float, float], **metadata: Any) -> Source:
    path = folder / "em.tif"
    metadata = {"axes": "ZYX", **metadata}
    tifffile.imwrite(path, VALUES, imagej=True, resolution=resolution, metadata=metadata)
    return open_source(str(path))


def ome(folder: Path, **metadata: Any) -> Source:
    path = folder / "em.ome.tif"
    tifffile.imwrite(path, VALUES, ome=True, metadata={"axes": "ZYX", **metadata})
    return open_source(str(path))


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"unit": "nm", "zunit": "micron"}, (50.0, 6.0, 4.0)),
        ({"unit": "nm", "yunit": "um", "zunit": "mm"}, (5e4, 6000.0, 4.0)),
        ({"unit": "\\u00B5m"}, (50.0, 6000.0, 4000.0)),
        ({"unit": "micron", "zunit": "nm"}, (0.05, 6000.0, 4000.0)),
        ({"unit": "cm", "yunit": "nm", "zunit": "nm"}, (0.05, 6.0, 4e7)),
        ({"unit": "\\u00C5"}, (0.005, 0.6, 0.4)),
    ],
)
def test_every_axis_of_imagej_has_its_unit(
    tmp_path: Path, units: dict[str, str], expected: tuple[float, float, float]
) -> None:
    source = imagej(tmp_path, resolution=(1 / 4, 1 / 6), spacing=0.05, **units)
    assert source.voxel_size == pytest.approx(expected)
    assert source.translation is None
    assert source.notes == ()


def test_imagej_takes_a_spacing_below_zero_for_one_above(tmp_path: Path) -> None:
    source = imagej(tmp_path, resolution=(1 / 4, 1 / 6), spacing=-50, unit="nm")
    assert source.voxel_size == (50.0, 6.0, 4.0)


@pytest.mark.parametrize(
    ("stated", "notes"),
    [
        ({"unit": "pixel", "spacing": 2}, []),
        ({"spacing": 2}, []),
        (
            {"unit": "parsec", "spacing": 2},
            [f'Its voxel size along {a} is in "parsec", a unit that is not known.' for a in "zyx"],
        ),
        (
            {"unit": "nm", "zunit": "lines", "spacing": 2},
            [
                'Its voxel size along z is in "lines", a unit that is not known.',
                WITHOUT_DEPTH,
            ],
        ),
        ({"unit": "nm"}, [WITHOUT_DEPTH]),  # Fiji writes no spacing where it is 1
    ],
)
def test_a_voxel_size_of_imagej_that_is_not_whole_is_said(
    tmp_path: Path, stated: dict[str, Any], notes: list[str]
) -> None:
    source = imagej(tmp_path, resolution=(1 / 4, 1 / 6), **stated)
    assert source.voxel_size is None
    assert list(source.notes) == notes


def test_inches_may_be_those_of_a_screen(tmp_path: Path) -> None:
    for unit in ("inch", "inches", "in"):
        source = imagej(tmp_path, resolution=(72, 72), unit=unit, spacing=1, xorigin=5)
        assert source.voxel_size is None
        assert source.translation is None
        assert ["dots of a screen; it is not used" in note for note in source.notes] == [True]
    tifffile.imwrite(
        tmp_path / "2d.tif", VALUES[0], imagej=True, resolution=(72, 72), metadata={"unit": "inch"}
    )
    assert open_source(str(tmp_path / "2d.tif")).voxel_size is None


def test_the_origin_of_imagej_is_the_voxel_at_zero(tmp_path: Path) -> None:
    stated = {"spacing": 50, "unit": "nm", "xorigin": 100, "zorigin": -3.5}
    source = imagej(tmp_path, resolution=(1 / 4, 1 / 6), **stated)
    assert source.translation == (175.0, 0.0, -400.0)
    assert source.notes == ()
    upward = imagej(tmp_path, resolution=(1 / 4, 1 / 6), inverty=True, **stated)
    assert upward.translation is None
    assert "position with y upward" in upward.notes[0]


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (("nm", "nm", "nm"), (50.0, 6.0, 4.0)),
        (("\u00b5m", "nm", "pm"), (5e4, 6.0, 0.004)),
        ((None, "\u00c5", "mm"), (5e4, 0.6, 4e6)),
    ],
)
def test_every_axis_of_ome_has_its_unit(
    tmp_path: Path, units: tuple[str | None, ...], expected: tuple[float, float, float]
) -> None:
    stated = {f"PhysicalSize{axis}": n for axis, n in zip("ZYX", (50, 6, 4), strict=True)}
    named = {f"PhysicalSize{axis}Unit": u for axis, u in zip("ZYX", units, strict=True) if u}
    source = ome(tmp_path, **stated, **named)
    assert source.voxel_size == pytest.approx(expected)
    assert source.notes == ()


def test_a_unit_of_ome_that_is_not_known_is_said(tmp_path: Path) -> None:
    sizes = {f"PhysicalSize{axis}": 4 for axis in "ZYX"}
    source = ome(tmp_path, **sizes, PhysicalSizeZUnit="li", PhysicalSizeXUnit="pixel")
    assert source.voxel_size is None
    assert source.notes == (
        'Its voxel size along z is in "li", a unit that is not known.',
        "Its voxel size is stated in part and is not used: y 4000 nm, not z, x.",
    )


def planes(unit: str | None, **positions: float) -> dict[str, Any]:
    """State positions of all planes, z rising by 50 from the first."""
    plane: dict[str, Any] = {f"Position{axis}": [n] * 7 for axis, n in positions.items()}
    if "Z" in positions:
        plane["PositionZ"] = [positions["Z"] + 50 * i for i in range(7)]
    if unit is not None:
        plane |= {f"Position{axis}Unit": [unit] * 7 for axis in positions}
    return {"Plane": plane}


def test_the_position_of_the_first_plane_of_ome_is_the_volume_s(tmp_path: Path) -> None:
    source = ome(tmp_path, **planes("nm", X=1234567.5, Y=-20, Z=300))
    assert source.translation == (300.0, -20.0, 1234567.5)
    assert source.notes == ()  # nothing is guessed
    assert ome(tmp_path, **planes("\u00b5m", X=0.0123, Y=0, Z=1)).translation == (1000.0, 0.0, 12.3)
    at_zero = ome(tmp_path, **planes("nm", X=0, Y=0, Z=0), PhysicalSizeX=4)
    assert at_zero.translation == (0.0, 0.0, 0.0)


def test_a_position_of_ome_in_no_unit_or_in_part_is_not_used(tmp_path: Path) -> None:
    nowhere = ome(tmp_path, **planes(None, X=5, Y=5, Z=5))  # the reference frame is OME's default
    assert nowhere.translation is None
    assert nowhere.notes == ()
    assert ome(tmp_path, **planes(None, X=0, Y=0, Z=0)).notes == ()
    in_part = ome(tmp_path, **planes("nm", X=5, Y=6))
    assert in_part.translation is None
    assert in_part.notes == ("Its position is stated in part and is not used: y 6, x 5 nm, not z.",)


def test_the_voxel_size_of_zeiss_lsm_is_in_metres(tmp_path: Path) -> None:
    # Sizes along x, y, z, of channels and time; type; thumbnail; voxel size x, y, z; origin.
    facts = struct.pack("<8i6d2H", 11, 9, 7, 1, 1, 1, 4, 4, 4e-9, 6e-9, 5e-8, 0, 0, 0, 0, 0)
    header = struct.pack("<II", 67127628, 8 + len(facts)) + facts
    path = tmp_path / "em.tif"
    with tifffile.TiffWriter(path) as file:
        for section in VALUES:
            tags = [(34412, 1, len(header), header, True)]
            file.write(section, metadata=None, contiguous=False, extratags=tags)
            file.write(section[:4, :4], metadata=None, contiguous=False, subfiletype=1)
    source = open_source(str(path))
    assert np.array_equal(source.read(Box((0, 0, 0), (7, 9, 11))), VALUES)
    assert source.voxel_size == (50.0, 6.0, 4.0)


def test_voxel_size_comes_from_imagej_and_ome(tmp_path: Path) -> None:
    location = str(tmp_path / "em.tif")
    pixels_per_micron = (1 / 0.004, 1 / 0.006)  # x, y
    metadata: dict[str, Any] = {"axes": "ZYX", "spacing": 0.05, "unit": "um"}
    options: dict[str, Any] = {"imagej": True, "resolution": pixels_per_micron}
    tifffile.imwrite(location, VALUES, **options, metadata=metadata)
    assert open_source(location).voxel_size == (50.0, 6.0, 4.0)
    assert open_source(location, axes="zxy").voxel_size is None
    without_unit = {"axes": "ZYX", "spacing": 0.05}
    tifffile.imwrite(location, VALUES, **options, metadata=without_unit)
    assert open_source(location).voxel_size is None
    stated = {"axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.006}
    tifffile.imwrite(location, VALUES, ome=True, metadata=stated)
    assert open_source(location).voxel_size is None
    complete = {**stated, "PhysicalSizeZ": 5e-5, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(location, VALUES, ome=True, metadata=complete)
    assert open_source(location).voxel_size == (50.0, 6.0, 4.0)
    tifffile.imwrite(location, VALUES, resolution=(72, 72), resolutionunit="INCH")
    assert open_source(location).voxel_size is None


def section(path: Path, values: Any, kind: str) -> str:
    """Write a section that states 6 and 4 nm along y and x, and nothing along z."""
    if kind == "imagej":
        stated = {"unit": "nm", "axes": "YX"}
        tifffile.imwrite(path, values, imagej=True, resolution=(1 / 4, 1 / 6), metadata=stated)
    else:
        sizes = {"PhysicalSizeY": 0.006, "PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm"}
        tifffile.imwrite(path, values, ome=True, metadata={"axes": "YX", **sizes})
    return str(path)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_any_size_along_z_serves_a_single_section_only(tmp_path: Path, kind: str) -> None:
    one = open_source(section(tmp_path / "0.tif", VALUES[0], kind))
    alone = open_source(str(tmp_path))
    assert one.voxel_size == alone.voxel_size == (1.0, 6.0, 4.0)  # as of a Zarr
    assert one.notes == alone.notes == ()
    for i in (1, 2):
        section(tmp_path / f"{i}.tif", VALUES[i], kind)
    stack = open_source(str(tmp_path))
    assert np.array_equal(stack.read(Box((0, 0, 0), (3, 9, 11))), VALUES[:3])
    assert stack.voxel_size is None
    assert stack.notes == (WITHOUT_DEPTH,)


def test_sections_that_are_called_channels_have_a_size_along_z(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    stated = {"unit": "nm", "axes": "CYX"}
    tifffile.imwrite(path, VALUES, imagej=True, resolution=(1 / 4, 1 / 6), metadata=stated)
    sections = open_source(str(path), axes="zyx")
    assert sections.voxel_size is None
    assert WITHOUT_DEPTH in sections.notes
    assert open_source(str(path), axes="cyx").voxel_size == (1.0, 6.0, 4.0)
    assert open_source(str(path), axes="cxy").voxel_size is None


@pytest.mark.parametrize(
    ("spacings", "said"),
    [
        ([50, 51, 52], "50 x 6 x 4, 51 x 6 x 4, 52 x 6 x 4 (nm)"),
        ([50, None, 50], "50 x 6 x 4, 6 x 4 (nm)"),
        ([1, 2, 3, 4, 5], "1 x 6 x 4, 2 x 6 x 4, 3 x 6 x 4, 4 x 6 x 4, ... (nm)"),
    ],
)
def test_files_that_state_different_voxel_sizes_are_said(
    tmp_path: Path, spacings: list[float | None], said: str
) -> None:
    for i, spacing in enumerate(spacings):
        stated = {"unit": "nm", "axes": "ZYX", **({"spacing": spacing} if spacing else {})}
        tifffile.imwrite(
            tmp_path / f"{i}.tif", VALUES, imagej=True, resolution=(1 / 4, 1 / 6), metadata=stated
        )
    source = open_source(str(tmp_path))
    assert source.voxel_size is None
    assert f"Its files state different voxel sizes: {said}; none is used." in source.notes
    tifffile.imwrite(tmp_path / "0.tif", VALUES)  # states nothing
    assert "different voxel sizes: none, " in open_source(str(tmp_path)).notes[-1]
