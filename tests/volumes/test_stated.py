"""Attributes that state axes, voxel sizes and positions, as their writers have them."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest

from tilenet.volumes import StatedGeometry, group_attributes, stated_geometry

CREMI: dict[str, Any] = {"resolution": [40.0, 4.0, 4.0], "offset": [1480.0, 3644.0, 3640.0]}

FUNLIB: dict[str, Any] = {
    "offset": [100, 200, 400],
    "voxel_size": [1, 2, 3],
    "axis_names": ["channel^", "z", "y", "x"],
    "units": ["nm", "nm", "nm"],
}

COSEM: dict[str, Any] = {
    "transform": {
        "axes": ["z", "y", "x"],
        "units": ["nm", "nm", "nm"],
        "scale": [5.24, 4.0, 4.0],
        "translate": [2.62, 2.0, 2.0],
    },
    "pixelResolution": {"dimensions": [4.0, 4.0, 5.24], "unit": "nm"},
}

#: Attributes, number of axes, axes, voxel size, position.
STATED: dict[str, tuple[dict[str, Any], int, str | None, Any, Any]] = {
    "nothing": ({"comment": "x"}, 3, None, None, None),
    "CREMI": (CREMI, 3, None, (40, 4, 4), (1480, 3644, 3640)),
    "funlib": (FUNLIB, 4, "czyx", (1, 2, 3), (100, 200, 400)),
    "funlib, micrometres": (
        {**FUNLIB, "units": ["um"] * 3}, 4, "czyx", (1000, 2000, 3000), (1e5, 2e5, 4e5),
    ),
    "funlib, x first": (
        {"voxel_size": [4, 8, 50], "axis_names": ["x", "y", "z"], "offset": [1, 2, 3]},
        3, "xyz", (50, 8, 4), (3, 2, 1),
    ),
    "values for channels too": (
        {"voxel_size": [1, 50, 8, 4], "axis_names": ["c^", "z", "y", "x"]},
        4, "czyx", (50, 8, 4), None,
    ),
    "one unit for all": (
        {"resolution": [0.05, 0.008, 0.004], "units": "µm"}, 3, None, (50, 8, 4), None,
    ),
    "a unit for each": (
        {"resolution": [0.05, 8, 40], "units": ["um", "nm", "Å"]}, 3, None, (50, 8, 4), None,
    ),
    "no units in words": (
        {"resolution": [50, 8, 4], "units": ["", "", ""]}, 3, None, (50, 8, 4), None,
    ),
    "HDF5": (
        {"resolution": np.array([50, 8, 4], np.float32), "axes": np.array([b"z", b"y", b"x"])},
        3, "zyx", (50, 8, 4), None,
    ),
    "element_size_um": (
        {"element_size_um": np.array([0.05, 0.008, 0.004], np.float32)}, 3, None, (50, 8, 4), None,
    ),
    "a section": ({"resolution": [8, 4]}, 2, None, (1, 8, 4), None),
    "a section with a depth": ({"resolution": [50, 8, 4]}, 2, None, (50, 8, 4), None),
    "xarray": ({"_ARRAY_DIMENSIONS": ["x", "y", "z"]}, 3, "xyz", None, None),
    "axes in a word": ({"axes": "xyz", "resolution": [4, 8, 50]}, 3, "xyz", (50, 8, 4), None),
    "axes after OME": ({"axes": [{"name": "y"}, {"name": "x"}]}, 2, "yx", None, None),
    "COSEM": (COSEM, 3, "zyx", (5.24, 4, 4), (2.62, 2, 2)),
    "COSEM, in the order of Fortran": (
        {"transform": {**COSEM["transform"], "ordering": "F"}},
        3, "xyz", (5.24, 4, 4), (2.62, 2, 2),
    ),
    "N5 Viewer": (
        {"pixelResolution": {"dimensions": [0.004, 0.008, 0.05], "unit": "um"}},
        3, None, (50, 8, 4), None,
    ),
    "N5 Spark, a level": (
        {"pixelResolution": {"dimensions": [4, 8, 50]}, "downsamplingFactors": [4, 2, 1]},
        3, None, (50, 16, 16), None,
    ),
    "Paintera": (
        {"multiScale": True, "resolution": [4, 8, 50], "offset": [1, 2, 3]},
        3, None, (50, 8, 4), (3, 2, 1),
    ),
    "funlib beside N5": (
        {"axis_names": ["z", "y", "x"], "voxel_size": [50, 8, 4], "offset": [1, 2, 3],
         "pixelResolution": {"dimensions": [4, 8, 50], "unit": "nm"}},
        3, "zyx", (50, 8, 4), (1, 2, 3),
    ),
    "a unit of its own": (
        {"voxel_size": [0.05, 0.008, 0.004], "voxel_size_unit": "um", "units": "DN"},
        3, None, (50, 8, 4), None,
    ),
    "units of its own": (
        {"resolution": [0.05, 0.008, 0.004], "resolution_units": ["um"] * 3,
         "offset": [1, 2, 3], "offset_unit": "nm"},
        3, None, (50, 8, 4), (1, 2, 3),
    ),
    "capitals": ({"Resolution": [50, 8, 4], "OFFSET": [1, 2, 3]}, 3, None, (50, 8, 4), (1, 2, 3)),
    "spacing": ({"spacing": [0.05, 0.008, 0.004], "units": "um"}, 3, None, (50, 8, 4), None),
    "a unit in the name": ({"voxel_size_nm": [50, 8, 4]}, 3, None, (50, 8, 4), None),
    "micrometres in the name": ({"resolution_um": [0.05, 8e-3, 4e-3]}, 3, None, (50, 8, 4), None),
    "JSON in a text": (
        {"pixelResolution": '{"unit": "um", "dimensions": [0.004, 0.008, 0.05]}'},
        3, None, (50, 8, 4), None,
    ),
    "nothing, of HDF5": (
        {"resolution": h5py.Empty("f4"), "axes": h5py.Empty("f4")}, 3, None, None, None,
    ),
    "N5, with axes": (
        {"axes": ["x", "y", "z", "c"], "units": ["um", "um", "um", ""], "multiScale": True,
         "resolution": [0.004, 0.008, 0.05, 1]},
        4, "czyx", (50, 8, 4), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_what_attributes_state(name: str) -> None:
    attributes, ndim, axes, voxel_size, translation = STATED[name]
    stated = stated_geometry(attributes, ndim)
    assert stated.axes == (None if axes is None else tuple(axes))
    assert stated.voxel_size == (None if voxel_size is None else pytest.approx(voxel_size))
    assert stated.translation == (None if translation is None else pytest.approx(translation))
    assert stated.contradiction == ()
    of_n5 = name.startswith(("Paintera", "N5 Spark", "N5, with"))
    assert bool(stated.notes) == of_n5, stated.notes


def test_sizes_follow_axes_that_are_known_in_another_way() -> None:
    attributes = {"resolution": [4, 8, 50], "offset": [1, 2, 3]}
    stated = stated_geometry(attributes, 3, axes="xyz")
    assert stated == StatedGeometry(None, (50, 8, 4), (3, 2, 1))


DOUBTFUL: dict[str, tuple[dict[str, Any], str]] = {
    "a unit": (
        {"resolution": [50, 8, 4], "units": ["parsec", "nm", "nm"], "offset": [1, 2, 3]},
        "The unit 'parsec' is not understood, so its voxel size counts as not stated.",
    ),
    "a unit of N5": (
        {"pixelResolution": {"dimensions": [4, 8, 50], "unit": "pixel"}},
        "The unit 'pixel' is not understood",
    ),
    "a word": ({"resolution": "4 nm"}, "'resolution', '4 nm', is passed over"),
    "zero": ({"voxel_size": [0, 8, 4]}, "'voxel_size', [0, 8, 4], is passed over"),
    "too few": ({"resolution": [8, 4]}, "'resolution', [8, 4], is passed over"),
    "no number": ({"resolution": [None, 8, 4]}, "is passed over"),
    "beyond floats": ({"resolution": [10**400, 8, 4]}, "is passed over"),
    "a position alone": ({"offset": [1, 2, 3]}, "no voxel size is stated beside it"),
    "other axes": ({"axis_names": ["a", "b", "x"]}, "does not name each axis t, c, z, y or x"),
    "words": ({"axes": ["lon", "lat", "lev"]}, "'axes', lon, lat, lev, is passed over"),
    "a spacing without a unit": ({"spacing": [50, 8, 4]}, "no unit is stated beside it"),
    "JSON that never ends": ({"axes": "[" * 100_000}, "'axes', '[[["),
    "a scale too few": ({"transform": {"axes": ["y", "x", "z"], "scale": [1, 2]}}, "'transform'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_not_understood_is_said(name: str) -> None:
    attributes, words = DOUBTFUL[name]
    stated = stated_geometry(attributes, 3)
    assert stated.voxel_size is None
    assert stated.translation is None
    assert any(words in note for note in stated.notes), stated.notes
    assert all(note.endswith(".") for note in stated.notes)


def test_a_position_without_a_unit_is_in_that_of_the_size_and_that_is_said() -> None:
    attributes = {"voxel_size": [0.05, 8e-3, 4e-3], "voxel_size_unit": "um", "offset": [1, 2, 3]}
    stated = stated_geometry(attributes, 3)
    assert stated.translation == pytest.approx((1000, 2000, 3000))
    (note,) = stated.notes
    assert note == "Its attribute 'offset' is taken in the unit of its voxel size, 'um'."


def test_voxels_smaller_than_atoms_are_said() -> None:
    stated = stated_geometry({"resolution": [0.05, 0.008, 0.004]}, 3)
    assert stated.voxel_size == pytest.approx((0.05, 0.008, 0.004))
    (note,) = stated.notes
    assert "0.05 x 0.008 x 0.004 nm, less than 0.1 nm" in note


#: Attributes of the array and of its group, axes, voxel size, position.
OF_GROUPS: dict[str, tuple[dict[str, Any], dict[str, Any], str | None, Any, Any]] = {
    "a position of its own": (
        {"offset": [1, 2, 3]}, {"resolution": [50, 8, 4]}, None, (50, 8, 4), (1, 2, 3),
    ),
    "a size of its own": (
        {"resolution": [50, 8, 4]}, {"voxel_size": [1, 1, 1], "offset": [1, 2, 3]},
        None, (50, 8, 4), None,
    ),
    "axes": (
        {"resolution": [4, 8, 50]}, {"axis_names": ["x", "y", "z"]}, "xyz", (50, 8, 4), None,
    ),
    "axes and sizes": (
        {}, {"axis_names": ["x", "y", "z"], "resolution": [4, 8, 50]}, "xyz", (50, 8, 4), None,
    ),
    "axes of its own": (
        {"axes": "zyx"}, {"axis_names": ["x", "y", "z"], "resolution": [4, 8, 50]},
        "zyx", (50, 8, 4), None,
    ),
    "axes of another array": ({}, {"axes": "yx", "resolution": [50, 8, 4]}, None, (50, 8, 4), None),
    "units": (
        {"resolution": [0.05, 0.008, 0.004]}, {"units": "um", "axes": "zyx"},
        "zyx", (50, 8, 4), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_GROUPS)
def test_what_a_group_states_for_its_array(name: str) -> None:
    own, group, axes, voxel_size, translation = OF_GROUPS[name]
    stated = stated_geometry(own, 3, group=group)
    assert stated.axes == (None if axes is None else tuple(axes))
    assert stated.voxel_size == pytest.approx(voxel_size)
    assert (stated.translation, stated.notes) == (translation, ())
    again = stated_geometry(own, 3, stated.axes, group=group)
    assert (again.voxel_size, again.translation) == (stated.voxel_size, stated.translation)


def test_what_groups_of_n5_say_of_a_level_that_they_list_no_factor_of() -> None:
    group = {"axes": ["x", "y", "z"], "multiScale": True, "resolution": [4, 8, 50]}
    of_level = group_attributes(group, "s1", is_only=lambda: True)
    stated = stated_geometry({}, 3, group=of_level)
    assert (stated.axes, stated.voxel_size) == (("z", "y", "x"), None)
    of_level = group_attributes({**group, "scales": [[1, 1, 1], [4, 2, 1]]}, "s1", is_only=bool)
    assert stated_geometry({}, 3, group=of_level).voxel_size == pytest.approx((50, 16, 16))


def test_names_that_libraries_count_are_no_doubt() -> None:
    for names in (["dim_0", "dim_1", "dim_2"], ["c0^", "d0", "d1"], ["phony_dim_0"] * 3):
        assert stated_geometry({"axis_names": names}, 3) == StatedGeometry()


def test_sizes_that_differ_are_said() -> None:
    stated = stated_geometry({"resolution": [50, 8, 4], "voxel_size": [40, 8, 4]}, 3)
    assert stated.voxel_size == pytest.approx((40, 8, 4))
    (note,) = stated.notes
    assert "40 x 8 x 4 nm in 'voxel_size' and 50 x 8 x 4 nm in 'resolution'" in note


def test_axes_that_differ_are_a_contradiction() -> None:
    stated = stated_geometry({"axes": ["z", "y", "x"], "_ARRAY_DIMENSIONS": ["x", "y", "z"]}, 3)
    assert stated.contradiction == ("z, y, x in 'axes'", "x, y, z in '_ARRAY_DIMENSIONS'")
