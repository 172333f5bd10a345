"""A look at some voxels before a prediction is compared with its truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison, output_channels
from pipelines.evaluate.figure_choice import INSTANCES
from pipelines.outputs import sample_boxes, say_notes
from tilenet.errors import InvalidData
from tilenet.metrics import TruthRule, check_instances, is_inverted, label_range
from tilenet.networks import UINT8
from tilenet.training import MOST_CLASSES
from tilenet.volumes import ValueRange, probabilities

#: Sections looked at before the work, and pixels of each along y and x.
SAMPLES, WINDOW = 5, 2048

#: Voxels of the truth that are read at most before the work, to see what labels it has.
SCANNED = 2**28


def check_labels(comparison: Comparison) -> None:
    """Refuse a truth that is empty, or has no instances where they are needed.

    It is read until that is known, or :data:`SCANNED` voxels.
    """
    lowest = highest = read = 0
    needs_two = bool(INSTANCES & set(comparison.figures))
    for box in comparison.region.cut(0, 1):
        if read and read + box.size > SCANNED:
            return  # what could not be seen now is said at the end
        read += box.size
        low, high = label_range(_plain(comparison, comparison.true.read(box)))
        lowest, highest = min(low or lowest, lowest or low), max(high, highest)
        if highest and not (needs_two and lowest == highest):
            return
    check_label_range(comparison, lowest, highest)


def _plain(comparison: Comparison, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Without what is left out at boundaries, of which one section says nothing.
    wanted = comparison.wanted
    truth = TruthRule(ignore=wanted.ignore, interior=wanted.truth_class).judged(labels)
    check_instances(truth.labels, f"Truth {comparison.true.location}")
    return truth.labels


def check_label_range(comparison: Comparison, lowest: int, highest: int) -> None:
    """Refuse a truth that is empty, or has no instances where they are needed.

    ``lowest`` and ``highest`` are the smallest and the largest label above 0; 0 when there is none.
    """
    what, interior = f"Truth {comparison.true.location}", comparison.wanted.truth_class
    if highest == 0:
        problem = f"has no label above 0 in {comparison.region}"
        cure = "Choose a --region with labels, or give labels with a positive value inside cells."
        if interior is not None:
            problem = f"has no voxel of class {interior} in {comparison.region}"
            cure = "Choose a --region that has it, or another --truth-class."
        raise InvalidData(what, problem, cure)
    if lowest == highest and INSTANCES & set(comparison.figures):
        problem = (
            f"has no value but {lowest} above 0, so it is a mask, and SEG and the figures in 3-D "
            "compare instances"
        )
        raise InvalidData(what, problem, "Make instances of it with 'tilenet label' first.")


def say_values(comparison: Comparison, lowest: int, highest: int, ignored: int) -> None:
    """Say on stderr what is doubtful of the values that the truth was found to hold."""
    wanted, dtype, notes = comparison.wanted, comparison.true.volume.dtype, []
    if wanted.ignore is not None and ignored == 0:
        text = f"No voxel is {wanted.ignore} (--ignore); labels above 0 are {lowest} to {highest}."
        notes.append(text)
    largest = np.iinfo(dtype).max if dtype.kind in "iu" else None
    if wanted.truth_class is None and lowest != highest == largest:
        notes.append(
            f"It holds {highest}, the largest value of {dtype}, which counts as a label: if it "
            f"means unlabelled, leave it out with --ignore {highest}."
        )
    say_notes(f"Truth {comparison.true.location}", notes)


def check_samples(comparison: Comparison) -> None:
    """Refuse a prediction that is no probability, or that of something else than interior."""
    boxes = sample_boxes(comparison.region, SAMPLES, WINDOW)
    stored = np.concatenate([comparison.predicted.read(box) for box in boxes])
    labels = np.concatenate([comparison.true.read(box) for box in boxes])
    truth = comparison.wanted.rule.judged(labels)
    if truth.left_out is not None and truth.left_out.all():
        return  # nothing to be seen here
    if comparison.wanted.truth_class is None:
        _check_not_classes(comparison, truth.labels)
    proposal = _interior(comparison, stored, truth.left_out)
    labels = truth.labels
    if truth.left_out is not None:
        # Pixels alone tell which is which, wherever they lie.
        labels = labels[~truth.left_out][np.newaxis]
    what = f"Prediction {comparison.predicted.location}"
    if is_inverted(labels, proposal):
        problem = _polarity_problem(comparison, len(boxes))
        cure = (
            "If the prediction is the probability of membrane, compare 1 - p: "
            + ("leave out --invert" if comparison.wanted.invert else "add --invert")
            + ". If the truth is above 0 on membranes, invert the truth."
        )
        raise InvalidData(what, problem, cure)


def _interior(
    comparison: Comparison, stored: npt.NDArray[Any], left_out: npt.NDArray[np.bool] | None
) -> npt.NDArray[Any]:
    """Give what is judged of some voxels as probabilities of interior, or refuse them."""
    what, wanted = f"Prediction {comparison.predicted.location}", comparison.wanted
    if left_out is not None:
        stored = stored[~left_out][np.newaxis]
    cut = comparison.cut
    if cut is not None and not cut.bounded and "isbi" not in comparison.figures:
        return cut.interior(stored)
    if stored.dtype == UINT8.name and 0 < stored.max() <= 1:
        problem = f"holds only 0 and 1 where it was looked at, and uint8 means {UINT8.meaning}"
        cure = f"Store a mask as 0 and {UINT8.one}, as bool, or as float."
        raise InvalidData(what, problem, cure)
    proposal = probabilities(stored, invert=wanted.invert)
    if not (np.isfinite(proposal).all() and 0.0 <= proposal.min() <= proposal.max() <= 1.0):
        problem = "holds values that are not finite or not within 0 to 1"
        cure = f"Give probabilities: 0 to 1, or uint8 as {UINT8.meaning}."
        raise InvalidData(what, problem, cure)
    if cut is not None:
        wanted.cut.check(comparison.predicted, ValueRange.of(stored), sampled=True)
    return proposal


def _check_not_classes(comparison: Comparison, labels: npt.NDArray[Any]) -> None:
    # Of several predicted classes one is compared, but "above 0" means all but one.
    predicted = comparison.predicted
    channels = output_channels(predicted)
    classes = {c["label"] for c in channels if c.get("label")}
    found = set(np.unique(labels[labels > 0]).tolist())
    if len(found) < 2:
        return
    index = predicted.layout.channel or 0
    own = channels[index].get("label") if index < len(channels) else None
    # Of two classes the second alone is stated. 1 is what masks of instances have too.
    is_one = own in found - {1} and len(found) <= MOST_CLASSES
    if found <= classes or (is_one and not INSTANCES.issuperset(comparison.figures)):
        named = ", ".join(str(value) for value in sorted(found))
        problem = f"holds the classes {named}, and everything above 0 would count as interior"
        cure = "Say with --truth-class which of them was predicted."
        if own:
            cure = f"Say with --truth-class which of them was predicted; its label is {own}."
        raise InvalidData(f"Truth {comparison.true.location}", problem, cure)


def _polarity_problem(comparison: Comparison, count: int) -> str:
    opposite = "p" if comparison.wanted.invert else "1 - p"
    return (
        f"its polarity is not that of the truth {comparison.true.location}: in {count} sections "
        f"{opposite} fits the truth's interior (above 0) better, and at no threshold worse"
    )
