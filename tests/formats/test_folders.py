"""Folders that hold more than the sections of one volume, or something else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.source_checks import ambiguous, check, refused
from tilenet.formats import open_source

#: Those of one volume, which the pattern in the message means, come first.
FOLDERS: dict[str, tuple[list[str], list[str], str]] = {
    "an overview": (["s08", "s09", "s10"], ["overview"], "3 such as s08"),
    "labels": (["em0", "em1", "em2"], ["labels0", "labels1"], "3 such as em0"),
    "labels between": (["1_em", "2_em", "3_em"], ["1_seg", "2_seg", "3_seg"], "3 such as 1_em"),
    "channels": (["c0_z00", "c0_z01", "c0_z02"], ["c1_z00", "c1_z01", "c1_z02"], "c0_z00"),
    "channels between": (
        ["z00_c0", "z01_c0", "z02_c0"], ["z00_c1", "z01_c1", "z02_c1"], "z00_c0",
    ),
    "a channel cut off": (["c0_z0", "c0_z1", "c0_z2"], ["c1_z0", "c1_z1"], "c0_z0"),
    "tiles": (["r1_c1", "r1_c2"], ["r2_c1", "r2_c2"], "r1_c1"),
    "tiles of sections": (
        ["z0_r0_c0", "z0_r0_c1", "z0_r1_c0", "z0_r1_c1"],
        ["z1_r0_c0", "z1_r0_c1", "z1_r1_c0", "z1_r1_c1"],
        "z0_r0_c0",
    ),
    "odd characters": (["a[1]_0", "a[1]_1", "a[1]_2"], ["b"], r"3 such as a\[1\]_0"),
}  # fmt: skip


def patterns_in(message: str) -> list[str]:
    return re.findall('"([^"]+)"', message)


def value(index: int) -> np.ndarray:
    return np.full((5, 6), index + 1, np.uint8)


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_of_several_volumes_is_no_stack(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "em[2]"
    folder.mkdir()
    one, others, seen = FOLDERS[case]
    for i, name in enumerate([*one, *others]):
        Image.fromarray(value(i)).save(folder / f"{name}.png")
    error = ambiguous(folder, rf"{seen}.*quoted pattern")
    first, every = patterns_in(str(error))
    check(open_source(first), np.stack([value(i) for i in range(len(one))]))
    source = open_source(every)
    assert source.shape == (len(one) + len(others), 5, 6)
    assert "natural order" in source.notes[0]


def test_files_of_several_sections_with_other_words_are_several_volumes(tmp_path: Path) -> None:
    stack = np.stack([value(0), value(1)])
    for name in ("labels", "raw"):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack, photometric="minisblack")
    error = ambiguous(tmp_path, r"several volumes \(labels\.tif, raw\.tif\)")
    first, every = patterns_in(str(error))
    check(open_source(first), stack)
    source = open_source(every)
    assert source.shape == (4, 5, 6)
    assert "differ in more than numbers" in source.notes[0]


def test_sections_of_one_volume_may_have_several_numbers(tmp_path: Path) -> None:
    for i, name in enumerate(["w1_001_10h07", "w1_002_10h09", "w2_003_10h07", "w2_004_11h01"]):
        Image.fromarray(value(i)).save(tmp_path / f"{name}.png")
    check(open_source(str(tmp_path)), np.stack([value(i) for i in range(4)]))


@pytest.mark.data
def test_the_volumes_of_isbi_2012_are_no_stack(tilenet_data: Path) -> None:
    names = r"test-volume\.tif, train-labels\.tif, train-volume\.tif"
    ambiguous(tilenet_data / "isbi2012", rf"several volumes \({names}\)")


# --- images beside something else ------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([f"s{i}.jpg" for i in range(6)], r"6 files such as s0\.jpg, a JPEG image.*mogrify"),
        (["a.mrc"], r"one file, a\.mrc, an MRC file.*mrcfile"),
        (["em.h5"], r"one file, em\.h5, an HDF5 file.*Give the file: .*em\.h5"),
        (["knossos.conf"], "is a KNOSSOS dataset"),
        (["info"], "neuroglancer's precomputed format"),
        (["attributes.json"], "is an N5 container"),
        (["header.wkw"], "is a WKW layer"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_beside_a_volume_is_not_the_volume(
    tmp_path: Path, names: list[str], match: str, suffix: str
) -> None:
    for name in names:
        (tmp_path / name).write_text(json.dumps({"n5": "2", "scales": [], "data_type": "uint8"}))
    Image.fromarray(value(0)).save(tmp_path / f"preview.{suffix}")
    error = refused(tmp_path, match)
    (pattern,) = patterns_in(str(error))
    check(open_source(pattern), value(0)[np.newaxis])


def test_a_file_beside_each_section_does_no_harm(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(value(i)).save(tmp_path / f"s{i}.tif")
        (tmp_path / f"s{i}.hdr").write_text("[MAIN]")  # as TESCAN writes
    check(open_source(str(tmp_path)), np.stack([value(i) for i in range(3)]))


# --- no sections -----------------------------------------------------------------------------


def test_sections_in_subfolders_are_named(tmp_path: Path) -> None:
    for name in ("s1", "s10", "s2"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(value(i)).save(tmp_path / name / f"{i}.png")
    error = ambiguous(tmp_path, r"has subfolders of them \(s1 \(2\), s2 \(2\), s10 \(2\)\)")
    assert str(error).endswith(f"for example {tmp_path}/s1.")


def test_a_pattern_of_files_that_are_not_read_names_them(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(value(i)).save(tmp_path / f"{i}.jpg")
    refused(tmp_path / "*.jpg", r"means 2 files such as 0\.jpg, a JPEG image.*mogrify")
    np.save(tmp_path / "em.npy", value(0))
    refused(tmp_path / "*.npy", r"such as em\.npy, a NumPy file\. Give it alone: .*/em\.npy")


def test_a_bracket_in_a_pattern_is_said_to_be_none_of_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "sec[1]"
    folder.mkdir()
    Image.fromarray(value(0)).save(folder / "1.png")
    refused(f"{folder}/*.png", r"In a pattern, \[ab\] stands for a or b; write \[\[\] for a \[")
    check(open_source(f"{tmp_path}/sec[[]1]/*.png"), value(0)[np.newaxis])
