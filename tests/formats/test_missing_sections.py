"""Numbers in the names of sections: what is missing is said, and stood for as the user says."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests.support.source_checks import ambiguous, refused
from tilenet.formats import Source, open_source
from tilenet.formats.section_numbers import numbers_in
from tilenet.geometry import Box

NUMBERS = (1, 2, 5, 6, 8)
TRUTH = np.random.default_rng(5).integers(1, 255, (len(NUMBERS), 9, 11)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, section in zip(NUMBERS, TRUTH, strict=True):
        tifffile.imwrite(tmp_path / f"sec_{number:04}_y03.tif", section)
    return tmp_path


def read(source: Source) -> npt.NDArray[np.uint8]:
    copy: Source = pickle.loads(pickle.dumps(source))
    whole = copy.read(Box.of_shape(copy.shape))
    for z in range(copy.shape[0] - 1):
        box = Box((z, 2, 3), (z + 2, 7, 9))
        assert np.array_equal(copy.read(box), whole[box.slices])
    return whole


def test_gaps_are_refused_with_their_numbers(folder: Path) -> None:
    for location in (folder, folder / "*.tif"):
        match = r"lacks sections, .*\(missing: 3 to 4, 7\).*--missing skip .*repeat .*blank"
        ambiguous(location, match)


@pytest.mark.parametrize(
    ("missing", "sections", "said"),
    [
        ("skip", [0, 1, 2, 3, 4], "They are skipped."),
        ("repeat", [0, 1, 1, 1, 2, 3, 3, 4], "The section before stands for each."),
        ("blank", [0, 1, None, None, 2, 3, None, 4], "They are blank, with values of 0."),
    ],
)
def test_what_stands_for_missing_sections(
    folder: Path, missing: str, sections: list[int | None], said: str
) -> None:
    source = open_source(str(folder), missing=missing)
    expected = [np.zeros((9, 11), np.uint8) if i is None else TRUTH[i] for i in sections]
    assert np.array_equal(read(source), expected)
    assert source.notes == (f"Sections 3 to 4, 7 are missing. {said}",)


def test_a_damaged_first_section_is_named(folder: Path) -> None:
    (folder / "sec_0001_y03.tif").write_bytes(b"II*")
    refused(folder, r"sec_0001_y03\.tif: ", missing="skip")


def test_what_stands_for_missing_sections_is_in_the_identity(folder: Path) -> None:
    skip, repeat, blank = (
        open_source(str(folder), missing=how).identity() for how in ("skip", "repeat", "blank")
    )
    assert "missing" not in skip  # so older versions read it
    assert repeat == {**skip, "shape": [8, 9, 11], "missing": ["repeat", "3 to 4, 7"]}
    assert blank == {**repeat, "missing": ["blank", "3 to 4, 7"]}
    for number in (3, 4, 7):
        tifffile.imwrite(folder / f"sec_{number:04}_y03.tif", TRUTH[0])
    whole = open_source(str(folder))
    assert whole.identity() == open_source(str(folder), missing="blank").identity()
    assert whole.notes == ()


def test_a_blank_section_has_all_channels(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        tifffile.imwrite(
            tmp_path / f"{number}.tif", np.stack([TRUTH[0], TRUTH[number]]), imagej=True,
            metadata={"axes": "CYX"},
        )  # fmt: skip
    source = open_source(str(tmp_path), missing="blank")
    values = source.read(Box((0, 0, 0), (4, 9, 11)))
    blank = np.zeros((9, 11), np.uint8)
    assert np.array_equal(values[0], [TRUTH[0], TRUTH[0], blank, TRUTH[0]])
    assert np.array_equal(values[1], [TRUTH[1], TRUTH[2], blank, TRUTH[4]])


def test_files_of_several_sections_are_skipped_only(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        tifffile.imwrite(tmp_path / f"{number}.tif", TRUTH, photometric="minisblack")
    for missing in ("repeat", "blank"):
        refused(tmp_path, "files of several sections", missing=missing)
    assert open_source(str(tmp_path), missing="skip").shape == (15, 9, 11)


def test_numbers_that_count_no_sections_fill_no_disk(tmp_path: Path) -> None:
    for name in ("20240101120000.png", "20240101120117.png"):
        Image.fromarray(TRUTH[0]).save(tmp_path / name)
    step = open_source(str(tmp_path))
    assert step.shape == (2, 9, 11)
    Image.fromarray(TRUTH[0]).save(tmp_path / "20240101120259.png")
    ambiguous(tmp_path, "lacks sections")
    refused(tmp_path, r"3 files, and \d+ are missing.*--missing skip", missing="blank")
    assert open_source(str(tmp_path), missing="skip").shape == (3, 9, 11)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["s1", "s2", "s3"], ""),
        (["s0001", "s0003"], ""),
        (["a9", "a10", "a12"], "11"),
        (["00.tif", "10.tif", "20.tiff", "50.TIF"], "30 to 40"),
        (["3-1", "3-2", "3-4"], "3"),
        (["day1/s1", "day1/s2", "day1/s5"], "3 to 4"),
        (["a", "b"], ""),
        (["x1", "y2", "y9"], ""),
        (["a1_7", "a2_9", "a3_2"], ""),
        (["a1_7", "a2_9", "a4_2"], ""),
        (["only"], ""),
        (["0", "1", *map(str, range(3, 30, 2))],
         "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, and 2 more"),
    ],
)  # fmt: skip
def test_which_numbers_are_missing(names: list[str], missing: str) -> None:
    assert str(numbers_in(names, [1] * len(names))) == missing


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["s1", "s2", "s3"], None),
        (["a1_7", "a2_9", "a3_2"], None),  # the first counts
        (["a1_7", "a2_9", "a4_2"], "Several numbers vary"),
        (["x1", "y2", "y9"], "differ in more than numbers"),
        (["s1", "s01", "s2"], "Several of its files have the number 1;"),
    ],
)
def test_what_is_doubtful_in_numbers_is_said(names: list[str], note: str | None) -> None:
    notes = numbers_in(names, [1] * len(names)).notes
    assert not notes if note is None else note in notes[0]


def test_a_constant_step_is_no_gap_and_is_said(tmp_path: Path) -> None:
    for number, section in zip((0, 10, 20, 30, 40), TRUTH, strict=True):
        tifffile.imwrite(tmp_path / f"s{number:02}.tif", section)
    source = open_source(str(tmp_path))
    assert np.array_equal(read(source), TRUTH)
    assert "go in steps of 10; no section is taken as missing" in source.notes[0]
    (tmp_path / "s20.tif").unlink()
    ambiguous(tmp_path, r"missing: 20\)")


def test_files_may_be_numbered_by_their_first_section(tmp_path: Path) -> None:
    stops = {0: TRUTH[:2], 2: TRUTH[2:3], 3: TRUTH[3:]}
    for first, part in stops.items():
        tifffile.imwrite(tmp_path / f"z{first}.tif", part, photometric="minisblack")
    source = open_source(str(tmp_path))
    assert np.array_equal(read(source), TRUTH)
    assert source.notes == ()


def test_a_single_missing_section_is_said_in_the_singular(folder: Path) -> None:
    (folder / "sec_0008_y03.tif").unlink()
    for number in (3, 5, 6):
        (folder / f"sec_{number:04}_y03.tif").unlink(missing_ok=True)
    tifffile.imwrite(folder / "sec_0004_y03.tif", TRUTH[2])
    said = {
        "skip": "It is skipped.",
        "repeat": "The section before stands for it.",
        "blank": "It is blank, with values of 0.",
    }
    for missing, words in said.items():
        source = open_source(str(folder), missing=missing)
        assert source.notes == (f"Section 3 is missing. {words}",)
