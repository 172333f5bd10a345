"""OME-XML of TIFF files: the images that it describes, and the files that it names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree as ET

import tifffile

from tilenet.errors import UnreadableVolume

_CURE = "Put it in its place again, under that name, or save the image as one file"

_TIFF = (".tif", ".tiff", ".btf", ".tf8")


def open_whole(path: str) -> tifffile.TiffFile:
    """Open a TIFF file, or the one that has the OME-XML where it only names that.

    A file that the OME-XML names and that is missing is an error: tifffile reads zeros for it.
    """
    file = tifffile.TiffFile(path)
    try:
        main = _main_file(path, file)
        if main is not None and main.suffix.lower() in _TIFF:
            file.close()
            path, file = str(main), tifffile.TiffFile(main)
        elif main is not None:
            file.close()
            file = tifffile.TiffFile(path, omexml=main.read_text(encoding="utf-8"))
        for other in _others(path, file):
            _check_there(path, other)
    except BaseException:
        file.close()
        raise
    return file


def files_of_set(path: str) -> list[str]:
    """Give all files of the image that a file is a part of; none where it is whole."""
    try:
        with open_whole(path) as file:
            others = _others(path, file)
            return [str(file.filehandle.path), *map(str, others)] if others else []
    except UnreadableVolume:
        raise
    except Exception:  # a damaged file, which is reported when it is opened to be read
        return []


def ome_image(file: tifffile.TiffFile, index: int) -> ET.Element | None:
    """Give what OME-XML says of the image with that index, where it is plain which that is."""
    root = _root(file)
    images = [] if root is None else list(root.iterfind("{*}Image"))
    # tifffile passes over images without data.
    return images[index] if len(images) == len(file.series) else None


def _main_file(path: str, file: tifffile.TiffFile) -> Path | None:
    """Give the file that has the OME-XML where this one only names it."""
    root = _root(file)
    only = None if root is None else next(iter(root.iterfind("{*}BinaryOnly")), None)
    if only is None:
        return None
    main = Path(path).parent / only.attrib["MetadataFile"]
    _check_there(path, main)
    return main


def _others(path: str, file: tifffile.TiffFile) -> list[Path]:
    root = _root(file)
    if root is None:
        return []
    own = {Path(path).name.lower()}
    seen = {
        found.attrib["FileName"]: None
        for found in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")
        # A file that was renamed is still known by its UUID.
        if "FileName" in found.attrib and found.text != root.attrib.get("UUID")
    }
    folder = Path(file.filehandle.dirname)
    return [folder / name for name in seen if name.lower() not in own]


def _root(file: tifffile.TiffFile) -> ET.Element | None:
    xml = file.ome_metadata
    return _parse(xml) if xml else None


@lru_cache(maxsize=1)  # it may be long, and several ask for that of one file
def _parse(xml: str) -> ET.Element | None:
    try:
        return ET.fromstring(xml)  # noqa: S314  as tifffile reads it
    except ET.ParseError:
        return None  # tifffile says so


def _check_there(path: str, other: Path) -> None:
    if not other.is_file():
        problem = f"is a part of an image in several files, of which {other.name} is missing"
        raise UnreadableVolume(path, problem, _CURE)
