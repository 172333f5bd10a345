"""PNG files as sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from tilenet.errors import UnreadableVolume
from tilenet.formats.axes import StoredArray

#: Factors by which Pillow spreads grey values of 2 and 4 bits over 0..255, by its name for them.
_SPREAD = {"L;2": 85, "L;4": 17}

_CURE = "Save it as greyscale of 8 or 16 bits, for example in Fiji"


def open_png(path: str, inner: str | None = None) -> StoredArray:
    """Open a PNG file, which is decoded whole at every reading."""
    del inner
    # Not Image.open: it refuses large sections as decompression bombs.
    with PngImageFile(path) as image:
        return _stored(path, image)


def _stored(path: str, image: PngImageFile) -> StoredArray:
    coding = str(image.tile[0][3])  # Pillow's name for what is in the file
    if image.mode == "P":
        problem = "has a colour palette, so its values are numbers of colours"
        raise UnreadableVolume(path, problem, _CURE)
    if coding.endswith(";16B") and image.mode != "I;16":  # Pillow would drop 8 of the 16 bits
        raise UnreadableVolume(path, "has colours or opacity of 16 bits", _CURE)
    bands = len(image.getbands())
    sizes = (image.height, image.width, bands)[: 3 if bands > 1 else 2]
    dtype = np.dtype(np.uint16 if image.mode == "I;16" else np.uint8)
    spread = _SPREAD.get(coding, 1)

    def read(ranges: Sequence[slice]) -> npt.NDArray[Any]:
        with PngImageFile(path) as opened:
            values = np.asarray(opened)
        return values[tuple(ranges)].astype(dtype) // spread

    return StoredArray(sizes, dtype, sizes, read, names="YXS"[: len(sizes)])
