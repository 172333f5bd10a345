"""The codecs that a volume can be stored with."""

from __future__ import annotations

from typing import Any

from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.registry import get_codec_class

from tilenet.errors import InvalidData

#: Compressors by the name that --codec takes, each with a checksum: without one, most flipped bits
#: of a chunk decode to other voxels and nobody notices (measured). zstd and gzip have their own.
CODECS: dict[str, Any] = {
    "zstd": lambda: [ZstdCodec(level=3, checksum=True)],
    "blosc-zstd": lambda: [BloscCodec(cname="zstd", clevel=3), Crc32cCodec()],
    "blosc-lz4": lambda: [BloscCodec(cname="lz4", clevel=5), Crc32cCodec()],
    "gzip": lambda: [GzipCodec(level=5)],
    "none": lambda: [Crc32cCodec()],
}


def compressors(name: str) -> list[Any]:
    """Make the compressor that a name stands for, and a checksum.

    Parameters
    ----------
    name : str
        One of :data:`CODECS`, or ``numcodecs.NAME``, for example ``numcodecs.bz2``.

    Returns
    -------
    list of zarr codecs
        What ``zarr.create_array(compressors=...)`` takes.
    """
    if name in CODECS:
        codecs: list[Any] = CODECS[name]()
        return codecs
    try:
        if not name.startswith("numcodecs."):
            raise KeyError(name)
        codec = get_codec_class(name)()
        if not isinstance(codec, BytesBytesCodec):
            raise TypeError(name)
        return [codec, Crc32cCodec()]
    except (KeyError, TypeError, ImportError) as error:
        known = ", ".join([*CODECS, "numcodecs.lz4", "numcodecs.bz2"])
        raise InvalidData(f"Codec {name!r}", "is not known", f"Choose one of: {known}.") from error
