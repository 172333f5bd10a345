"""Attributes that state axes, voxel sizes and positions, as their writers have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tilenet.volumes import StatedGeometry, stated_geometry

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


def test_names_that_libraries_count_are_no_doubt() -> None:
    for names in (["dim_0", "dim_1", "dim_2"], ["c0^", "d0", "d1"]):
        assert stated_geometry({"axis_names": names}, 3) == StatedGeometry()


def test_sizes_that_differ_are_said() -> None:
    stated = stated_geometry({"resolution": [50, 8, 4], "voxel_size": [40, 8, 4]}, 3)
    assert stated.voxel_size == pytest.approx((40, 8, 4))
    (note,) = stated.notes
    assert "40 x 8 x 4 nm in 'voxel_size' and 50 x 8 x 4 nm in 'resolution'" in note


def test_axes_that_differ_are_a_contradiction() -> None:
    stated = stated_geometry({"axes": ["z", "y", "x"], "_ARRAY_DIMENSIONS": ["x", "y", "z"]}, 3)
    assert stated.contradiction == ("z, y, x in 'axes'", "x, y, z in '_ARRAY_DIMENSIONS'")
