"""OME-TIFF in several files: all are read, in the order that the metadata say, or one is named."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.support.source_checks import Array, ambiguous, check, random_values, refused
from tilenet.errors import UnreadableBlock
from tilenet.formats import open_source
from tilenet.geometry import Box

TRUTH = random_values("uint8")
ORDER = [3, 0, 6, 1, 5, 2, 4]


def write_set(
    folder: Path,
    values: Array,
    *,
    names: str = "s{}.ome.tif",
    order: list[int] | None = None,
    only: str | None = None,
) -> list[Path]:
    """Write sections as files of one OME-TIFF, in an order of their own."""
    order = list(range(len(values))) if order is None else order
    uuids = [f"urn:uuid:{uuid.UUID(int=i + 1)}" for i in order]
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{names.format(i)}">{named}</UUID></TiffData>'
        for z, (i, named) in enumerate(zip(order, uuids, strict=True))
    )
    start = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{}">'
    sizes = dict(zip("ZYX", values.shape, strict=True))
    pixels = (
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        + " ".join(f'Size{axis}="{n}"' for axis, n in ({"C": 1, "T": 1} | sizes).items())
        + ' PhysicalSizeX="4" PhysicalSizeXUnit="nm" PhysicalSizeY="4" PhysicalSizeYUnit="nm"'
        + ' PhysicalSizeZ="50" PhysicalSizeZUnit="nm"><Channel ID="Channel:0:0" '
        + f'SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    paths = []
    for z, (i, named) in enumerate(zip(order, uuids, strict=True)):
        path = folder / names.format(i)
        xml = start.format(named) + pixels
        if only is not None:
            xml = start.format(named) + f'<BinaryOnly MetadataFile="{only}" UUID="u"/></OME>'
        tifffile.imwrite(path, values[z], description=xml, metadata=None)
        paths.append(path)
    if only is not None and only.endswith(".companion.ome"):
        (folder / only).write_text(start.format("urn:uuid:companion") + pixels)
    return paths


@pytest.mark.parametrize("only", [None, "em.companion.ome"])
def test_a_set_of_files_is_read_in_the_order_of_its_metadata(
    tmp_path: Path, only: str | None
) -> None:
    paths = write_set(tmp_path, TRUTH, order=ORDER, only=only)
    sources = [open_source(str(where)) for where in (paths[0], paths[5], tmp_path)]
    for source in sources:
        check(source, TRUTH)
        assert source.voxel_size == (50.0, 4.0, 4.0)
        assert source.notes == ()
        assert source.identity() == sources[0].identity()


def test_the_identity_of_a_set_knows_all_its_files(tmp_path: Path) -> None:
    paths = write_set(tmp_path, TRUTH)
    before = open_source(str(paths[0])).identity()
    changed = TRUTH.copy()
    changed[6] += 1
    write_set(tmp_path, changed)
    assert open_source(str(paths[0])).identity() != before


def test_a_file_of_a_set_that_is_missing_is_named(tmp_path: Path) -> None:
    paths = write_set(tmp_path, TRUTH, order=ORDER)
    (tmp_path / "s5.ome.tif").rename(tmp_path / "elsewhere.png")
    for where in (paths[0], f"{tmp_path}/*.tif"):
        refused(where, "a part of an image in several files, of which s5.ome.tif is missing")
        refused(
            where, "s5.ome.tif is missing", **({"missing": "skip"} if "*" in str(where) else {})
        )


def test_metadata_in_a_file_that_is_missing(tmp_path: Path) -> None:
    paths = write_set(tmp_path, TRUTH, only="em.companion.ome")
    (tmp_path / "em.companion.ome").unlink()
    refused(paths[0], "of which em.companion.ome is missing")


def test_a_set_among_other_files_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, TRUTH)
    tifffile.imwrite(tmp_path / "t9.tif", TRUTH[0])
    ambiguous(tmp_path, r"7 files of one image, 1 others, as t9\.tif")
    tifffile.imwrite(tmp_path / "a9.tif", TRUTH[0])
    refused(tmp_path, "s0.ome.tif: is one of several files of an image")


def test_a_file_of_a_set_that_changes_is_reported(tmp_path: Path) -> None:
    paths = write_set(tmp_path, TRUTH)
    source = open_source(str(paths[0]))
    tifffile.imwrite(paths[4], TRUTH[0, :20])
    assert np.array_equal(source.read(Box((0, 0, 0), (4, 33, 50))), TRUTH[:4])
    with pytest.raises(UnreadableBlock, match=r"s4\.ome\.tif has changed since it was opened"):
        source.read(Box((3, 0, 0), (5, 33, 50)))
    paths[4].unlink()
    with pytest.raises(UnreadableBlock):
        source.read(Box((3, 0, 0), (5, 33, 50)))


def test_files_of_a_set_have_to_be_alike(tmp_path: Path) -> None:
    paths = write_set(tmp_path, TRUTH)
    with tifffile.TiffFile(paths[5]) as file:
        xml = file.pages.first.description
    tifffile.imwrite(paths[5], TRUTH[0, :20], description=xml, metadata=None)
    refused(paths[0], r"s5\.ome\.tif: has pages of \(20, 50\) uint8, and of \(33, 50\) uint8")


def test_whole_files_of_ome_are_sections(tmp_path: Path) -> None:
    for i, section in enumerate(TRUTH):
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", section, ome=True)
    check(open_source(str(tmp_path)), TRUTH)


def test_a_whole_file_of_ome_may_be_renamed(tmp_path: Path) -> None:
    path = write_set(tmp_path, TRUTH[:1])[0]
    renamed = path.rename(tmp_path / "renamed.tif")
    check(open_source(str(renamed)), TRUTH[:1])
