"""What an HDF5 file states of its axes, voxel size and position is obeyed, or said, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.support.source_checks import (
    SHAPE,
    WHOLE,
    Array,
    ambiguous,
    check,
    random_values,
    refused,
)
from tilenet.formats import open_source
from tilenet.geometry import Box

TRUTH = random_values("uint8")
SIZES = dict(zip("zyx", SHAPE, strict=True))

State = Callable[[Any, str], None]


def stored(axes: str) -> Array:
    """The same voxels with other axes; other axes than z, y and x have length 1."""
    spatial = [axis for axis in axes if axis in "zyx"]
    values = TRUTH.transpose(["zyx".index(axis) for axis in spatial])
    return values.reshape([SIZES.get(axis, 1) for axis in axes])


def write(path: Path, values: Array, **attributes: Any) -> str:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("raw", data=values)
        dataset.attrs.update(attributes)
    return str(path)


# --- axes ------------------------------------------------------------------------------------


def tags(axes: str, **resolutions: float) -> str:
    """What vigra's AxisTags.toJSON gives."""
    flags = {"c": 1, "t": 8}
    axis = [
        {
            "key": key,
            "typeFlags": flags.get(key, 2),
            "resolution": resolutions.get(key, 0),
            "description": "",
        }
        for key in axes
    ]
    return json.dumps({"axes": axis}, indent=2)


def attribute(name: str, value: Callable[[str], Any]) -> State:
    def state(dataset: Any, axes: str) -> None:
        dataset.attrs[name] = value(axes)

    return state


def label(dataset: Any, axes: str) -> None:
    for dimension, axis in zip(dataset.dims, axes, strict=True):
        dimension.label = axis


def scale(dataset: Any, axes: str) -> None:
    """As netCDF does."""
    for i, axis in enumerate(axes):
        positions = dataset.file.create_dataset(axis, data=np.arange(dataset.shape[i]))
        positions.make_scale(axis)
        dataset.dims[i].attach_scale(positions)


STATEMENTS: dict[str, State] = {
    "ilastik": attribute("axistags", tags),
    "ilastik, bytes": attribute("axistags", lambda axes: np.bytes_(tags(axes))),
    "ilastik, array of one": attribute("axistags", lambda axes: [tags(axes)]),
    "funlib": attribute("axis_names", list),
    "funlib, channel": attribute("axis_names", lambda a: [f"{k}^" if k == "c" else k for k in a]),
    "letters": attribute("axis_names", lambda axes: np.array(list(axes), "S1")),
    "capitals": attribute("Axes", str.upper),
    "commas": attribute("axis_order", ", ".join),
    "brackets": attribute("axis_order", lambda axes: f"({','.join(axes).upper()})"),
    "JSON": attribute("dims", lambda axes: json.dumps(list(axes))),
    "words": attribute("axes", lambda a: ["channel" if k == "c" else k for k in a]),
    "DIMENSION_LABELS": label,
    "netCDF": scale,
}


@pytest.mark.parametrize("axes", ["xyz", "zxy", "cxyz", "zyxc", "tzyxc"])
@pytest.mark.parametrize("kind", STATEMENTS)
def test_stated_axes_are_obeyed(tmp_path: Path, kind: str, axes: str) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        STATEMENTS[kind](file.create_dataset("raw", data=stored(axes)), axes)
    source = open_source(f"{tmp_path}/em.h5:/raw")
    assert source.notes == ()
    np.testing.assert_array_equal(source.read(WHOLE), TRUTH)
    if kind == "ilastik":
        check(source, TRUTH)


def test_a_stated_section_and_stated_channels(tmp_path: Path) -> None:
    colours = random_values("uint8", (33, 50, 3))
    location = write(tmp_path / "yxc.h5", colours, axistags=tags("yxc"))
    check(open_source(location, channel=2), colours[np.newaxis, ..., 2])
    all_three = open_source(location).read(Box((0, 0, 0), (1, 33, 50)))
    np.testing.assert_array_equal(all_three, colours.transpose(2, 0, 1)[:, np.newaxis])
    image = {"CLASS": np.bytes_("IMAGE"), "IMAGE_SUBCLASS": np.bytes_("IMAGE_TRUECOLOR")}
    for interlace, axes in (("PIXEL", (0, 1, 2)), ("LINE", (0, 2, 1)), ("PLANE", (2, 0, 1))):
        mode = np.bytes_(f"INTERLACE_{interlace}")
        values = colours.transpose(axes)
        location = write(tmp_path / "hdf.h5", values, **image, INTERLACE_MODE=mode)
        ambiguous(location, "has 3 channels.*--channel")
        check(open_source(location, channel=1), colours[np.newaxis, ..., 1])
    location = write(tmp_path / "tyx.h5", TRUTH, axistags=tags("tyx"))
    ambiguous(location, "several time points")


