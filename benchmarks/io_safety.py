"""What becomes of shards when something goes wrong: facts of ``bench_io``, not timings."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.io_pipelines import Reader, create, limit_cores, raw_readers, writers
from tilenet.geometry import ZYX, Box
from tilenet.volumes import reopen_for_writing

SHAPE, CHUNK = (64, 256, 256), (16, 64, 64)

#: Bytes after which the disk is "full".
LIMIT = 2**20

#: Bits that are flipped in a stored shard, one after the other.
FLIPS = 20

#: A box that cuts chunks on all sides: checksums have to hold for parts too.
PART = Box((1, 1, 1), (63, 255, 255))


def facts(folder: str) -> dict[str, dict[str, str]]:
    """Try every pipeline, in a process of its own: the limit on files stays."""
    limit_cores(1)
    path = Path(folder) / "facts.zarr"
    values = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    found: dict[str, dict[str, str]] = {}
    for codec in ("zstd", "none"):
        row = "bits flipped, zstd" if codec == "zstd" else "bits flipped, crc32c"
        _new(path, SHAPE, codec)
        reopen_for_writing(str(path)).write(Box.of_shape(SHAPE), values)
        for name, opened in raw_readers(path, 1).items():
            found.setdefault(name, {})[row] = _flip(path, opened(), values)
    names = list(writers(path, 1))
    for name in names:
        _new(path, SHAPE)
        writers(path, 1)[name]()(np.zeros(SHAPE, np.uint8))
        stored = "stored" if _shards(path) else "skipped"
        found.setdefault(name, {})["a shard of zeros"] = stored
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    for name in names:
        found[name]["disk full in mid-shard"] = _fill(path, name, values)
    return found


def _new(path: Path, shape: ZYX, codec: str = "zstd") -> None:
    create(path, shape, chunk=CHUNK, shard=shape, codec=codec)


def _shards(path: Path) -> list[Path]:
    return [file for file in (path / "0" / "c").glob("*/*/*") if file.name.isdigit()]


def _flip(path: Path, read: Reader, values: npt.NDArray[np.uint8]) -> str:
    (shard,) = _shards(path)
    whole, rng, noticed = shard.read_bytes(), np.random.default_rng(1), 0
    for place in rng.integers(0, len(whole) - 4096, FLIPS):  # not in the index, at the end
        damaged = bytearray(whole)
        damaged[place] ^= 16
        shard.write_bytes(damaged)
        try:
            read(PART)
        except Exception:  # each pipeline has errors of its own
            noticed += 1
    shard.write_bytes(whole)
    np.testing.assert_array_equal(read(PART), values[PART.slices])
    return f"{noticed} of {FLIPS} noticed"


def _fill(path: Path, name: str, values: npt.NDArray[np.uint8]) -> str:
    _new(path, SHAPE)
    try:
        writers(path, 1)[name]()(values)
    except Exception:  # each pipeline has errors of its own
        raised = True
    else:
        raised = False
    left = "".join(f", {file.stat().st_size} bytes left as a shard" for file in _shards(path))
    return ("error" if raised else "no error") + (left or ", nothing left as a shard")
