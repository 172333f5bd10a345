"""Expected run length: which segment of the prediction every node of a skeleton lies in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison
from pipelines.outputs import say_notes
from tilenet.errors import InvalidData
from tilenet.formats import Skeletons, read_skeletons
from tilenet.geometry import Box, zyx
from tilenet.metrics import RunLength, run_length
from tilenet.volumes import Volume


def nodes_of(path: str, predicted: Volume) -> tuple[Skeletons, npt.NDArray[np.int64]]:
    """Read skeletons, and give the voxel of each node, (n, 3)."""
    if predicted.voxel_size is None:
        problem = "states no voxel size, and skeletons are in nanometres"
        cure = "Ingest it with --voxel-size, or leave out --skeletons."
        raise InvalidData(f"Prediction {predicted.location}", problem, cure)
    skeletons = read_skeletons(path)
    # A position is that of a voxel's centre.
    first = np.array(predicted.layout.translation or (0.0, 0.0, 0.0))
    voxels = np.floor((skeletons.points - first) / np.array(predicted.voxel_size) + 0.5)
    return skeletons, voxels.astype(np.int64)


def follow_skeletons(comparison: Comparison, path: str) -> RunLength:
    """Compute the expected run length of the edges that lie in the region."""
    predicted, region = comparison.predicted, comparison.region
    skeletons, voxels = nodes_of(path, predicted)
    inside = ((voxels >= region.start) & (voxels < region.stop)).all(axis=1)
    segments = np.zeros(len(voxels), np.uint64)
    ignored = np.zeros(len(voxels), bool)
    for box, nodes in _by_chunk(voxels, np.flatnonzero(inside), predicted):
        places = tuple((voxels[nodes] - box.start).T)
        segments[nodes] = predicted.read_whole(box)[places]
        if comparison.wanted.ignore is not None:
            ignored[nodes] = comparison.true.read(box)[places] == comparison.wanted.ignore
    judged = inside & ~ignored
    edges = skeletons.edges[judged[skeletons.edges].all(axis=1)]
    if not len(edges):
        problem = f"have no edge in {region}"
        cure = "Give coordinates in nanometres (SWC: x, y, z; CSV: z, y, x), or another --region."
        raise InvalidData(f"Skeletons {path}", problem, cure)
    if len(edges) < len(skeletons.edges):
        text = f"{len(edges)} of {len(skeletons.edges)} edges lie where they are judged."
        say_notes(path, [text])
    # Nodes that are not judged merge nothing.
    used = np.flatnonzero(judged)
    number = np.zeros(len(voxels), np.int64)
    number[used] = np.arange(len(used))
    steps = skeletons.points[edges[:, 0]] - skeletons.points[edges[:, 1]]
    lengths = np.sqrt((steps**2).sum(axis=1))
    return run_length(lengths, skeletons.skeleton[used], segments[used], number[edges])


def _by_chunk(
    voxels: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64], volume: Volume
) -> list[tuple[Box, npt.NDArray[np.int64]]]:
    """Group nodes by the chunk that they lie in, each group with the box that holds it."""
    if not nodes.size:
        return []
    chunks, group = np.unique(
        voxels[nodes] // np.array(volume.chunk_shape), axis=0, return_inverse=True
    )
    order = np.argsort(group.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(group.ravel(), minlength=len(chunks)))[:-1]
    found = []
    for part in np.split(nodes[order], ends):
        low, high = voxels[part].min(axis=0), voxels[part].max(axis=0) + 1
        found.append((Box(zyx(low.tolist()), zyx(high.tolist())), part))
    return found
