"""Axes that a file states and that may be meant otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from tests.support.source_checks import Array, Writer, ambiguous, check, random_values
from tilenet.formats import open_source


def labelled_hdf5(axes: str) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        with h5py.File(folder / "em.h5", "w") as file:
            dataset = file.create_dataset("raw", data=truth[np.newaxis])
            for dimension, name in zip(dataset.dims, axes, strict=True):
                dimension.label = name
        return str(folder / "em.h5")

    return write


def unnamed_tiff(**options: Any) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        path = folder / ("em.tif" if "imagej" in options else "em.ome.tif")
        tifffile.imwrite(path, truth, **options)  # tifffile calls the first axis C
        return str(path)

    return write


@pytest.mark.parametrize(
    ("write", "sections", "channels"),
    [
        (unnamed_tiff(imagej=True), "zyx", "cyx"),
        (unnamed_tiff(), "zyx", "cyx"),
        (labelled_hdf5("zcyx"), "czyx", "zcyx"),
        (labelled_hdf5("tcyx"), "tzyx", "tcyx"),
    ],
)
def test_many_channels_of_one_section_may_be_sections(
    tmp_path: Path, write: Writer, sections: str, channels: str
) -> None:
    truth = random_values("uint8", (5, 33, 50))
    location = write(tmp_path, truth)
    ambiguous(
        location,
        rf"has 5 channels and one section \(.*c=5, y=33, x=50\).*"
        rf"sections: --axes {sections}, or to keep them: --axes {channels}\.",
    )
    check(open_source(location, axes=sections), truth)
    check(open_source(location, axes=channels), truth[:, np.newaxis])
    check(open_source(location, channel=2), truth[2:3])
    check(open_source(write(tmp_path, truth[:4])), truth[:4, np.newaxis])
