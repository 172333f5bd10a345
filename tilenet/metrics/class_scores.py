"""How well each class is found: Dice and intersection over union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilenet.metrics.pair_table import PairTable


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Voxels of one class.

    Parameters
    ----------
    value : int
        What stands for the class in the truth.
    true, proposed, both : int
        Voxels of it in the truth, in the prediction, and in both.
    """

    value: int
    true: int
    proposed: int
    both: int

    @property
    def dice(self) -> float:
        """2 both / (true + proposed), 0 to 1."""
        return 2 * self.both / (self.true + self.proposed)

    @property
    def iou(self) -> float:
        """Intersection over union: both / (true + proposed - both), 0 to 1."""
        return self.both / (self.true + self.proposed - self.both)


def class_scores(table: PairTable) -> list[ClassScore]:
    """Score every class that truth or prediction has.

    Parameters
    ----------
    table : PairTable
        Of classes in place of instances; 0 is a class like others.

    Returns
    -------
    list of ClassScore
        By ascending value.
    """
    found = []
    for value in np.union1d(table.true, table.proposed):
        true, proposed = table.true == value, table.proposed == value
        counts = (int(table.voxels[where].sum()) for where in (true, proposed, true & proposed))
        found.append(ClassScore(int(value), *counts))
    return found
