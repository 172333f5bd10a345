"""A headless Chromium that takes pictures of pages, and says what their scripts made of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Found or not; Debian's package is called so.
CHROMIUM = shutil.which("chromium")

#: Milliseconds of the page's own time before the picture is taken: two polls and a map.
PAGE_TIME = 3000


#: Elements that have no end.
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Elements of a page, and the text within each that has an id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: defaultdict[str, str] = defaultdict(str)
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)

    def rows(self, name: str) -> list[list[str]]:
        """Give the cells of a table's rows."""
        return [row.split("\t")[1:] for row in self.text[name].split("\n")[1:]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.handle_data({"tr": "\n", "td": "\t"}.get(tag, ""))
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            if name:
                self.text[name] += data


def screenshot(address: str, file: Path, size: tuple[int, int] = (1200, 1300)) -> Page:
    """Open a page in a browser without a past, store what it shows, and give what it became."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        done = subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--dump-dom", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--screenshot={file}",
                f"--window-size={size[0]},{size[1]}", f"--virtual-time-budget={PAGE_TIME}", address,
            ],
            check=True, timeout=120, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return Page(done.stdout)


def pixels_of(image: Path | Image.Image, colour: tuple[int, int, int]) -> int:
    """Count the pixels of a colour; a decoder may be off by two."""
    opened = Image.open(image) if isinstance(image, Path) else image
    values: npt.NDArray[np.int16] = np.asarray(opened.convert("RGB"), dtype=np.int16)
    return int((np.abs(values - np.array(colour)) <= 2).all(axis=-1).sum())
