"""Skeletons of neurons: SWC files, or a table of nodes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData

#: Columns of a table.
COLUMNS = ("id", "z", "y", "x", "parent")

_CURE = (
    "Give SWC (id type x y z radius parent), or CSV with the columns id, z, y, x, parent; in nm."
)

#: Number of a node, its z, y and x, and its parent's number.
_Node = tuple[int, float, float, float, int]


@dataclass(frozen=True, eq=False)
class Skeletons:
    """Nodes of skeletons, and the edges between them.

    Parameters
    ----------
    points : ndarray of float64, (n, 3)
        Nanometres, (z, y, x).
    skeleton : ndarray of int64, (n,)
        Which skeleton each node is of, from 0.
    edges : ndarray of int64, (m, 2)
        Indices of nodes.
    """

    points: npt.NDArray[np.float64]
    skeleton: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]


def read_skeletons(path: str) -> Skeletons:
    """Read a file, or a folder of SWC files.

    Parameters
    ----------
    path : str
        An SWC file is one skeleton; in a CSV file those are that no edge joins.

    Returns
    -------
    Skeletons
        Coordinates are taken for nanometres.
    """
    place = Path(path)
    if not place.exists():
        raise InvalidData(f"Skeletons {path}", "do not exist", _CURE)
    files = sorted(place.glob("*.swc")) if place.is_dir() else [place]
    if not files:
        raise InvalidData(f"Skeletons {path}", "holds no .swc file", _CURE)
    parts = [_read(file) for file in files]
    offsets = np.cumsum([0, *(len(points) for points, _ in parts)])
    points = np.concatenate([points for points, _ in parts])
    edges = np.concatenate([e + n for (_, e), n in zip(parts, offsets, strict=False)])
    if files[0].suffix.lower() == ".swc":
        skeleton = np.repeat(np.arange(len(files)), np.diff(offsets))
    else:
        skeleton = _pieces(len(points), edges)
    return Skeletons(points, skeleton, edges)


def _read(file: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rows = _swc_rows if file.suffix.lower() == ".swc" else _csv_rows
    nodes: list[_Node] = []
    try:
        nodes.extend(rows(file))
    except (OSError, ValueError, IndexError, KeyError, csv.Error) as error:
        problem = f"cannot be read after {len(nodes)} nodes ({error})"
        raise InvalidData(f"Skeletons {file}", problem, _CURE) from error
    index = {node[0]: i for i, node in enumerate(nodes)}
    lost = {node[4] for node in nodes if node[4] >= 0} - set(index)
    points = np.array([node[1:4] for node in nodes], np.float64).reshape(-1, 3)
    if len(index) < len(nodes) or lost or not nodes or not np.isfinite(points).all():
        problem = "holds no node" if not nodes else "holds a number of a node twice"
        if lost:
            problem = f"has no node {min(lost)}, which is the parent of another"
        elif not np.isfinite(points).all():
            problem = "holds coordinates that are not finite"
        raise InvalidData(f"Skeletons {file}", problem, _CURE)
    edges = [(i, index[node[4]]) for i, node in enumerate(nodes) if node[4] >= 0]
    return points, np.array(edges, np.int64).reshape(-1, 2)


def _swc_rows(file: Path) -> Iterator[_Node]:
    for line in file.read_text().splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            x, y, z = map(float, words[2:5])
            yield int(words[0]), z, y, x, int(words[6])


def _csv_rows(file: Path) -> Iterator[_Node]:
    with file.open(newline="") as text:
        rows = csv.reader(text, skipinitialspace=True)
        names: Sequence[str] = COLUMNS
        for number, row in enumerate(rows):
            if number == 0 and not row[0].lstrip("-").isdigit():
                names = [name.strip().lower() for name in row]
                continue
            if row:
                cell = dict(zip(names, row, strict=True))
                z, y, x = (float(cell[axis]) for axis in "zyx")
                yield int(cell["id"]), z, y, x, int(cell["parent"].strip() or -1)


def _pieces(count: int, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), np.uint8), tuple(edges.T)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