def test_what_is_given_wins_over_what_is_stated_and_says_so(tmp_path: Path) -> None:
    location = write(tmp_path / "em.h5", TRUTH, axistags=tags("xyz"))
    source = open_source(location, axes="zyx")
    check(source, TRUTH)
    assert source.notes == ("--axes zyx is used; the file states xyz.",)
    assert open_source(location, axes="xyz").notes == ()
    location = write(tmp_path / "em.h5", TRUTH, axistags=tags("xyz"), resolution=NM)
    source = open_source(location, axes="zyx")
    assert (source.voxel_size, source.notes) == (
        None,
        ("--axes zyx is used; the file states xyz. Its voxel size and position are left out.",),
    )
    # An axis of length 1 may be called anything.
    location = write(tmp_path / "em.h5", stored("czyx"), axistags=tags("czyx"))
    assert open_source(location, axes="tzyx").notes == ()


def test_statements_that_contradict_each_other(tmp_path: Path) -> None:
    location = write(tmp_path / "em.h5", stored("xyz"), axistags=tags("xyz"), axes="zyx")
    error = ambiguous(location, "states its axes in several ways.*--axes zyx")
    assert set(error.choices) == {"axistags: xyz", "axes: zyx"}
    check(open_source(location, axes="xyz"), TRUTH)
    alike = {"axistags": tags("cxyz"), "axes": "txyz"}  # but for an axis of length 1
    check(open_source(write(tmp_path / "em.h5", stored("cxyz"), **alike)), TRUTH)


def test_other_words_for_z_y_and_x(tmp_path: Path) -> None:
    for words in (["width", "height", "depth"], ["column", "row", "slice"]):
        with h5py.File(tmp_path / "em.h5", "w") as file:
            dataset = file.create_dataset("raw", data=stored("xyz"))
            for dimension, word in zip(dataset.dims, words, strict=True):
                dimension.label = word
        source = open_source(f"{tmp_path}/em.h5")
        check(source, TRUTH)
        assert source.notes == ()


def test_statements_that_are_not_understood(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "em.h5", TRUTH, axes="yx"))
    check(source, TRUTH)
    assert source.notes == (
        "axes names the axes 'y x', which are not the 3 that are stored; it is left out.",
    )
    source = open_source(write(tmp_path / "em.h5", stored("zxy"), axes="theta:x:y"))
    check(source, TRUTH)
    assert source.notes == ("axes calls an axis 'theta'; it is taken as z.",)
    scan = "scan_y, scan_x, detector_y"
    ambiguous(write(tmp_path / "em.h5", TRUTH, axis_order=scan), "axes of unknown meaning")
    for value in (np.arange(3), h5py.Empty("f"), "{", "", ["d0", "d1", "dim_2"]):
        assert open_source(write(tmp_path / "em.h5", TRUTH, dims=value)).notes == ()


def test_axes_that_a_group_states_for_its_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["entry/raw"] = stored("xyz")
        file["entry/own"] = TRUTH
        file["entry/own"].attrs["axes"] = "zyx"
        file["entry"].attrs["axes"] = ["x", "y", "z"]
        file.attrs["axis_order"] = "y,x"
    check(open_source(f"{tmp_path}/em.h5:/entry/raw"), TRUTH)
    check(open_source(f"{tmp_path}/em.h5:/entry/own"), TRUTH)


# --- voxel sizes and positions ---------------------------------------------------------------

NM = (50.0, 6.0, 4.0)

GEOMETRIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "ImageJ": ("zyx", {"element_size_um": [0.05, 0.006, 0.004]}),
    "ImageJ, channels": ("zyxc", {"element_size_um": [0.05, 0.006, 0.004]}),
    "ilastik": (
        "xyz",
        {
            "axistags": tags("xyz", x=0.004, y=0.006, z=0.05),
            "axis_units": json.dumps({"x": "\u03bcm", "y": "\u00b5m", "z": "um"}),
        },
    ),
    "CREMI": ("zyx", {"resolution": NM}),
    "funlib": ("zyx", {"voxel_size": [50, 6, 4], "axis_names": ["z", "y", "x"]}),
    "funlib, channel": ("czyx", {"voxel_size": [50, 6, 4], "axis_names": ["c^", "z", "y", "x"]}),
    "funlib, order": ("xyz", {"voxel_size": [4, 6, 50], "axis_names": ["x", "y", "z"]}),
    "funlib, units": (
        "zyx",
        {"voxel_size": [0.05, 6, 4], "units": ["um", "nm", "nm"], "axis_names": ["z", "y", "x"]},
    ),
    "two that agree": ("zyx", {"resolution": NM, "element_size_um": [0.05, 0.006, 0.004]}),
}


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_stated_voxel_sizes(tmp_path: Path, kind: str) -> None:
    axes, attributes = GEOMETRIES[kind]
    location = write(tmp_path / "em.h5", stored(axes), **attributes)
    source = open_source(location, axes=None if axes == "xyz" else axes)
    np.testing.assert_array_equal(source.read(WHOLE), TRUTH)
    assert (source.voxel_size, source.notes) == (NM, ())


