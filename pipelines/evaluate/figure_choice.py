"""Which figures are computed, and whether they can be of what is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.evaluate.comparison import (
    CUT,
    Comparison,
    Judgement,
    output_channels,
    stated_output,
)
from pipelines.outputs import say_notes, states_probabilities
from tilenet.errors import InvalidData
from tilenet.metrics import ClassScore
from tilenet.volumes import Volume

#: Figures of whole objects, and those that compare instances.
OBJECTS = {"seg", "objects", "objects2d"}
INSTANCES = OBJECTS | {"volume"}


def chosen_figures(wanted: Judgement, predicted: Volume) -> tuple[str, ...]:
    """Give what to compute: what the user asked for, or what fits the prediction."""
    if wanted.segmentation:
        figures = wanted.figures or (("seg", "volume") if wanted.border is None else _BORDERED)
        _check_segmentation(figures, wanted)
    elif predicted.channels is not None and wanted.figures == ("classes",):
        figures = wanted.figures
        _check_class_map(predicted, wanted)
    else:
        figures = wanted.figures or ("isbi",) + ("seg",) * wanted.cut.is_given
        _check_probabilities(figures, wanted, predicted)
    _check_border(figures, wanted)
    for option, given in (("--skeletons", wanted.skeletons), ("--mistakes", wanted.mistakes)):
        if given is not None and not wanted.segmentation:
            problem = "is for instances, and the prediction is taken for probabilities"
            raise InvalidData(option, problem, "Give instances, with --segmentation.")
    if wanted.truth_class is not None and INSTANCES & set(figures):
        problem = "makes a mask of the truth, and figures of instances need instances"
        raise InvalidData("--truth-class", problem, "Take --figures isbi, classes, or both.")
    return figures


#: What is computed of instances where a border is given.
_BORDERED = ("seg", "objects2d")


def _check_segmentation(figures: tuple[str, ...], wanted: Judgement) -> None:
    given = {**_thresholds(wanted), "--invert": wanted.invert}
    for option in (name for name, is_given in given.items() if is_given):
        cure = "Leave out either of them."
        raise InvalidData(option, "is for probabilities, and --segmentation for instances", cure)
    if "isbi" in figures:
        problem = "are over thresholds of probabilities, and --segmentation means instances"
        raise InvalidData("--figures isbi", problem, "Give the prediction they were made of.")
    if wanted.truth_class is not None:
        problem = "is for the probability of one class, and --segmentation for numbers"
        raise InvalidData("--truth-class", problem, "Leave out either of them.")


def _thresholds(wanted: Judgement) -> dict[str, bool]:
    return {
        "--threshold": wanted.threshold is not None,
        "--raw-threshold": wanted.raw_threshold is not None,
    }


def _check_probabilities(figures: tuple[str, ...], wanted: Judgement, predicted: Volume) -> None:
    if in_3d := sorted({"volume", "objects"} & set(figures)):
        problem = "compares instances in 3-D, and the prediction is taken for probabilities"
        cure = "Make instances of it with 'tilenet label', and give those with --segmentation."
        raise InvalidData(f"--figures {in_3d[-1]}", problem, cure)
    by_section = {"seg", "objects2d"} & set(figures)
    is_given, is_known = wanted.cut.is_given, states_probabilities(predicted)
    needs_one = by_section and not (is_given or is_known)
    if needs_one or (is_given and not CUT & set(figures)):
        problem = "compares instances, and probabilities become instances above a threshold"
        cure = "Give both --figures seg and --threshold, or neither."
        raise InvalidData("--figures seg", problem, cure)


def _check_class_map(predicted: Volume, wanted: Judgement) -> None:
    what = f"Prediction {predicted.location}"
    given = {
        **_thresholds(wanted),
        "--invert": wanted.invert,
        "--truth-class": wanted.truth_class is not None,
    }
    for option in (name for name, is_given in given.items() if is_given):
        problem = f"is for one channel, and {predicted.location} has {predicted.channels}"
        raise InvalidData(option, problem, "Choose that of the class with --channel.")
    if stated_output(predicted).get("activation") == "sigmoid":
        problem = "holds channels of a sigmoid, of which several may be true of a voxel"
        raise InvalidData(what, problem, "Choose one with --channel, and --truth-class of it.")
    stated = [channel.get("label") for channel in output_channels(predicted)]
    if stated and (None in stated or len(set(stated)) < len(stated)):
        problem = f"does not say which label each channel stands for ({stated})"
        raise InvalidData(what, problem, "Choose one with --channel, and --truth-class of it.")


def _check_border(figures: tuple[str, ...], wanted: Judgement) -> None:
    others = [name for name in figures if name not in OBJECTS]
    if wanted.border is not None and others:
        problem = f"is for whole objects, and {', '.join(others)} compare voxels"
        cure = "Take --figures seg, objects or objects2d with it, or cut the border by --region."
        raise InvalidData("--border", problem, cure)


def class_values(comparison: Comparison) -> tuple[int, ...] | None:
    """Say what the channels of a class map stand for; None where there is one channel."""
    count = comparison.predicted.channels
    if count is None:
        return None
    stated = output_channels(comparison.predicted)
    return tuple(int(c["label"]) for c in stated) if stated else tuple(range(count))


def say_classes(comparison: Comparison, scores: Sequence[ClassScore]) -> None:
    """Say on stderr which classes the truth holds and the prediction cannot."""
    able = class_values(comparison)
    lacking = [s.value for s in scores if able is not None and s.true and s.value not in able]
    if lacking:
        text = f"It holds {', '.join(map(str, lacking))}, and no channel stands for that."
        say_notes(f"Truth {comparison.true.location}", [text])


def check_truth_values(true: Volume, wanted: Judgement) -> None:
    """Refuse values that the truth cannot hold."""
    if true.dtype.kind not in "iu":
        return
    limits = np.iinfo(true.dtype)
    for option, value in (("--ignore", wanted.ignore), ("--truth-class", wanted.truth_class)):
        if value is not None and not limits.min <= value <= limits.max:
            problem = (
                f"cannot occur: {true.location} holds {true.dtype}, {limits.min} to {limits.max}"
            )
            raise InvalidData(f"{option} {value}", problem, "Give a value that it holds.")


def class_names(comparison: Comparison) -> dict[int, str]:
    """Give the classes their names, where the prediction says them."""
    if comparison.cut is not None:
        return {0: "not interior", 1: "interior"}
    stated = output_channels(comparison.predicted)
    return {int(c["label"]): f"{c['label']} ({c['name']})" for c in stated if "name" in c}
