"""A prediction and its truth, to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.outputs import Threshold
from tilenet.geometry import ZYX, Box
from tilenet.metrics import Cut, TruthRule
from tilenet.volumes import Placed, Volume, VolumeReference

#: What can be computed: probabilities by section; instances by section, in 3-D; whole objects in
#: 3-D, by section; classes.
FIGURES = ("isbi", "seg", "volume", "objects", "objects2d", "classes")

#: Those that go section by section, and those that go block by block.
BY_SECTION, BY_BLOCK = {"isbi", "seg", "objects2d"}, {"volume", "objects", "classes"}

#: Those that need a threshold of probabilities.
CUT = {"seg", "objects2d", "classes"}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the user wants to know.

    Parameters
    ----------
    figures : tuple of str or None
        Some of :data:`FIGURES`; None leaves it to the kind of the prediction.
    segmentation : bool
        The prediction is instances.
    threshold, raw_threshold : float or None
        Makes instances of probabilities, for SEG, and classes; of stored values.
    invert : bool
        The prediction is the probability of what is not interior.
    region : tuple of (int, int) or None
        Part to compare, in voxels of the prediction, along (z, y, x).
    label_offset : tuple of int or None
        First voxel of the truth, in voxels of the prediction; None goes by the positions stated.
    ignore_voxel_size : bool
        Compare whatever the voxel sizes are.
    ignore : int or None
        Value of the truth that says nothing.
    boundary : int or None
        Pixels so near to another label of the truth are left out.
    truth_class : int or None
        Value of the truth that is interior; None: all above 0.
    border : int or None
        Pixels from the edges within which centres of objects count neither way.
    skeletons : str or None
        File or folder of skeletons, for the expected run length.
    mistakes : str or None
        Where the largest splits and mergers are drawn.
    """

    figures: tuple[str, ...] | None = None
    segmentation: bool = False
    threshold: float | None = None
    raw_threshold: float | None = None
    invert: bool = False
    region: tuple[tuple[int, int], ...] | None = None
    label_offset: ZYX | None = None
    ignore_voxel_size: bool = False
    ignore: int | None = None
    boundary: int | None = None
    truth_class: int | None = None
    border: int | None = None
    skeletons: str | None = None
    mistakes: str | None = None

    @property
    def left_out(self) -> dict[str, int]:
        """What the user said of what is not judged, by the names of the options."""
        names = ("ignore", "boundary", "border")
        return {name: n for name in names if (n := getattr(self, name)) is not None}

    @property
    def cut(self) -> Threshold:
        """What the user said of thresholds."""
        return Threshold(
            probability=self.threshold,
            raw=self.raw_threshold,
            invert=self.invert,
            labels="--segmentation",
        )

    @property
    def rule(self) -> TruthRule:
        """Which voxels of the truth are judged, and what is interior."""
        return TruthRule(ignore=self.ignore, boundary=self.boundary, interior=self.truth_class)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A checked comparison."""

    # prediction, truth: what is compared.
    prediction: VolumeReference
    truth: VolumeReference
    predicted: Volume  # the prediction, opened
    true: Placed  # the truth, where it lies in the prediction
    region: Box  # part to compare, in voxels of the prediction
    figures: tuple[str, ...]  # some of :data:`FIGURES`
    wanted: Judgement  # what the user wants to know

    @property
    def threshold(self) -> Threshold | None:
        """What makes instances or a class of the prediction; None where nothing does."""
        is_one = not self.wanted.segmentation and self.predicted.channels is None
        if not (is_one and CUT & set(self.figures)):
            return None
        return self.wanted.cut.of(self.predicted)

    @property
    def cut(self) -> Cut | None:
        """The same in stored values."""
        if (chosen := self.threshold) is None:
            return None
        # What has to be probabilities, or a mask of a value that is not 0.
        bounded = self.wanted.raw_threshold is None
        above = chosen.stored(self.predicted)
        return Cut(above=above, invert=self.wanted.invert, bounded=bounded)


def stated_output(predicted: Volume) -> Mapping[str, Any]:
    """Give what a prediction of ours says of its values, however incomplete its provenance is."""
    stated = predicted.attributes.get("output")
    return stated if isinstance(stated, Mapping) else {}


def output_channels(predicted: Volume) -> list[Mapping[str, Any]]:
    """Give "name" and "label" of each stored channel of ours; empty when nothing says it."""
    return list(stated_output(predicted).get("channels", []))


def describe(comparison: Comparison) -> str:
    wanted, predicted = comparison.wanted, comparison.predicted
    dtype = predicted.dtype
    kind = "instances" if wanted.segmentation else "p = value / 255"
    if dtype.kind in "bf":
        kind = "p = value"
    if wanted.invert:
        kind += ", inverted: 1 - p is interior"
    true = comparison.true
    lies = f", which lies at {true.box}" if true.box != Box.of_shape(predicted.shape) else ""
    of_truth: dict[str, float] = (
        {} if wanted.truth_class is None else {"truth_class": wanted.truth_class}
    )
    threshold = {} if comparison.threshold is None else comparison.threshold.to_dict()
    chosen = {**threshold, **of_truth, **wanted.left_out}
    options = [f"--{name.replace('_', '-')} {n:.10g}" for name, n in chosen.items()]
    said = f" ({', '.join(options)})" if options else ""
    return (
        f"{predicted.location} ({dtype}, {kind}) against {true.location} "
        f"({true.volume.dtype}){lies}, {comparison.region}: {', '.join(comparison.figures)}{said}"
    )
