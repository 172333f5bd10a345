"""A part of a source, and its values as another type: exactly, or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.source_checks import SHAPE, check, random_values
from tilenet.errors import InvalidData
from tilenet.formats import Selection, open_source, translated
from tilenet.geometry import Box

EXACT: dict[str, tuple[str, str, list[Any]]] = {
    "narrower": ("uint16", "uint8", [0, 255]),
    "signed": ("int16", "uint8", [0, 255]),
    "wider": ("uint8", "int64", [0, 255]),
    "whole floats": ("float32", "int16", [-32768.0, 0.0, 32767.0]),
    "to floats": ("int32", "float32", [-(2**24), 2**24, 2**30]),
    "large to floats": ("uint64", "float64", [2**53, 2**63]),
    "shorter floats": ("float64", "float32", [0.5, np.inf, np.nan]),
    "longer floats": ("float16", "float64", [0.1, -65504.0]),
    "large from floats": ("float64", "uint64", [2.0**63, 0.0]),
    "bool": ("bool", "uint16", [True, False]),
}

INEXACT: dict[str, tuple[str, str, Any, str]] = {
    "above": ("uint16", "uint8", 256, r"256 \(uint16\)"),
    "below": ("int16", "uint16", -1, r"-1 \(int16\)"),
    "above all signed": ("uint64", "int64", 2**63, rf"{2**63} \(uint64\)"),
    "a fraction": ("float32", "uint8", 0.5, r"0.5 \(float32\)"),
    "a float above": ("float64", "int64", 2.0**63, r"9.22\S+ \(float64\)"),
    "no number": ("float64", "int32", np.nan, r"nan \(float64\)"),
    "too fine a float": ("float64", "float32", 0.1, r"0.1 \(float64\)"),
    "too many digits": ("int32", "float32", 2**24 + 1, r"16777217 \(int32\)"),
    "the largest of all": ("uint64", "float64", 2**64 - 1, rf"{2**64 - 1} \(uint64\)"),
    "the largest signed": ("int64", "float32", 2**63 - 1, rf"{2**63 - 1} \(int64\)"),
    "beyond short floats": ("int32", "float16", 70000, r"70000 \(int32\)"),
}


def selection(
    folder: Path, values: npt.NDArray[Any], dtype: str, region: Box | None = None
) -> Selection:
    np.save(folder / "em.npy", values)
    source = open_source(str(folder / "em.npy"))
    return Selection(source, region or Box.of_shape(source.shape), np.dtype(dtype))


def test_a_region_is_a_source_of_its_own(tmp_path: Path) -> None:
    truth, region = random_values("uint8"), Box((2, 0, 7), (7, 30, 50))
    check(selection(tmp_path, truth, "uint8", region), truth[region.slices])


def test_a_position_is_counted_from_the_first_voxel() -> None:
    assert translated(None, (0, 0, 0), (40.0, 8.0, 4.0)) is None
    assert translated((1.0, 2.0, 3.0), (0, 0, 0), None) == (1.0, 2.0, 3.0)
    assert translated((1.0, 2.0, 3.0), (0, 0, 1), None) is None
    assert translated(None, (1, 2, 3), (40.0, 8.0, 4.0)) == (40.0, 16.0, 12.0)
    assert translated((1.0, 2.0, -3.0), (1, 2, 3), (40.0, 8.0, 4.0)) == (41.0, 18.0, 9.0)


@pytest.mark.parametrize("case", EXACT)
def test_values_that_fit_are_given_as_another_type(tmp_path: Path, case: str) -> None:
    before, after, some = EXACT[case]
    values = np.resize(np.array(some, before), SHAPE)
    found = selection(tmp_path, values, after).read(Box.of_shape(SHAPE))
    assert found.dtype == after
    # Python's numbers have no limits, and compare as they are.
    assert [repr(float(v)) for v in found.ravel()[:3]] == [
        repr(float(v)) for v in values.ravel()[:3]
    ]
    np.testing.assert_array_equal(found.astype(before), values)


@pytest.mark.parametrize("case", INEXACT)
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    before, after, value, words = INEXACT[case]
    values = np.zeros(SHAPE, before)
    values[5, 19, 35] = value
    chosen = selection(tmp_path, values, after, Box((1, 0, 0), SHAPE))
    chosen.read(Box((0, 0, 0), (4, 33, 50)))
    place = re.escape("em.npy, z=5:6,y=0:33,x=0:50: holds ")
    with pytest.raises(InvalidData, match=f"{place}{words}, which {after} cannot hold exactly"):
        chosen.read(Box((4, 0, 0), (5, 33, 50)))
