"""Which files a folder or a pattern means, in the order of their sections."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from natsort import natsorted, ns

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats.files import OPENERS, PNG, TIFF
from tilenet.volumes.stores import recognise

ACCEPTED = (
    f"Give a file ending in {', '.join(OPENERS)} (FILE.h5:/DATASET, FILE.npz:NAME), "
    'a folder of TIFF or PNG files, a quoted pattern such as "sections/*.tif", or a Zarr'
)

#: A message names at most so many subfolders.
_LISTED = 4


def section_files(location: str, folder: Path) -> list[Path]:
    """List the sections in a folder, or those that a pattern means."""
    if folder.is_dir():
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    elif glob.has_magic(location):
        pattern = str(Path(location).expanduser())
        found = [Path(p) for p in glob.glob(pattern)]  # noqa: PTH207  pathlib's is relative only
    else:
        _refuse_kind(location, "")
        raise UnreadableVolume(location, "does not exist", f"Check the path. {ACCEPTED}")
    kinds = {
        kind: [path for path in found if path.suffix.lower() in suffixes and path.is_file()]
        for kind, suffixes in (("TIFF", TIFF), ("PNG", PNG))
    }
    paths = kinds["TIFF"] or kinds["PNG"]
    if folder.is_dir():  # an image may lie beside what the folder really is
        images = f"{glob.escape(location.rstrip('/'))}/*{paths[0].suffix}" if paths else ""
        _refuse_kind(location, images)
    if all(kinds.values()):
        seen = tuple(f"{len(paths)} {kind}" for kind, paths in kinds.items())
        cure = 'Choose with a quoted pattern, for example "sections/*.tif"'
        raise AmbiguousVolume(location, "means files of several kinds", seen, cure)
    if not paths:
        _refuse_without_sections(location, folder, natsorted(found))
    return natsorted((path.absolute() for path in paths), alg=ns.PATH)


def _refuse_kind(location: str, images: str) -> None:
    kind = recognise(location)
    if kind is not None and not kind.is_ingested:
        cure = f'{kind.cure}; or give the images in it with a quoted pattern: "{images}"'
        cure = cure if images else kind.cure
        raise UnreadableVolume(location, f"is {kind.name}, which is not read", cure)


def _refuse_without_sections(location: str, folder: Path, found: Sequence[Path]) -> NoReturn:
    problem, cure = "means no TIFF or PNG file", ACCEPTED
    if folder.is_dir():
        images = [p for p in folder.glob("*/[!.]*") if p.suffix.lower() in (*TIFF, *PNG)]
        counts = natsorted(Counter(path.parent.name for path in images).items())
        if counts:
            seen = [f"{name} ({count})" for name, count in counts[:_LISTED]]
            seen += ["..."] if len(counts) > _LISTED else []
            problem = "means no TIFF or PNG file, but has subfolders of them"
            cure = f"Give one of them, for example {folder / counts[0][0]}"
            raise AmbiguousVolume(location, problem, tuple(seen), cure)
    kind = recognise(str(found[0])) if found and not folder.is_dir() else None
    if kind is not None:
        problem = f"means {len(found)} files such as {found[0].name}, {kind.name}"
        cure = f"Give it alone: {found[0]}" if kind.is_ingested else kind.cure
    elif "[" in location and not found:
        cure = "In a pattern, [ab] stands for a or b; write [[] for a [ in a name"
    raise UnreadableVolume(location, problem, cure)
