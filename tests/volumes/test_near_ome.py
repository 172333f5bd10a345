"""Metadata that are nearly OME-Zarr's: read with a note, at their right place and size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.geometry import Box
from tilenet.volumes import Volume, open_volume

#: No two axes have one size.
DATA = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)

NM = {"type": "space", "unit": "nanometer"}
AXES = [{"name": axis, **NM} for axis in "zyx"]


def scale(*numbers: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def translation(*numbers: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(numbers)}


def level(*transforms: Mapping[str, Any], path: str = "s0") -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": list(transforms)}


def image(axes: Any = AXES, *levels: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"axes": axes, "datasets": list(levels or [level(scale(50, 8, 4))]), **more}


def write(
    path: Path,
    multiscale: Mapping[str, Any],
    *,
    version: str = "0.5",
    values: np.ndarray[Any, Any] = DATA,
    names: str = "s0",
    **attributes: Any,
) -> str:
    """An image in Zarr v3 where the version is 0.5 or newer, else in v2."""
    newer = version >= "0.5"
    group = zarr.create_group(str(path), zarr_format=3 if newer else 2)
    for name in names.split():
        array = group.create_array(name, data=values, chunks=values.shape)
        array.attrs.update(attributes)
    if newer:
        group.attrs["ome"] = {"version": version, "multiscales": [dict(multiscale)]}
    else:
        group.attrs["multiscales"] = [{"version": version, **multiscale}]
    return str(path)


def check(volume: Volume, voxel_size: Any, position: Any, *words: str) -> None:
    """The volume is DATA, and each note has its words."""
    np.testing.assert_array_equal(volume.read(Box.of_shape(DATA.shape)), DATA)
    assert volume.voxel_size == (None if voxel_size is None else pytest.approx(voxel_size))
    assert volume.translation == (None if position is None else pytest.approx(position))
    assert len(volume.notes) == len(words), volume.notes
    for note, part in zip(volume.notes, words, strict=True):
        assert part in note
        assert note.endswith(".")


NEAR: dict[str, tuple[dict[str, Any], Any, Any, tuple[str, ...]]] = {
    "sound": (image(), (50, 8, 4), None, ()),
    "no transformations": (
        image(AXES, level()), None, None, ("level 's0' states no scale, so its voxel size",),
    ),
    "a level without the key": (image(AXES, {"path": "s0"}), None, None, ("states no scale",)),
    "sizes for three of four axes": (
        image([{"name": "c", "type": "channel"}, *AXES],
              level(scale(50, 8, 4), translation(1, 2, 3))),
        (50, 8, 4), (1, 2, 3),
        ("has 3 numbers for 4 axes: they are taken for z, y, x", "translation of level 's0' has 3"),
    ),
    "axes without a type": (
        image([{"name": axis, "unit": "nm"} for axis in "zyx"]),
        (50, 8, 4), None, ("axes z, y, x state no type",),
    ),
    "names alone, as in 0.3": (
        image(list("zyx")), None, None, ("axes.0: input should be a valid dictionary.",),
    ),
    "the translation first": (
        image(AXES, level(translation(1, 2, 3), scale(50, 8, 4))),
        (50, 8, 4), (50, 16, 12), ("translation before a scale: it is taken in steps",),
    ),
    "a scale of zero": (
        image(AXES, level(scale(0, 8, 4))), None, None, ("has the scale 0.0, 8.0, 4.0",),
    ),
    "a scale elsewhere": (
        image(AXES, level({"type": "scale", "path": "scales/0"})),
        None, None, ("is not stated in its",),
    ),
    "space before channels": (
        image([*AXES, {"name": "c", "type": "channel"}], level(scale(50, 8, 4, 1))),
        (50, 8, 4), None, ("all space axes must be at the end of the axes list",),
    ),
    "a scale of the whole": (
        image(AXES, level(scale(25, 2, 3), translation(1, 1, 1)),
              coordinateTransformations=[scale(2, 4, 1), translation(10, 20, 30)]),
        (50, 8, 3), (12, 24, 31), (),
    ),
    "a scale of the whole alone": (
        image(AXES, level(),
              coordinateTransformations=[scale(50, 8, 4), translation(10, 20, 30)]),
        (50, 8, 4), (10, 20, 30), ("datasets.0.coordinateTransformations",),
    ),
    "a scale of the whole, and no key": (
        image(AXES, {"path": "s0"}, coordinateTransformations=[scale(50, 8, 4)]),
        (50, 8, 4), None, ("datasets.0.coordinateTransformations",),
    ),
    "OpenOrganelle": (
        {"datasets": [{"path": "s0", "transform": {
            "axes": ["z", "y", "x"], "units": ["nm"] * 3,
            "scale": [5.24, 4.0, 2.0], "translate": [2.62, 2.0, 1.0]}}]},
        (5.24, 4, 2), (2.62, 2, 1), ("read from 'transform', as OpenOrganelle has it",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", NEAR)
def test_near_ome_zarr_is_read_and_said(tmp_path: Path, version: str, name: str) -> None:
    multiscale, voxel_size, position, words = NEAR[name]
    axes = "".join(
        axis if isinstance(axis, str) else axis["name"] for axis in multiscale.get("axes", "zyx")
    )
    values = DATA[None] if axes[0] == "c" else DATA[..., None] if axes[-1] == "c" else DATA
    path = write(tmp_path, multiscale, version=version, values=values)
    check(open_volume(path), voxel_size, position, *words)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
@pytest.mark.parametrize("ndim", [5, 3])
def test_versions_without_axes(tmp_path: Path, version: str, ndim: int) -> None:
    values = DATA.reshape((1,) * (ndim - 3) + DATA.shape)
    path = write(tmp_path, {"datasets": [{"path": "s0"}]}, version=version, values=values)
    assumed = "name no axes: t, c, z, y, x" if ndim == 5 else "name no axes: z, y, x"
    for location in (path, f"{path}/s0"):
        check(open_volume(location), None, None, assumed, "states no scale")


def test_axes_by_name_alone_in_another_order(tmp_path: Path) -> None:
    path = write(tmp_path, image(list("xyz"), {"path": "s0"}), version="0.3", values=DATA.T)
    check(open_volume(path), None, None, "states no scale")


SYSTEMS = [{"name": "physical", "axes": AXES}, {"name": "world", "axes": AXES[::-1]}]
INTO = {"input": {"path": "s0"}, "output": {"name": "physical"}}


@pytest.mark.parametrize("output", [{"name": "physical"}, "physical"])
def test_what_is_plain_of_a_newer_version_is_read(tmp_path: Path, output: Any) -> None:
    steps = [scale(50, 8, 4), translation(1, 2, 3)]
    whole = [{"type": "affine", "affine": [[1]], "input": "physical", "output": "world"}]
    multiscale = {
        "coordinateSystems": SYSTEMS[::-1],
        "datasets": [level({"type": "sequence", "transformations": steps, "output": output})],
        "coordinateTransformations": whole,
    }
    path = write(tmp_path, multiscale, version="0.6")
    check(open_volume(path), (50, 8, 4), (1, 2, 3), "OME-Zarr 0.6, newer than 0.5: only the scales")


NOT_PLAIN: dict[str, tuple[dict[str, Any], str]] = {
    "affine": (image(AXES, level({"type": "affine", "affine": [[1]]})), "of the type 'affine'"),
    "rotation": (
        {"coordinateSystems": SYSTEMS, "datasets": [level({"type": "rotation", **INTO})]},
        "of the type 'rotation', and only scales and translations are read",
    ),
    "sequences in sequences": (
        image(AXES, level({"type": "sequence", "transformations": [
            {"type": "sequence", "transformations": []}]})),
        "type 'sequence'",
    ),
    "two systems": (
        {"coordinateSystems": SYSTEMS, "datasets": [level(scale(1, 1, 1))]},
        "does not say which is the image's own",
    ),
    "two numbers": (image(AXES, level(scale(8, 4))), r"scale of level 's0', \[8, 4\], is not"),
    "a word": (image(AXES, level({"type": "scale", "scale": ["a", 1, 1]})), "is not a number for"),
    "no levels": ({"axes": AXES, "datasets": []}, "'datasets' is not a list of levels"),
    "a level without a path": (image(AXES, {"name": "s0"}), "a level without a path"),
    "an axis twice": (image([AXES[0], *AXES[:2]]), "one without a name of its own"),
    "other axes of a level": (
        image(AXES, {"path": "s0", "transform": {"axes": ["t", "y", "x"], "scale": [1, 1, 1]}}),
        "has the axes t, y, x, not z, y, x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_cannot_be_assumed_is_refused_in_whole_words(tmp_path: Path, name: str) -> None:
    multiscale, words = NOT_PLAIN[name]
    path = write(tmp_path, multiscale, version="0.6")
    with pytest.raises(UnreadableVolume, match=words) as refused:
        open_volume(path)
    assert "break the specification: " in str(refused.value)
    assert "with --axes." in str(refused.value)
    check(open_volume(f"{path}/s0"), None, None)  # the cure


# -- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "numbers"),
    [
        ("nm", (50, 8, 4)),
        ("um", (0.05, 0.008, 0.004)),
        ("\u00b5m", (0.05, 0.008, 0.004)),
        ("\u03bcm", (0.05, 0.008, 0.004)),
        ("\u00c5", (500, 80, 40)),
        ("Angstrom", (500, 80, 40)),
        ("micrometers", (0.05, 0.008, 0.004)),
    ],
)
def test_units_by_their_short_names(
    tmp_path: Path, version: str, unit: str, numbers: tuple[float, ...]
) -> None:
    axes = [{"name": axis, "type": "space", "unit": unit} for axis in "zyx"]
    path = write(tmp_path, image(axes, level(scale(*numbers))), version=version)
    volume = open_volume(path)
    assert volume.voxel_size == pytest.approx((50, 8, 4))
    assert volume.notes == ()


UNITS: dict[str, tuple[list[Any], str]] = {
    "a word that is none": (["parsec"] * 3, "The unit 'parsec' is not understood"),
    "one of three": (["nm", "nm", "pixel"], "The unit 'pixel' is not understood"),
    "no word": ([{"a": 1}] * 3, "The unit {'a': 1} is not understood"),
    "only of the plane": ([None, "nm", "nm"], "Of its axes z states no unit, and others do"),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_is_not_understood_is_said(tmp_path: Path, name: str) -> None:
    units, words = UNITS[name]
    axes = [
        {"name": axis, "type": "space", **({"unit": unit} if unit else {})}
        for axis, unit in zip("zyx", units, strict=True)
    ]
    check(open_volume(write(tmp_path, image(axes))), None, None, words)


# -- attributes beside OME-Zarr's -----------------------------------------------------------------


def plain(path: Path, values: np.ndarray[Any, Any] = DATA, **attributes: Any) -> str:
    array = zarr.create_array(str(path), data=values, chunks=values.shape, zarr_format=2)
    array.attrs.update(attributes)
    return str(path)


def test_an_array_of_cremi(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", resolution=[40.0, 8.0, 4.0], offset=[1480.0, 80.0, 40.0])
    check(open_volume(path), (40, 8, 4), (1480, 80, 40))


def test_an_array_of_funlib_in_another_order(tmp_path: Path) -> None:
    stated: dict[str, Any] = {"axis_names": ["x", "y", "z"], "voxel_size": [4, 8, 50]}
    path = plain(tmp_path / "a", DATA.T, **stated, offset=[1, 2, 3])
    check(open_volume(path), (50, 8, 4), (3, 2, 1))
    check(
        open_volume(plain(tmp_path / "b", **stated), axes="zyx"), None, None,
        "--axes zyx is used, and its metadata state xyz: its voxel size counts as not stated",
    )  # fmt: skip
    check(open_volume(path, axes="XYZ"), (50, 8, 4), (3, 2, 1))


def test_sizes_are_listed_in_the_order_of_the_axes(tmp_path: Path) -> None:
    path = plain(tmp_path / "a", DATA.T, resolution=[4, 8, 50], offset=[1, 2, 3])
    check(open_volume(path, axes="xyz"), (50, 8, 4), (3, 2, 1))
    group = zarr.create_group(str(tmp_path / "g"))
    group.create_array("s0", data=DATA.T, dimension_names=["x", "y", "z"])
    group["s0"].attrs["resolution"] = [4, 8, 50]
    check(open_volume(str(tmp_path / "g")), (50, 8, 4), None)


def test_sizes_that_fit_the_dimension_names_are_no_doubt(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a"), data=DATA[None], dimension_names=["channel", "z", "y", "x"]
    )
    array.attrs["voxel_size"] = [1, 50, 8, 4]
    check(open_volume(str(tmp_path / "a")), (50, 8, 4), None)


def test_a_group_says_what_its_only_array_does_not(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path), attributes={"resolution": [50, 8, 4]})
    group.create_array("raw", data=DATA, attributes={"axis_names": ["z", "y", "x"]})
    check(open_volume(str(tmp_path)), (50, 8, 4), None)


def test_the_only_image_beside_coordinates_is_read(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a"))
    for axis, size in zip("zyx", DATA.shape, strict=True):
        group.create_array(axis, data=np.arange(float(size)), dimension_names=[axis])
    group.create_array("em", data=DATA.T, dimension_names=["x", "y", "z"])
    check(open_volume(str(tmp_path / "a")), None, None, "em is read, the only image among 4 arrays")
    assert open_volume(str(tmp_path / "a"), level="em").notes == ()
    group["other"] = DATA
    with pytest.raises(AmbiguousVolume, match=r"several arrays and no metadata \(em, other\)"):
        open_volume(str(tmp_path / "a"))


def test_axes_given_against_an_image_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, image(), values=DATA.T)
    volume = open_volume(path, axes="xyz")
    check(volume, None, None, "--axes xyz is used, and its metadata state zyx")
    assert volume.layout.level == "s0"


def test_axes_stated_in_two_ways_are_refused(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a"), data=DATA, dimension_names=["z", "y", "x"])
    array.attrs["axis_names"] = ["x", "y", "z"]
    with pytest.raises(AmbiguousVolume, match=r"z, y, x in its dimension names, x, y, z in its"):
        open_volume(str(tmp_path / "a"))
    path = plain(tmp_path / "b", axes=["x", "y", "z"], axis_names=["z", "y", "x"])
    with pytest.raises(AmbiguousVolume, match=r"in several ways.*--axes zyx"):
        open_volume(path)
    check(open_volume(path, axes="zyx"), None, None)


def test_dimension_names_against_the_image_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, image(), version="0.4", _ARRAY_DIMENSIONS=["x", "y", "z"])
    check(
        open_volume(path), (50, 8, 4), None,
        "those of its OME-Zarr metadata, z, y, x, and those of its array x, y, z",
    )  # fmt: skip


#: What is said where words for axes are passed over.
ASSUMED = "For its axes z, y, x is assumed; --axes says otherwise."


@pytest.mark.parametrize("words", ["depth height width", "Slice Row Column"])
def test_other_words_for_z_y_and_x(tmp_path: Path, words: str) -> None:
    z, y, x = words.split()
    zarr.create_array(str(tmp_path / "a"), data=DATA.T, dimension_names=[x, y, z])
    check(open_volume(str(tmp_path / "a")), None, None)
    check(open_volume(plain(tmp_path / "b", DATA.T, _ARRAY_DIMENSIONS=[x, y, z])), None, None)
    axes = [{"name": name, **NM} for name in (z, y, x)]
    path = write(tmp_path / "c", image(axes))
    check(open_volume(path), (50, 8, 4), None)


@pytest.mark.parametrize("place", [0, 1, 3, (0, 1), (0, 4)])
def test_axes_of_length_1_need_no_name(tmp_path: Path, place: int | tuple[int, int]) -> None:
    path = plain(tmp_path / "a", np.expand_dims(DATA, place))
    check(open_volume(path), None, None)


def test_four_longer_axes_need_names(tmp_path: Path) -> None:
    for name, shape in (("a", (2, 3, 4, 5)), ("b", (1, 1, 4, 5))):
        path = plain(tmp_path / name, np.ones(shape, np.uint8))
        with pytest.raises(AmbiguousVolume, match="nothing says which is which"):
            open_volume(path)


def test_names_that_mean_nothing_are_said(tmp_path: Path) -> None:
    for name, names, words in (
        ("a", ["a", "b", "col"], ("names a, b, col do not name each axis", ASSUMED)),
        ("b", ["dim_0", "dim_1", "dim_2"], ()),
    ):
        zarr.create_array(str(tmp_path / name), data=DATA, dimension_names=names)
        check(open_volume(str(tmp_path / name)), None, None, *words)


def test_an_array_says_what_its_image_does_not(tmp_path: Path) -> None:
    transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [50, 8, 4]}
    path = write(tmp_path, image(AXES, level()), transform={**transform, "translate": [1, 2, 3]})
    check(open_volume(path), (50, 8, 4), (1, 2, 3), "is read from its array's attributes")


def test_levels_of_a_group_of_n5(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "g"), zarr_format=2)
    for name in ("s0", "s1", "s2"):
        group.create_array(name, data=DATA)
    group.attrs["pixelResolution"] = {"dimensions": [4, 8, 50], "unit": "nm"}
    group.attrs["scales"] = [[1, 1, 1], [4, 2, 1]]
    path = str(tmp_path / "g")
    for location in (path, f"{path}/s0"):
        check(open_volume(location), (50, 8, 4), None)
    for volume in (open_volume(path, level="s1"), open_volume(f"{path}/s1")):
        check(volume, (50, 16, 16), None, "times 'downsamplingFactors'")
    check(open_volume(path, level="s2"), None, None)


def test_each_level_has_its_own_position(tmp_path: Path) -> None:
    levels = [
        level(scale(50, 8, 4)),
        level(scale(50, 16, 8), translation(0, 4, 2), path="s1"),
    ]
    path = write(tmp_path, image(AXES, *levels), names="s0 s1")
    check(open_volume(path), (50, 8, 4), None)
    check(open_volume(f"{path}/s1"), (50, 16, 8), (0, 4, 2))
    levels_found = open_volume(path).layout.levels or {}
    assert levels_found["s0"] == pytest.approx((50, 8, 4))
    assert levels_found["s1"] == pytest.approx((50, 16, 8))
