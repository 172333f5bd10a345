"""The codec pipelines that ``bench_io`` compares, each as a function of a box or of an array."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from tilenet.geometry import ZYX, Box
from tilenet.inference import keep_freed_memory
from tilenet.volumes import CODECS, NewVolume, create_volume, open_volume, reopen_for_writing

HAS_TENSORSTORE = importlib.util.find_spec("tensorstore") is not None

_PATHS = {
    "zarrs": "zarrs.ZarrsCodecPipeline",
    "zarr-python": "zarr.core.codec_pipeline.BatchedCodecPipeline",
}

#: Bytes that tensorstore may keep of decoded chunks where its cache is on.
CACHE = 256 * 2**20

Reader = Callable[[Box], npt.NDArray[Any]]
Writer = Callable[[npt.NDArray[Any]], None]


def limit_cores(cores: int) -> None:
    """Bind this process to some cores, and give every pipeline as many threads.

    To be called before any of them has started a thread.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    os.environ["RAYON_NUM_THREADS"] = str(cores)  # zarrs
    zarr.config.set({"threading.max_workers": cores})  # zarr-python, and zarrs
    keep_freed_memory()  # as in workers that predict
    # Names of our compressor with other levels, for comparison.
    for level in (1, 3):
        CODECS[f"zstd-{level}"] = lambda n=level: [ZstdCodec(level=n, checksum=True)]


def create(
    path: Path, shape: ZYX, *, chunk: ZYX, shard: ZYX, codec: str = "zstd", dtype: str = "uint8"
) -> None:
    """Create an empty volume of ours, in the place of one that was there."""
    shutil.rmtree(path, ignore_errors=True)
    new = NewVolume(shape=shape, dtype=dtype, chunk=chunk, shard=shard, codec=codec, attributes={})
    create_volume(str(path), new)


def _open(path: Path, pipeline: str, mode: Any) -> zarr.Array[Any]:
    settings = {"codec_pipeline.path": _PATHS[pipeline], "codec_pipeline.strict": True}
    with zarr.config.set(settings):
        array = zarr.open_array(LocalStore(path, read_only=mode == "r"), path="0", mode=mode)
        return array.with_config({"write_empty_chunks": True})


def _tensorstore(path: Path, cores: int, *, synced: bool = True, cache: int = 0) -> Any:
    import tensorstore

    context = {
        "cache_pool": {"total_bytes_limit": cache},
        "data_copy_concurrency": {"limit": cores},
        "file_io_concurrency": {"limit": cores},
        "file_io_sync": synced,
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path / "0")},
        "store_data_equal_to_fill_value": True,
        "context": context,
    }
    return tensorstore.open(spec, open=True, read=True, write=True).result()


def readers(path: Path, cores: int) -> dict[str, Callable[[], Reader]]:
    """Give every way to read a volume rightly; it is opened when called, with an empty cache."""
    found: dict[str, Callable[[], Reader]] = {
        "tilenet": lambda: open_volume(str(path)).read,
        "zarr-python": lambda: _read_by_zarr(path, "zarr-python"),
    }
    if HAS_TENSORSTORE:
        found["tensorstore"] = lambda: _read_by_tensorstore(path, cores, cache=0)
        found["tensorstore, cache"] = lambda: _read_by_tensorstore(path, cores, cache=CACHE)
    return found


def raw_readers(path: Path, cores: int) -> dict[str, Callable[[], Reader]]:
    """Give every way to read a volume, also by zarrs where tilenet would not."""
    return {**readers(path, cores), "zarrs": lambda: _read_by_zarr(path, "zarrs")}


def _read_by_zarr(path: Path, pipeline: str) -> Reader:
    array = _open(path, pipeline, "r")
    return lambda box: np.asarray(array[box.slices])


def _read_by_tensorstore(path: Path, cores: int, *, cache: int) -> Reader:
    store = _tensorstore(path, cores, cache=cache)
    return lambda box: np.asarray(store[box.slices].read().result())


def _in_parts(path: Path, parts: int) -> Writer:
    volume = reopen_for_writing(str(path))

    def write(values: npt.NDArray[Any]) -> None:
        step = values.shape[0] // parts
        for z in range(0, values.shape[0], step):
            part = Box((z, 0, 0), (z + step, values.shape[1], values.shape[2]))
            volume.write(part, values[part.slices[0]])

    return write


def _write_by_zarr(path: Path, pipeline: str) -> Writer:
    array = _open(path, pipeline, "r+")

    def write(values: npt.NDArray[Any]) -> None:
        array[:] = values

    return write


def _write_by_tensorstore(path: Path, cores: int, *, synced: bool) -> Writer:
    store = _tensorstore(path, cores, synced=synced)
    return lambda values: store.write(values).result()


def writers(path: Path, cores: int) -> dict[str, Callable[[], Writer]]:
    """Give every way to write a created volume; it is opened when called."""
    found: dict[str, Callable[[], Writer]] = {
        "tilenet": lambda: _in_parts(path, 1),
        "tilenet, in 4 parts": lambda: _in_parts(path, 4),
        "zarr-python (no sync)": lambda: _write_by_zarr(path, "zarr-python"),
        "zarrs (no sync, in place)": lambda: _write_by_zarr(path, "zarrs"),
    }
    if HAS_TENSORSTORE:
        found["tensorstore"] = lambda: _write_by_tensorstore(path, cores, synced=True)
        found["tensorstore (no sync)"] = lambda: _write_by_tensorstore(path, cores, synced=False)
    return found
