"""A headless Chromium that takes pictures of pages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Found or not; Debian's package is called so.
CHROMIUM = shutil.which("chromium")

#: Milliseconds of the page's own time before the picture is taken: two polls and a map.
PAGE_TIME = 3000


def screenshot(address: str, file: Path, size: tuple[int, int] = (1200, 1300)) -> None:
    """Open a page in a browser without a past, and store what it shows."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--screenshot={file}",
                f"--window-size={size[0]},{size[1]}", f"--virtual-time-budget={PAGE_TIME}", address,
            ],
            check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def pixels_of(image: Path | Image.Image, colour: tuple[int, int, int]) -> int:
    """Count the pixels of a colour; a decoder may be off by two."""
    opened = Image.open(image) if isinstance(image, Path) else image
    values: npt.NDArray[np.int16] = np.asarray(opened.convert("RGB"), dtype=np.int16)
    return int((np.abs(values - np.array(colour)) <= 2).all(axis=-1).sum())
