"""What the user chose of how to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.options import Region
from tilenet.geometry import ZYX


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What the user chose of how to train; the command's options say what each means.

    Parameters
    ----------
    output : str
        Model file to write.
    config : str or None
        Recipe, by name or path.
    changes : mapping
        Values that replace the recipe's, by dotted name: {"optimization.steps": 300}.
    weight_map : str or None
        Loss weights of the volume.
    also : sequence of str
        Further volumes: RAW,LABELS or RAW,LABELS,WEIGHTS.
    label_offset : tuple of int or None
        First voxel of the first volume's labels, in voxels of its raw volume, (z, y, x); None goes
        by the positions stated.
    region : sequence of (int, int or None) or None
        Part of the first volume to learn from, start and stop along (z, y, x).
    device : str
        "cpu", "cuda" or "cuda:N".
    threads : int or None
        CPU threads of each process; None shares out all cores.
    log : str or None
        Folder for TensorBoard.
    overwrite : bool
        Replace a model that is there, and forget an interrupted training of it.
    """

    output: str
    config: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    weight_map: str | None = None
    also: Sequence[str] = ()
    label_offset: ZYX | None = None
    region: Region | None = None
    device: str = "cpu"
    threads: int | None = None
    log: str | None = None
    overwrite: bool = False
