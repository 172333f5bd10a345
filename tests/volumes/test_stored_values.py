"""Thresholds of probabilities as stored values, against every value there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilenet.labels import LabelRule
from tilenet.volumes import probabilities, stored_cut

THRESHOLDS = (0.0, 0.1, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9, 0.9995, 0.9999, 1 - 2**-53)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32, np.float64])
def test_values_beyond_the_cut_are_those_above_the_probability(dtype: type, invert: bool) -> None:
    if dtype in (bool, np.uint8):
        values = np.arange(2 if dtype is bool else 256).astype(dtype)
    elif dtype is np.float16:
        values = np.arange(0x3C01, dtype=np.uint16).view(dtype)  # all from 0 to 1
    else:
        near: list[npt.NDArray[Any]] = [
            np.array([0, 1, *THRESHOLDS, *(1 - t for t in THRESHOLDS)], dtype)
        ]
        for direction in (-np.inf, np.inf):
            nearby = near[0]
            for _ in range(5):
                nearby = np.nextafter(nearby, dtype(direction))
                near.append(nearby)
        values = np.concatenate(near).clip(0, 1)
    for threshold in THRESHOLDS:
        wanted = probabilities(values, invert=invert).astype(np.float64) > threshold
        cut = stored_cut(threshold, dtype, invert=invert)
        rule = LabelRule(connectivity=4, threshold=cut, invert=invert)
        np.testing.assert_array_equal(rule.foreground(values), wanted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_stored_rule_compares_as_version_0_1_0_did(dtype: type) -> None:
    values: npt.NDArray[Any] = np.linspace(0, 1, 2049).astype(dtype)
    for threshold in (0.3, 0.6, 0.7, 0.9, 0.9999):
        rule = LabelRule(connectivity=4, threshold=threshold)
        np.testing.assert_array_equal(rule.foreground(values), values > dtype(threshold))
