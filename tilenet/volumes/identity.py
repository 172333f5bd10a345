"""Recognising an input without reading it all, wherever it lies."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from tilenet.errors import UnreadableVolume
from tilenet.geometry import Box, unravel, zyx
from tilenet.volumes.listing import lattice, touched
from tilenet.volumes.stores import stored_sizes
from tilenet.volumes.volume import Volume

#: At most this many shards are looked at.
SAMPLES = 256


def sampled_shards(volume: Volume) -> dict[str, Box]:
    """Choose shards spread evenly over a volume.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    dict
        Key of a stored object, relative to the array, to the voxels that it holds.
    """
    crop = volume.layout.crop
    if crop is None:
        ranges, origin = [range(n) for n in lattice(volume.array)], zyx((0, 0, 0))
    else:
        whole = volume.layout.index(Box.of_shape(volume.shape))
        ranges, origin = touched(volume.array, whole), crop.start
    counts = [len(each) for each in ranges]
    total = math.prod(counts)
    chosen = {}
    for pick in sorted({i * total // SAMPLES for i in range(SAMPLES)}):
        position = unravel(pick, counts)
        coordinates = tuple(each[i] for each, i in zip(ranges, position, strict=True))
        by_axis = dict(zip(volume.layout.axes, coordinates, strict=True))
        start = zyx(
            by_axis.get(axis, 0) * step
            for axis, step in zip("zyx", volume.write_shape, strict=True)
        )
        stop = zyx(a + n for a, n in zip(start, volume.write_shape, strict=True))
        box = Box(start, stop).relative_to(origin).intersect(Box.of_shape(volume.shape))
        chosen[volume.array.metadata.encode_chunk_key(coordinates)] = box
    return chosen


def identify(volume: Volume) -> dict[str, Any]:
    """Recognise a volume's content, independent of where it lies.

    It compares the normalised metadata and the stored sizes of up to :data:`SAMPLES` shards. It
    cannot tell voxels that were changed in place such that no sampled shard changed its size.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    dict
        JSON values.
    """
    keys = list(sampled_shards(volume))
    try:
        sizes = stored_sizes(volume.array, keys)
    except OSError as error:
        raise UnreadableVolume.unreachable(volume.location, error) from error
    crop = volume.layout.crop
    part = {} if crop is None else {"crop": {"start": list(crop.start), "stop": list(crop.stop)}}
    return {
        **part,
        "shape": list(volume.array.shape),
        "dtype": str(volume.dtype),
        "axes": "".join(volume.layout.axes),
        "channel": volume.layout.channel,
        "chunks": list(volume.array.chunks),
        "shards": list(volume.array.shards or volume.array.chunks),
        "fill_value": str(volume.array.fill_value),
        "stored_bytes": dict(zip(keys, sizes, strict=True)),
    }


def fingerprint(volume: Volume) -> str:
    """Give the identity of a volume as one short text.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    str
        SHA-256 of :func:`identify`, hexadecimal.
    """
    return digest_of(identify(volume))


def digest_of(identity: Mapping[str, Any]) -> str:
    """Give the fingerprint of a volume of which only the identity is known.

    Parameters
    ----------
    identity : mapping
        As :func:`identify` gives it, or as an output states it of its input.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    text = json.dumps(dict(identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
