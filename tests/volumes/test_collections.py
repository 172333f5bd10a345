"""A group above images lists them, as paths that can be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipelines import cli
from tests.volumes.test_volume_open import DATA, check, write_image
from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats import open_source
from tilenet.volumes import collections, open_volume
from tilenet.volumes.collections import LISTED, LOOKED
from tilenet.volumes.stores import open_node


def listed(location: str | Path) -> AmbiguousVolume:
    """What the error says, whose paths can be given, and whose example is the first."""
    with pytest.raises(AmbiguousVolume) as caught:
        open_volume(str(location))
    with pytest.raises(AmbiguousVolume):
        open_source(str(location))
    for name in caught.value.choices:
        check(open_volume(f"{location}/{name}"))
    assert caught.value.cure.endswith(f"for example {location}/{caught.value.choices[0]}")
    return caught.value


def put(group: zarr.Group, metadata: dict[str, Any], version: str) -> None:
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", **metadata}
    else:
        group.attrs.update(metadata)


def group_of(path: Path, version: str, **metadata: Any) -> zarr.Group:
    made = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    put(made, metadata, version)
    return made


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_an_image(tmp_path: Path, version: str) -> None:
    image = tmp_path / "em.zarr"
    write_image(image, {"0": DATA}, version=version)
    group_of(image / "labels", version, labels=["cells", "mito"])
    for name in ("cells", "mito"):
        write_image(image / "labels" / name, {"0": DATA}, version=version)
    check(open_volume(str(image)))
    found = listed(image / "labels")
    assert found.choices == ("cells", "mito")
    assert found.problem == "is a group of label images"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_and_their_wells(tmp_path: Path, version: str) -> None:
    wells = ["A/1", "B/2"]
    plate = group_of(tmp_path / "p", version, plate={"wells": [{"path": well} for well in wells]})
    for well in wells:
        plate.require_group(well.partition("/")[0])
        group_of(tmp_path / "p" / well, version, well={"images": [{"path": "0"}, {"path": "1"}]})
        for field in ("0", "1"):
            write_image(tmp_path / "p" / well / field, {"0": DATA}, version=version)
    assert listed(tmp_path / "p").choices == ("A/1/0", "A/1/1", "B/2/0", "B/2/1")
    assert listed(tmp_path / "p" / "B/2").choices == ("0", "1")


def test_a_large_plate_lists_some_and_reads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(location: str, path: str) -> Any:
        looked.append(path)
        return open_node(location, path)

    monkeypatch.setattr(collections, "open_node", look)
    wells = [{"path": f"A/{i}"} for i in range(1000)]
    group_of(tmp_path / "p", "0.5", plate={"wells": wells})
    with pytest.raises(AmbiguousVolume) as caught:
        open_volume(str(tmp_path / "p"))
    # The wells themselves where they cannot be read.
    assert caught.value.choices == (*(f"A/{i}" for i in range(LISTED)), "and more")
    assert len(looked) == LISTED + 1


def test_series_are_those_that_the_metadata_list(tmp_path: Path) -> None:
    top = group_of(tmp_path / "c", "0.5", **{"bioformats2raw.layout": 3})
    put(top.create_group("OME"), {"series": ["left", "right"]}, "0.5")
    for name in ("left", "right"):
        write_image(tmp_path / "c" / name, {"0": DATA}, version="0.5")
    assert listed(tmp_path / "c").choices == ("left", "right")
    put(zarr.open_group(str(tmp_path / "c" / "OME")), {"series": ["right"]}, "0.5")
    check(open_volume(str(tmp_path / "c")))


def test_groups_of_groups_of_images_and_arrays(tmp_path: Path) -> None:
    top = zarr.create_group(str(tmp_path / "g"))
    write_image(tmp_path / "g" / "recon-1" / "em", {"s0": DATA}, version="0.5")
    for name in ("s0", "s1"):  # the N5 way: the group will do
        top.require_group("recon-1/pyramid").create_array(name, data=DATA)
    top.require_group("volumes/labels").create_array("ids", data=DATA)
    top.require_group("nothing")
    (tmp_path / "g" / "nothing" / "notes.txt").write_text("hello")
    found = listed(tmp_path / "g")
    assert found.choices == ("recon-1/em", "recon-1/pyramid", "volumes/labels/ids")
    assert listed(tmp_path / "g" / "recon-1").choices == ("em", "pyramid")


def test_a_group_of_very_many_is_looked_at_in_part(tmp_path: Path) -> None:
    top = zarr.create_group(str(tmp_path / "g"))
    for i in range(3 * LISTED):
        top.create_group(f"{i}").create_array("a", data=np.zeros((2, 2), "u1"))
    with pytest.raises(AmbiguousVolume) as caught:
        open_volume(str(tmp_path / "g"))
    assert caught.value.choices == (*(f"{i}/a" for i in range(LISTED)), "and more")
    for i in range(LOOKED):
        (tmp_path / "g" / f".{i}").mkdir()  # no end of other things
    with pytest.raises((AmbiguousVolume, UnreadableVolume)):
        open_volume(str(tmp_path / "g"))


def test_several_multiscales_name_their_arrays(tmp_path: Path) -> None:
    group = write_image(tmp_path / "m", {"a": DATA, "b": DATA})
    attributes: Any = group.attrs.asdict()
    (image,) = attributes["multiscales"]
    images: Any = [{**image, "datasets": [each]} for each in image["datasets"]]
    group.attrs["multiscales"] = images
    assert listed(tmp_path / "m").choices == ("a", "b")


@pytest.mark.parametrize(
    "metadata",
    [{"labels": []}, {"plate": {}}, {"plate": {"wells": [{"path": 1}, 2]}}, {"well": 3}],
)
def test_collections_that_list_nothing(tmp_path: Path, metadata: dict[str, Any]) -> None:
    group_of(tmp_path / "x", "0.5", **metadata)
    with pytest.raises(UnreadableVolume, match="and its metadata list none"):
        open_volume(str(tmp_path / "x"))


def test_the_command_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    group_of(tmp_path / "labels", "0.5", labels=["cells"])
    for command in (["info"], ["label"], ["ingest"]):
        out = [] if command == ["info"] else [str(tmp_path / "out.zarr")]
        assert cli.run([*command, str(tmp_path / "labels"), *out]) == 1
        said = capfd.readouterr().err
        assert (
            f"is a group of label images (cells). Give one of them, for example {tmp_path}" in said
        )