def test_positions(tmp_path: Path) -> None:
    location = write(tmp_path / "em.hdf", TRUTH, resolution=(40.0, 4, 4), offset=(1520.0, 3644, 0))
    source = open_source(location)
    assert (source.voxel_size, source.translation) == ((40, 4, 4), (1520, 3644, 0))
    attributes = {"voxel_size": [0.004, 0.006, 0.05], "offset": [0.1, 0, 0], "units": ["um"] * 3}
    location = write(tmp_path / "em.h5", stored("xyz"), **attributes, axis_names=list("xyz"))
    source = open_source(location)
    assert (source.voxel_size, source.translation) == (NM, (0, 0, 100))


@pytest.mark.parametrize(
    ("attributes", "size", "note"),
    [
        ({"resolution": NM, "units": "furlong"}, None, "furlong' is not understood"),
        ({"axistags": tags("zyx", x=4, y=6, z=50)}, None, "a resolution without a unit"),
        ({"resolution": [4, 4]}, None, "resolution.*passed over"),
        ({"resolution": (50, 0, 4)}, None, "resolution.*passed over"),
        ({"resolution": NM, "element_size_um": [1, 1, 1]}, NM, "50 x 6 x 4 nm .*1000 x 1000"),
        (
            {
                "element_size_um": [0.05, 0.006, 0.004],
                "axistags": tags("zyx", x=1, y=1, z=1),
                "axis_units": json.dumps(dict.fromkeys("zyx", "nm")),
            },
            NM,
            "another than",
        ),
    ],
)
def test_voxel_sizes_that_are_in_doubt(
    tmp_path: Path, attributes: dict[str, Any], size: object, note: str
) -> None:
    source = open_source(write(tmp_path / "em.h5", TRUTH, **attributes))
    assert source.voxel_size == size
    assert re.search(note, " ".join(source.notes))


def test_axes_beside_attributes_of_n5_are_listed_backwards(tmp_path: Path) -> None:
    attributes = {"axes": ["x", "y", "z"], "downsamplingFactors": [1.0, 1, 1]}
    source = open_source(write(tmp_path / "em.h5", TRUTH, **attributes, resolution=NM[::-1]))
    check(source, TRUTH)
    assert source.voxel_size == NM
    assert source.notes[0] == "axes is read backwards, as N5 writes it: z y x."


# --- which dataset ---------------------------------------------------------------------------


def test_the_only_image_is_read_and_images_come_first(tmp_path: Path) -> None:
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        file["a/table"] = np.zeros((5000, 3))
        file["names"] = [b"axon", b"soma"]
        file["volumes/raw"] = TRUTH
    source = open_source(str(path))
    check(source, TRUTH)
    assert source.notes == ("/volumes/raw is read, the only image among 3 datasets.",)
    with h5py.File(path, "a") as file:
        file["volumes/s1"] = TRUTH[::2, ::2, ::2]
    error = ambiguous(path, r"several datasets.*for example .*em\.h5:/volumes/raw\.$")
    assert error.choices == (
        "/volumes/raw: 7 x 33 x 50 uint8",
        "/volumes/s1: 4 x 17 x 25 uint8",
        "/a/table: 5000 x 3 float64",
        "/names: 2 text or records",
    )
    assert ambiguous(f"{path}:/a", "a group at '/a'").choices == ("/a/table: 5000 x 3 float64",)


def test_grey_values_come_before_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        file["volumes/labels/clefts"] = TRUTH.astype("u8")
        file["volumes/raw"] = TRUTH
    ambiguous(path, r"for example .*em\.h5:/volumes/raw\.$")


def test_links_are_followed_and_named_where_they_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", TRUTH)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["whole"] = h5py.ExternalLink("part.h5", "/raw")
        file["again"] = h5py.SoftLink("/whole")
        file["none"] = h5py.SoftLink("/none")
        file["circle"] = h5py.SoftLink("/")
    check(open_source(f"{tmp_path}/em.h5"), TRUTH)
    (tmp_path / "part.h5").unlink()
    refused(f"{tmp_path}/em.h5:/whole", r"a link to part\.h5, which is missing")


def test_what_is_not_stored_is_refused_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("none", SHAPE, "u1", chunks=(1, 33, 50), fillvalue=9)
        file.create_dataset("late", SHAPE, "u1")
        file.create_dataset("some", SHAPE, "u1", chunks=(1, 33, 50))[:3] = 1
        file.create_dataset("most", SHAPE, "u1", chunks=(1, 33, 50))[:4] = 1
    refused(f"{path}:/none", "never written, so that every voxel would read as 9")
    refused(f"{path}:/late", "never written")
    note = "3 of 7 chunks are stored; what is not reads as 0."
    assert open_source(f"{path}:/some").notes == (note,)
    assert open_source(f"{path}:/most").notes == ()
