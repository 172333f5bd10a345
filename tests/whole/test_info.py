"""``tilenet info`` describes all that ``tilenet ingest`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from pipelines import cli

VALUES = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """What it prints as JSON, which it prints for people too."""
    given = [str(argument) for argument in arguments]
    assert cli.run(["info", *given]) == 0
    assert capsys.readouterr().out
    assert cli.run(["info", *given, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_tiff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"Z": 50.0, "Y": 6.0, "X": 4.0}
    physical = {f"PhysicalSize{axis}": nm for axis, nm in sizes.items()}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in sizes}
    metadata = {"axes": "CZYX", "Channel": {"Name": ["SE", "BSE"]}, **physical, **units}
    tifffile.imwrite(
        tmp_path / "em.ome.tif", VALUES, ome=True, photometric="minisblack", metadata=metadata
    )
    found = facts(capsys, tmp_path / "em.ome.tif")
    assert found["kind"] == "a TIFF file"
    assert found["shape (z, y, x)"] == [3, 4, 5]
    assert found["channels"] == ["SE", "BSE"]
    assert found["type"] == "uint16"
    assert found["voxel size (z, y, x), nm"] == [50.0, 6.0, 4.0]
    assert found["stored axes"] == "czyx"


def test_a_folder_of_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.fromarray(VALUES[0, i].astype(np.uint8)).save(tmp_path / f"s{i}.png")
    found = facts(capsys, tmp_path)
    assert found["kind"] == "3 files, from s0.png to s2.png, the first a PNG image"
    assert (found["shape (z, y, x)"], found["stored axes"]) == ([3, 4, 5], "yx")
    assert found == facts(capsys, f"{tmp_path}/*.png")


def test_what_files_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["volumes/raw"] = VALUES[0]
        file["volumes/labels"] = VALUES[0].astype(np.uint64)
    np.savez(tmp_path / "em.npz", raw=VALUES[0], other=np.zeros(3))
    with tifffile.TiffWriter(tmp_path / "em.tif") as tiff:
        tiff.write(VALUES[0], photometric="minisblack")
        tiff.write(VALUES[0, 0, :2, :2], photometric="minisblack")
    held = {name: facts(capsys, tmp_path / name)["holds"] for name in ("em.h5", "em.npz")}
    raw, labels = "3 x 4 x 5 uint16", "3 x 4 x 5 uint64"
    assert held["em.h5"] == {"/volumes/labels": labels, "/volumes/raw": raw}
    assert held["em.npz"] == {"raw": raw, "other": "3 float64"}
    for inner in ("em.h5:/volumes/raw", "em.npz:raw"):
        assert facts(capsys, f"{tmp_path}/{inner}")["shape (z, y, x)"] == [3, 4, 5]
    assert facts(capsys, tmp_path / "em.h5:/volumes/raw")["kind"] == "an HDF5 file"


def test_options_are_those_of_ingest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "em.npy", VALUES)
    found = facts(capsys, tmp_path / "em.npy", "--axes", "czyx", "--channel", "1")
    assert (found["kind"], found["channels"]) == ("a NumPy file", 1)
    found = facts(capsys, tmp_path / "em.npy", "--axes", "czyx")
    assert found["channels"] == ["channel 0", "channel 1"]
    assert cli.run(["info", str(tmp_path / "em.npy")]) == 1
    assert "--axes czyx" in capsys.readouterr().err


def test_a_zarr_and_its_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "em.npy", VALUES[0])
    size, region = ("--voxel-size", "50,6,4"), ("--region", "z=1:3")
    ingested = ["ingest", str(tmp_path / "em.npy"), str(tmp_path / "em.zarr"), *size, *region]
    assert cli.run(ingested) == 0
    capsys.readouterr()
    found = facts(capsys, tmp_path / "em.zarr")
    assert found["position (z, y, x), nm"] == [50.0, 0.0, 0.0]
    assert found["provenance"]["region"] == [[1, 3], [0, 4], [0, 5]]


def test_what_is_not_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "em").write_bytes(b"NRRD0004\n")
    assert cli.run(["info", str(tmp_path / "em")]) == 1
    assert "an NRRD file" in capsys.readouterr().err
    zarr.create_group(tmp_path / "empty.zarr")
    assert cli.run(["info", str(tmp_path / "empty.zarr")]) == 1
    assert "is a Zarr group without an image" in capsys.readouterr().err


def test_axes_are_the_problem_and_not_which_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"], file["table"] = VALUES, np.zeros((50, 3))
    assert cli.run(["info", str(tmp_path / "em.h5")]) == 1
    assert "axes of unknown meaning" in capsys.readouterr().err


def test_an_image_of_several_in_each_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        with tifffile.TiffWriter(tmp_path / f"s{i}.tif") as tiff:
            tiff.write(VALUES[0, i], photometric="minisblack")
            tiff.write(VALUES[0, i, :2, :2], photometric="minisblack")
    assert cli.run(["info", str(tmp_path)]) == 1
    assert "with --series" in capsys.readouterr().err
    assert facts(capsys, tmp_path, "--series", "1")["shape (z, y, x)"] == [3, 2, 2]


def test_what_groups_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = zarr.create_group(tmp_path / "several.zarr")
    several["raw"], several["labels"] = VALUES[0], VALUES[0].astype(np.uint64)
    plate = zarr.create_group(tmp_path / "plate.zarr", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "A/2"}]}
    for well in ("A/1", "A/2"):
        plate.create_group(well).attrs["well"] = {"images": [{"path": "0"}]}
    plate["A/1/0/0"] = VALUES[0]
    found = facts(capsys, tmp_path / "several.zarr")
    assert found == {"holds": {"labels": "3 x 4 x 5 uint64", "raw": "3 x 4 x 5 uint16"}}
    held = facts(capsys, tmp_path / "plate.zarr")["holds"]
    assert held["A/1/0"] == "3 x 4 x 5 uint16"
    assert held["A/2/0"] == "does not exist"


def test_the_walk_of_a_file_is_that_of_ingest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["raw"] = VALUES[0]
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["s10"], file["s2"], file["#refs#/a"] = VALUES[0], VALUES[1], VALUES[0]
        file["linked"] = h5py.ExternalLink("part.h5", "/raw")
    assert list(facts(capsys, tmp_path / "em.h5")["holds"]) == ["/linked", "/s2", "/s10"]
