"""Sound files of every kind that tilenet reads, to be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import zarr
from PIL import Image

from tests.support.oracles import ARCHITECTURES, random_network, save_softmax
from tilenet.geometry import Box
from tilenet.volumes import NewVolume, create_volume, reopen_for_writing
from tilenet.volumes.ome_metadata import image_attributes

SHAPE = (5, 20, 24)  # 3 or 4 pages might be colours

CACHE = {
    "format_version": 1,
    "measurements": [
        {
            "key": {"machine": "m", "architecture": "a", "precision": "float32", "threads": 1,
                    "workers": 2, "codec": "zstd"},
            "fed": {"axis": 1, "slab": 32, "plane": 4096},
            "rates": {"compute": 1e11, "read": 3e8, "write": 1e8, "start": 4.0,
                      "measured": "2026-01-01"},
        }
    ],
}  # fmt: skip

PROFILE = """
kind = "slurm"
queue = "gpu"
walltime = "12:00:00"
memory = "64GB"
gpus_per_job = 2
slots = 3
max_jobs = 20
directives = ["--constraint=a100"]
setup = ["module load cuda"]
interface = "ib0"
"""


def values() -> np.ndarray:
    """What all of them hold."""
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def ours(path: Path, dtype: str = "uint8", **attributes: object) -> None:
    """A volume as our commands write it, of four shards."""
    new = NewVolume(
        shape=SHAPE, dtype=dtype, chunk=(1, 10, 24), shard=(5, 10, 24),
        voxel_size=(50.0, 4.0, 4.0), attributes={"kind": "volume", **attributes},
    )  # fmt: skip
    create_volume(str(path), new)
    written = values().astype(dtype)
    reopen_for_writing(str(path)).write(Box.of_shape(SHAPE), written)


def ome04(path: Path) -> None:
    """An OME-Zarr 0.4 in Zarr v2, with two levels."""
    group = zarr.create_group(path, zarr_format=2)
    for level in ("0", "s1"):
        array = group.create_array(level, shape=SHAPE, chunks=(2, 10, 24), dtype="uint8")
        array[:] = values()
    image = image_attributes("x", (50.0, 4.0, 4.0))["ome"]["multiscales"][0]
    image["datasets"].append({**image["datasets"][0], "path": "s1"})
    group.attrs.put({"multiscales": [{**image, "version": "0.4"}]})


def near_ome(folder: Path) -> None:
    """OME-Zarr 0.3, 0.6 and OpenOrganelle's, and an array with attributes of funlib and N5."""
    sizes = {"type": "scale", "scale": [50.0, 4.0, 4.0]}
    moves = {"type": "translation", "translation": [25.0, 2.0, 2.0]}
    steps = {"type": "sequence", "transformations": [sizes, moves], "output": {"name": "a"}}
    system = {"name": "a", "axes": [{"name": n, "type": "space", "unit": "um"} for n in "zyx"]}
    place: dict[str, Any] = {
        "axes": list("zyx"), "units": ["nm"] * 3, "scale": [50, 4, 4], "translate": [0, 2, 2],
    }  # fmt: skip
    images: dict[str, dict[str, Any]] = {
        "0.3": {"axes": list("zyx"), "datasets": [{"path": "s0"}]},
        "0.6": {
            "coordinateSystems": [system],
            "datasets": [{"path": "s0", "coordinateTransformations": [steps]}],
        },
        "0.4": {"datasets": [{"path": "s0", "transform": place}]},
    }
    for version, image in images.items():
        group = zarr.create_group(folder / f"near{version}.zarr", zarr_format=2)
        group.create_array("s0", data=values(), chunks=(2, 10, 24))
        group.attrs["multiscales"] = [{"version": version, **image}]
    stated = zarr.create_array(
        folder / "stated.zarr", data=values(), chunks=(2, 10, 24), zarr_format=2
    )
    stated.attrs.update(
        {
            "transform": place, "voxel_size": [50, 4, 4], "offset": [0, 8, 8], "units": ["nm"] * 3,
            "axis_names": list("zyx"), "downsamplingFactors": [1, 1, 1],
            "pixelResolution": {"dimensions": [4, 4, 50], "unit": "nm"},
        }
    )  # fmt: skip


def arrays(folder: Path) -> None:
    """Plain arrays: Zarr v3 and v2, of chunks and of codecs that are read in other ways."""
    for name, form, dtype in (("v3", 3, "uint8"), ("v2", 2, "uint8"), ("big", 3, ">u2")):
        array = zarr.create_array(
            folder / f"{name}.zarr",
            shape=SHAPE,
            chunks=(2, 10, 24),
            dtype=dtype,
            zarr_format=3 if form == 3 else 2,
        )
        array[:] = values()


def images(folder: Path) -> None:
    """TIFF, PNG, HDF5 and NumPy files."""
    data = values()
    tifffile.imwrite(folder / "plain.tif", data)
    tifffile.imwrite(folder / "deflate.tif", data, compression="zlib", rowsperstrip=5)
    tifffile.imwrite(folder / "tiles.tif", data, tile=(16, 16), compression="lzw")
    tifffile.imwrite(
        folder / "fiji.tif",
        data,
        imagej=True,
        metadata={"spacing": 50, "unit": "nm", "axes": "ZYX"},
    )
    tifffile.imwrite(folder / "ome.ome.tif", data, ome=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "big.tif", data.astype(">u2"), bigtiff=True)
    Image.fromarray(data[0]).save(folder / "grey.png")
    Image.fromarray(data[0].astype(np.uint16) * 99).save(folder / "grey16.png")
    np.save(folder / "x.npy", data)
    np.savez_compressed(folder / "x.npz", a=data)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("raw", data=data, chunks=(1, 10, 24), compression="gzip")
        file["raw"].attrs["element_size_um"] = [0.05, 0.004, 0.004]
        file["raw"].attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyx"]})


def make_seeds(folder: Path) -> None:
    """Write them all; the outputs of commands are written by the targets that go on with them."""
    ours(folder / "ours.zarr")
    ome04(folder / "ome04.zarr")
    near_ome(folder)
    arrays(folder)
    images(folder)
    network = random_network(ARCHITECTURES["planar"])
    save_softmax(folder / "model.safetensors", network)
    recipe = Path(__file__).parents[2] / "pipelines" / "train" / "recipes" / "isbi2012-cpu.toml"
    (folder / "recipe.toml").write_text(recipe.read_text())
    (folder / "profile.toml").write_text(PROFILE)
    (folder / "calibration.json").write_text(json.dumps(CACHE))
