"""Layers of WEBKNOSSOS: the box, the axes, the voxel size and the position that its file states."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from pipelines.cluster import ClusterOptions
from pipelines.derive.ingest import IngestOptions, run_ingest
from pipelines.derive.label import label_rule, run_label
from pipelines.derive.storage_options import StorageOptions
from pipelines.outputs import problems
from tests.support.source_checks import check
from tests.volumes.stores.test_urls import server as server
from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats import open_source
from tilenet.geometry import Box, zyx
from tilenet.volumes import Volume, VolumeReference, identify, open_volume, sampled_shards

#: Shape and first voxel of the layer, (z, y, x), and its values.
SHAPE, START = (16, 24, 40), (3, 5, 70)
TRUTH = np.random.default_rng(5).integers(1, 256, SHAPE).astype(np.uint8)
LOCAL = ClusterOptions(workers=1, slots=1, memory=2 * 2**30)


def write(
    root: Path, name: str = "color", *, values: npt.NDArray[Any] = TRUTH, axes: str = "cxyz",
    start: tuple[int, int, int] = START, mag: str = "1", group: bool = True,
) -> Path:  # fmt: skip
    """A layer as webknossos-libs stores it: from voxel 0, in whole shards of 64 voxels."""
    stops = zip(start, values.shape, strict=True)
    padded = np.zeros([-(-(a + n) // 64) * 64 for a, n in stops], values.dtype)
    padded[Box(start, zyx(np.add(start, values.shape))).slices] = values
    stored = padded[np.newaxis].transpose(["czyx".index(axis) for axis in axes])
    if group:
        zarr.open_group(root / name, mode="a")
    array = zarr.create_array(
        root / name / mag, shape=stored.shape, dtype=values.dtype,
        chunks=tuple(1 if axis == "c" else 32 for axis in axes),
        shards=tuple(1 if axis == "c" else 64 for axis in axes),
    )  # fmt: skip
    array[:] = stored
    return root / name


def layer(name: str = "color", **changes: Any) -> dict[str, Any]:
    (depth, height, width), first = SHAPE, list(START[::-1])
    box = {"topLeft": first, "width": width, "height": height, "depth": depth}
    mags = [{"mag": [1, 1, 1], "path": f"./{name}/1"}]
    stated = {"name": name, "category": "color", "boundingBox": box, "elementClass": "uint8"}
    return {**stated, "dataFormat": "zarr3", "numChannels": 1, "mags": mags, **changes}


def describe(root: Path, *layers: dict[str, Any], scale: Any = None) -> None:
    scale = scale or {"factor": [4.0, 6.0, 30.0], "unit": "nanometer"}
    stated = {"id": {"name": "em", "team": ""}, "scale": scale, "dataLayers": layers}
    root.mkdir(exist_ok=True)
    (root / "datasource-properties.json").write_text(json.dumps(stated))


def stored(volume: Volume) -> npt.NDArray[Any]:
    return volume.read(Box.of_shape(volume.shape))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    describe(tmp_path / "em", layer())
    write(tmp_path / "em")
    return tmp_path / "em"


@pytest.mark.parametrize("below", ["color/1", "color/1/", "color", ""])
def test_a_layer_is_the_box_that_is_stated(dataset: Path, below: str) -> None:
    volume = open_volume(f"{dataset}/{below}")
    assert volume.array.shape == (1, 128, 64, 64)
    assert volume.shape == SHAPE
    np.testing.assert_array_equal(stored(volume), TRUTH)
    assert volume.voxel_size == (30.0, 6.0, 4.0)
    assert volume.translation == (90.0, 30.0, 280.0)
    check(open_source(f"{dataset}/{below}"), TRUTH)


def test_without_groups_and_without_a_path(dataset: Path) -> None:
    (dataset / "color" / "zarr.json").unlink()
    describe(dataset, layer(mags=[{"mag": 1}]), scale=[4.0, 6.0, 30.0])
    for below in ("color/1", "color", ""):
        np.testing.assert_array_equal(stored(open_volume(f"{dataset}/{below}")), TRUTH)
    check(open_source(str(dataset)), TRUTH)


def test_units_are_obeyed(dataset: Path) -> None:
    describe(dataset, layer(), scale={"factor": [0.004, 0.006, 0.03], "unit": "micrometer"})
    assert open_volume(f"{dataset}/color").voxel_size == pytest.approx((30.0, 6.0, 4.0))
    describe(dataset, layer(), scale={"factor": [1, 1, 1], "unit": "parsnip"})
    volume = open_volume(f"{dataset}/color")
    assert (volume.voxel_size, volume.translation) == (None, None)
    assert "'parsnip', which is no known unit" in " ".join(volume.notes)


def test_the_axes_that_are_stated_are_obeyed(tmp_path: Path) -> None:
    root = tmp_path / "em"
    order = {"c": 0, "z": 1, "y": 2, "x": 3}
    describe(root, layer(mags=[{"mag": [1, 1, 1], "path": "./color/1", "axisOrder": order}]))
    write(root, axes="czyx")
    np.testing.assert_array_equal(stored(open_volume(f"{root}/color/1")), TRUTH)
    # Whoever says it otherwise wins.
    describe(root, layer())
    np.testing.assert_array_equal(stored(open_volume(f"{root}/color", axes="czyx")), TRUTH)


def test_other_axes_than_those_that_are_stated(dataset: Path) -> None:
    # The box is stated by the names of the axes: in others it would cut out another part.
    order = {"c": 0, "x": 1, "y": 2, "z": 3}
    describe(dataset, layer(mags=[{"mag": [1, 1, 1], "path": "./color/1", "axisOrder": order}]))
    for below in ("", "color", "color/1"):
        volume = open_volume(f"{dataset}/{below}", axes="czyx")
        assert volume.shape == (128, 64, 64)
        np.testing.assert_array_equal(stored(volume)[70:110, 5:29, 3:19].T, TRUTH)
        assert (volume.voxel_size, volume.translation) == (None, None)
        assert set((volume.layout.levels or {}).values()) == {None}
        assert volume.notes == (
            "--axes czyx is used, and its metadata state cxyz: its voxel size counts as not "
            "stated.",
            "All of its array is read, also what fills it up around the layer.",
        )
    volume = open_volume(f"{dataset}/color", axes="cxyz")
    np.testing.assert_array_equal(stored(volume), TRUTH)
    assert (volume.voxel_size, volume.notes) == ((30.0, 6.0, 4.0), ())


def test_magnifications_are_levels(tmp_path: Path) -> None:
    root = tmp_path / "em"
    coarse = TRUTH[:, :13, :21]
    mags = [{"mag": [2, 2, 1], "path": "./color/2-2-1"}, {"mag": [1, 1, 1], "path": "./color/1"}]
    describe(root, layer(mags=mags))
    write(root)
    write(root, values=coarse, start=(3, 2, 35), mag="2-2-1")
    for level in (None, "1", "0"):
        np.testing.assert_array_equal(stored(open_volume(f"{root}/color", level=level)), TRUTH)
    for below, level in (("color/2-2-1", None), ("color", "2-2-1")):
        volume = open_volume(f"{root}/{below}", level=level)
        # From voxel 5 // 2 to (5 + 24) / 2, rounded outward, along y.
        assert volume.shape == (16, 13, 20)
        np.testing.assert_array_equal(stored(volume), coarse[:, :13, :20])
        assert volume.voxel_size == (30.0, 12.0, 8.0)
        # The centre of a coarse voxel lies between those of the fine ones in it.
        assert volume.translation == (90.0, 4 * 6 + 3, 70 * 4 + 2)
    assert dict(volume.layout.levels or {}) == {"1": (30, 6, 4), "2-2-1": (30, 12, 8)}
    with pytest.raises(AmbiguousVolume, match=r"no level '9' \(1, 2-2-1\)"):
        open_volume(f"{root}/color", level="9")


def test_layers_may_be_channels_of_one_array(tmp_path: Path) -> None:
    root = tmp_path / "em"
    both = np.zeros((2, 64, 64, 128), np.uint8)
    both[(slice(None), *Box(START, zyx(np.add(START, SHAPE))).slices)] = TRUTH, 255 - TRUTH
    zarr.create_array(root / "both" / "0", data=both.transpose(0, 3, 2, 1))
    mags = [{"mag": [1, 1, 1], "path": "./both/0", "channelIndex": i} for i in range(2)]
    describe(root, *[layer(f"channel{i}", mags=mags[i : i + 1]) for i in range(2)])
    np.testing.assert_array_equal(stored(open_volume(f"{root}/channel1")), 255 - TRUTH)
    np.testing.assert_array_equal(stored(open_volume(f"{root}/channel1", channel=0)), TRUTH)
    np.testing.assert_array_equal(stored(open_volume(f"{root}/both/0")), [TRUTH, 255 - TRUTH])


def test_several_layers_are_not_chosen_from(dataset: Path) -> None:
    describe(dataset, layer(), layer("segmentation"))
    write(dataset, "segmentation")
    with pytest.raises(AmbiguousVolume, match=r"2 layers \(color, segmentation\).*/em/color"):
        open_volume(str(dataset))
    assert open_volume(f"{dataset}/segmentation").shape == SHAPE


def test_what_is_no_layer_is_read_as_it_is(dataset: Path) -> None:
    write(dataset, "prediction.zarr")
    assert open_volume(f"{dataset}/prediction.zarr/1", axes="cxyz").shape == (64, 64, 128)


def test_a_box_that_does_not_fit_the_array(dataset: Path) -> None:
    box = {"topLeft": [70, 5, 3], "width": 400, "height": 24, "depth": 16}
    describe(dataset, layer(boundingBox=box))
    volume = open_volume(f"{dataset}/color")
    assert volume.shape == (16, 24, 58)
    assert "x=70:470, but its array is" in volume.notes[0]
    describe(dataset, layer(boundingBox={**box, "topLeft": [500, 5, 3]}))
    with pytest.raises(UnreadableVolume, match=r"x=500:900 by datasource-properties\.json"):
        open_volume(f"{dataset}/color")


@pytest.mark.parametrize(
    "change", [{"boundingBox": None}, {"mags": []}, {"mags": [{"mag": [0, 1, 1]}]}, {"mags": 3}]
)
def test_a_file_that_cannot_be_read_is_refused(dataset: Path, change: dict[str, Any]) -> None:
    describe(dataset, layer(**change))
    with pytest.raises(UnreadableVolume, match=r"datasource-properties.json: cannot be read.*Mend"):
        open_volume(f"{dataset}/color")


def test_layers_of_other_formats_are_named(dataset: Path) -> None:
    describe(dataset, layer(dataFormat="wkw"))
    with pytest.raises(UnreadableVolume, match="in the format wkw, which is not read"):
        open_volume(f"{dataset}/color")


def test_behind_a_url(tmp_path: Path, server: str, dataset: Path) -> None:
    # Whose axes are those of WEBKNOSSOS, by what the array says.
    shutil.rmtree(dataset / "color")
    described = zarr.open_group(dataset / "color", mode="w")
    assert described.attrs.asdict() == {}
    data = np.zeros((1, 128, 64, 64), np.uint8)
    data[0, 70:110, 5:29, 3:19] = TRUTH.transpose(2, 1, 0)
    zarr.create_array(dataset / "color" / "1", data=data, dimension_names=["c", "x", "y", "z"])
    volume = open_volume(f"{server}/em/color/1")
    np.testing.assert_array_equal(stored(volume), TRUTH)
    assert identify(volume) == identify(open_volume(f"{dataset}/color/1"))


def test_shards_are_sampled_where_the_layer_lies(dataset: Path) -> None:
    volume = open_volume(f"{dataset}/color")
    boxes = sampled_shards(volume)
    assert sum(box.size for box in boxes.values()) == np.prod(SHAPE)
    # Two along x, of which the first holds nothing of it: the layer begins at 70.
    assert list(boxes) == ["c/0/1/0/0"]
    assert identify(volume)["crop"] == {"start": [3, 5, 70], "stop": [19, 29, 110]}
    describe(dataset, layer(boundingBox={"topLeft": [0, 0, 0], "width": 128, "height": 64,
                                         "depth": 64}))  # fmt: skip
    assert "crop" not in identify(open_volume(f"{dataset}/color"))


def test_outputs_of_a_layer_are_sound_and_lie_where_it_does(dataset: Path, tmp_path: Path) -> None:
    options = IngestOptions(chunk=(16, 32, 64), shard=(16, 32, 64))
    run_ingest(open_source(f"{dataset}/color"), str(tmp_path / "em.zarr"), options, LOCAL)
    rule = replace(
        label_rule(per_section=False, connectivity=None, invert=False, by_value=False),
        threshold=128.0,
    )
    stores = StorageOptions(chunk=(16, 32, 64), shard=(16, 32, 64))
    reference = VolumeReference(f"{dataset}/color/1")
    run_label(reference, str(tmp_path / "l.zarr"), rule, options=stores, cluster=LOCAL)
    for name in ("em.zarr", "l.zarr"):
        output = open_volume(str(tmp_path / name))
        assert output.shape == SHAPE
        assert output.translation == (90.0, 30.0, 280.0)
        assert problems(output) == []
    np.testing.assert_array_equal(stored(open_volume(str(tmp_path / "em.zarr"))), TRUTH)
    labels = stored(open_volume(str(tmp_path / "l.zarr")))
    np.testing.assert_array_equal(labels > 0, TRUTH > 128)
