"""Zarr and HDF5 obey the same attributes, of an array and of its group, by whatever path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from tests.support.source_checks import WHOLE, Array, random_values, refused
from tilenet.formats import Source, open_source
from tilenet.volumes import NAMING

TRUTH = random_values("uint8")
TURNED = np.ascontiguousarray(TRUTH.T)

NM = (50.0, 6.0, 4.0)


def write(
    folder: Path,
    kind: str,
    values: Array,
    own: Mapping[str, Any],
    group: Mapping[str, Any] | None = None,
    name: str = "raw",
) -> str:
    """Write an array in a group, and give the path of the group."""
    if kind == "HDF5":
        with h5py.File(folder / "em.h5", "w") as file:
            file.create_dataset(name, data=values).attrs.update(own)
            file.attrs.update(group or {})
        return f"{folder}/em.h5"
    root = zarr.open_group(f"{folder}/em.zarr", mode="w", zarr_format=2)
    root.create_array(name, data=values).attrs.update(dict(own))
    root.attrs.update(dict(group or {}))
    return f"{folder}/em.zarr"


def array_in(group: str, name: str = "raw") -> str:
    return f"{group}{':' if group.endswith('.h5') else ''}/{name}"


def is_truth(source: Source) -> bool:
    return np.array_equal(source.read(WHOLE), TRUTH)


BOTH = pytest.mark.parametrize("kind", ["HDF5", "Zarr"])

TAGS = json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0} for key in "xyz"]})

#: How people list three axes.
LISTS: dict[str, Any] = {
    "words": ["x", "y", "z"],
    "Python": "['x','y','z']",
    "JSON": '["x", "y", "z"]',
    "letters": "xyz",
    "commas": "X, Y, Z",
    "in nanometres": ["x_nm", "y (nm)", "z_nm"],
}


@BOTH
@pytest.mark.parametrize("attribute", [*NAMING, "Axes", "_ARRAY_DIMENSIONS"])
def test_every_attribute_that_names_axes_is_obeyed(
    tmp_path: Path, kind: str, attribute: str
) -> None:
    stated = TAGS if attribute == "axistags" else LISTS["words"]
    source = open_source(write(tmp_path, kind, TURNED, {attribute: stated}))
    assert is_truth(source)
    assert source.notes == ()


@BOTH
@pytest.mark.parametrize("form", LISTS)
def test_axes_are_read_in_every_form(tmp_path: Path, kind: str, form: str) -> None:
    source = open_source(write(tmp_path, kind, TURNED, {"axis_order": LISTS[form]}))
    assert is_truth(source)
    assert source.notes == ()


@BOTH
def test_the_resolution_of_axistags(tmp_path: Path, kind: str) -> None:
    sizes = dict(zip("zyx", NM, strict=True))
    tags = {"axes": [{"key": key, "resolution": sizes[key]} for key in "xyz"]}
    own = {"axistags": json.dumps(tags), "axis_units": json.dumps(dict.fromkeys("xyz", "nm"))}
    source = open_source(write(tmp_path, kind, TURNED, own))
    assert (source.voxel_size, source.notes) == (NM, ())


@BOTH
@pytest.mark.parametrize("of_group", [False, True])
def test_sizes_are_listed_in_the_order_of_the_axes_that_are_given(
    tmp_path: Path, kind: str, of_group: bool
) -> None:
    stated = {"resolution": NM[::-1], "offset": [1, 2, 3]}
    group, own = (stated, {}) if of_group else ({}, stated)
    source = open_source(write(tmp_path, kind, TURNED, own, group), axes="xyz")
    assert is_truth(source)
    assert (source.voxel_size, source.translation, source.notes) == (NM, (3, 2, 1), ())


@BOTH
@pytest.mark.parametrize(
    ("own", "group", "turned"),
    [
        ({}, {"resolution": NM, "offset": [1, 2, 3]}, False),
        ({"offset": [1, 2, 3]}, {"resolution": NM}, False),
        ({}, {"axis_names": ["x", "y", "z"], "resolution": NM[::-1], "offset": [3, 2, 1]}, True),
        ({"axes": "xyz"}, {"resolution": NM[::-1], "offset": [3, 2, 1]}, True),
        ({"axes": "zyx"}, {"axes": "xyz", "resolution": NM[::-1], "offset": [3, 2, 1]}, False),
    ],
)
def test_a_group_speaks_for_its_only_array_by_either_path(
    tmp_path: Path, kind: str, own: dict[str, Any], group: dict[str, Any], turned: bool
) -> None:
    location = write(tmp_path, kind, TURNED if turned else TRUTH, own, group)
    for path in (location, array_in(location)):
        source = open_source(path)
        assert is_truth(source)
        assert (source.voxel_size, source.translation) == (NM, (1, 2, 3))


@BOTH
def test_levels_of_n5_have_one_size_by_either_path(tmp_path: Path, kind: str) -> None:
    group = {"resolution": NM[::-1], "scales": [[1, 1, 1], [2, 2, 1]]}
    location = write(tmp_path, kind, TRUTH, {}, group, "s0")
    for path in (location, array_in(location, "s0")):
        source = open_source(path)
        assert source.voxel_size == NM
        assert "in the order x, y, z, as N5 has it" in source.notes[0]


def test_what_a_group_says_of_several_arrays_is_axes_alone(tmp_path: Path) -> None:
    group = {"axis_names": ["x", "y", "z"], "resolution": NM[::-1]}
    for kind in ("HDF5", "Zarr"):
        location = write(tmp_path, kind, TURNED, {}, group)
        if kind == "HDF5":
            with h5py.File(location, "a") as file:
                file["other"] = TURNED
        else:
            zarr.open_group(location, mode="a").create_array("other", data=TURNED)
        source = open_source(array_in(location))
        assert is_truth(source)
        assert source.voxel_size is None


# --- parts of HDF5 that are kept elsewhere ---------------------------------------------------


def virtual(folder: Path, name: str, sections: int) -> str:
    with h5py.File(folder / "part.h5", "w") as file:
        file["raw"] = TRUTH
    depth = len(TRUTH)
    layout = h5py.VirtualLayout((sections, *TRUTH.shape[1:]), "u1")
    layout[:depth] = h5py.VirtualSource("part.h5", name, TRUTH.shape)
    with h5py.File(folder / "whole.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    return f"{folder}/whole.h5"


def test_a_virtual_dataset_needs_its_sources_and_says_what_has_none(tmp_path: Path) -> None:
    source = open_source(virtual(tmp_path, "raw", len(TRUTH)))
    assert is_truth(source)
    assert source.notes == ()
    source = open_source(virtual(tmp_path, "raw", 2 * len(TRUTH)))
    note = "Only 50 % of the virtual dataset is mapped to others; the rest reads as 0."
    assert source.notes == (note,)
    refused(virtual(tmp_path, "none", len(TRUTH)), r"none is not in part\.h5")


def test_every_channel_of_imaris_counts_its_chunks(tmp_path: Path) -> None:
    path = tmp_path / "em.ims"
    with h5py.File(path, "w") as file:
        file.attrs["ImarisDataSet"] = np.frombuffer(b"ImarisDataSet", "S1")
        point = file.create_group("DataSet/ResolutionLevel 0/TimePoint 0")
        for number in range(2):
            data = point.create_dataset(f"Channel {number}/Data", (8, 32, 48), "u1",
                                        chunks=(4, 16, 16))  # fmt: skip
            data[:4, :16, :16] = 1
            if number == 0:
                data[:] = 1
    notes = [note for note in open_source(str(path)).notes if "chunks are stored" in note]
    where = "/DataSet/ResolutionLevel 0/TimePoint 0/Channel 1/Data"
    assert notes == [f"{where}: 1 of 12 chunks are stored; what is not reads as 0."]
