"""Figures for people and programs: a table, JSON, and a picture over thresholds."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.evaluate.mistakes import Seen
from pipelines.outputs import Threshold
from tilenet.errors import InvalidData
from tilenet.metrics import (
    AdaptedRand,
    ClassScore,
    ErrorCurve,
    InformationVariation,
    IsbiTally,
    ObjectTally,
    RunLength,
    ScoreCurve,
    SegTally,
    ThresholdCurve,
)

#: What a picture can be; matplotlib knows more, but a typing error should not become a format.
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, slots=True)
class Figure:
    name: str  # for programs
    title: str  # for people
    value: float  # the figure
    lower_is_better: bool  # true of errors, False of scores
    threshold: float | None = None  # where it is reached, or what was cut at; None without one
    raw_threshold: float | None = None  # the same as a stored value
    unit: str = ""  # of the value, where it has one

    @property
    def kind(self) -> str:
        """Which way is better, in words."""
        return "error, lower is better" if self.lower_is_better else "score, higher is better"

    def to_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "better": "lower" if self.lower_is_better else "higher",
            "threshold": self.threshold,
            **({} if self.raw_threshold is None else {"raw_threshold": self.raw_threshold}),
            **({"unit": self.unit} if self.unit else {}),
        }


@dataclass(frozen=True)
class Results:
    """What a comparison gave; None is what was not asked for."""

    isbi: IsbiTally | None = None  # of probabilities, by section
    seg: SegTally | None = None  # of instances, by section
    threshold: Threshold | None = None  # above which interior began, where instances or one class
    # volume_seg, adapted_rand, information: of instances, in 3-D.
    volume_seg: SegTally | None = None
    adapted_rand: AdaptedRand | None = None
    information: InformationVariation | None = None
    objects: ObjectTally | None = None  # in 3-D
    objects2d: ObjectTally | None = None  # by section
    run_length: RunLength | None = None  # of skeletons
    mistakes: tuple[Seen, ...] | None = None  # the largest splits and mergers
    classes: tuple[ClassScore, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)  # of classes, where they are known

    @property
    def figures(self) -> list[Figure]:
        """All figures, in the order of the table."""
        found = [] if self.isbi is None else _isbi_figures(self.isbi)
        return found + [self._cut(figure) for figure in self._others()]

    def _cut(self, figure: Figure) -> Figure:
        at = self.threshold
        if at is None:
            return figure
        return replace(figure, threshold=at.probability, raw_threshold=at.raw)

    def _others(self) -> list[Figure]:
        found = []
        if self.seg is not None:
            found.append(Figure("seg", "SEG, by section", self.seg.score, False))
        if self.adapted_rand is not None:
            rand = self.adapted_rand
            found += [
                Figure("adapted_rand_error", "adapted Rand error, 3-D", rand.error, True),
                Figure("adapted_rand_precision", "  its precision", rand.precision, False),
                Figure("adapted_rand_recall", "  its recall", rand.recall, False),
            ]
        if self.information is not None:
            vi = self.information
            title = "variation of information, 3-D"
            found += [
                Figure("vi", title, vi.total, True, unit="bits"),
                Figure("vi_split", "  split, H(predicted|true)", vi.split, True, unit="bits"),
                Figure("vi_merge", "  merge, H(true|predicted)", vi.merge, True, unit="bits"),
            ]
        if self.volume_seg is not None:
            found.append(Figure("seg_3d", "SEG, 3-D", self.volume_seg.score, False))
        for name, tally in self._tallies.items():
            found += _object_figures(name, tally)
        if self.run_length is not None:
            runs = self.run_length
            title = f"expected run length, of {runs.longest:.0f} nm at most"
            found.append(Figure("expected_run_length", title, runs.expected, False, unit="nm"))
        for score in self.classes:
            title = f"class {self.names.get(score.value, score.value)}"
            found += [
                Figure(f"dice_{score.value}", f"Dice, {title}", score.dice, False),
                Figure(f"iou_{score.value}", f"IoU, {title}", score.iou, False),
            ]
        return found

    @property
    def _tallies(self) -> dict[str, ObjectTally]:
        found = {"objects": self.objects, "objects2d": self.objects2d}
        return {name: tally for name, tally in found.items() if tally is not None}

    def to_dict(self) -> dict[str, Any]:
        tallies = {"seg": self.seg, "seg_3d": self.volume_seg}
        values: dict[str, Any] = {
            "figures": {figure.name: figure.to_dict() for figure in self.figures},
            "instances": {
                name: {"true": tally.instances, "matched": tally.matched}
                for name, tally in tallies.items()
                if tally is not None
            },
        }
        curves: dict[str, Any] = {} if self.isbi is None else _curves(self.isbi)
        curves |= {name: tally.curve for name, tally in self._tallies.items()}
        if curves:
            values["curves"] = {name: asdict(curve) for name, curve in curves.items()}
        for name, tally in self._tallies.items():
            at = tally.counts[0]
            values["instances"][name] = {"true": at.tp + at.fn, "matched": at.tp, "wrong": at.fp}
        if self.run_length is not None:
            values["skeletons"] = asdict(self.run_length)
        if self.mistakes is not None:
            values["mistakes"] = [seen.to_dict() for seen in self.mistakes]
        if self.classes:
            values["classes"] = [asdict(score) for score in self.classes]
        return values


def _curves(isbi: IsbiTally) -> dict[str, ThresholdCurve | ScoreCurve | ErrorCurve]:
    return {
        "warping_error": isbi.warping_curve,
        "rand_error": isbi.rand_curve,
        "pixel_error": isbi.pixel_curve,
        "v_rand_thinned": isbi.v_rand_curve,
        "v_info_thinned": isbi.v_info_curve,
    }


def _isbi_figures(isbi: IsbiTally) -> list[Figure]:
    curves = _curves(isbi)
    at = {name: curve.best_threshold for name, curve in curves.items()}
    return [
        Figure("warping_error", "warping error", isbi.warping, True, at["warping_error"]),
        Figure("rand_error", "Rand error", isbi.rand, True, at["rand_error"]),
        Figure("pixel_error", "pixel error", isbi.pixel, True, at["pixel_error"]),
        Figure(
            "v_rand_thinned", "V_Rand, thinned", isbi.v_rand_thinned, False, at["v_rand_thinned"]
        ),
        Figure(
            "v_info_thinned", "V_Info, thinned", isbi.v_info_thinned, False, at["v_info_thinned"]
        ),
    ]


def _object_figures(name: str, tally: ObjectTally) -> list[Figure]:
    curve = tally.curve
    where = "3-D" if name == "objects" else "by section"
    found = []
    for part, values in (
        ("f1", curve.f_score), ("precision", curve.precision), ("recall", curve.recall),
    ):  # fmt: skip
        title = part.upper() if part == "f1" else part
        half, mean = f"objects, {title} at IoU 0.5, {where}", "  its mean at 0.5 to 0.95"
        found += [
            Figure(f"{name}_{part}_50", half, values[0], False),
            Figure(f"{name}_{part}", mean, math.fsum(values) / len(values), False),
        ]
    return found


def figures_text(figures: Sequence[Figure]) -> str:
    grid = Table(box=None, pad_edge=False)
    for name in ("figure", "value", "", "threshold"):
        grid.add_column(name, justify="right" if name in ("value", "threshold") else "left")
    for figure in figures:
        value = f"{figure.value:.6f} {figure.unit}".rstrip()
        threshold = "" if figure.threshold is None else f"{figure.threshold:.4g}"
        if figure.raw_threshold is not None:
            threshold = f"stored {figure.raw_threshold:g}"
        grid.add_row(figure.title, value, figure.kind, threshold)
    console = Console(width=110, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def check_plot(path: str) -> None:
    """Refuse a picture that could not be drawn."""
    if not path.lower().endswith(PICTURES):
        raise InvalidData(f"--plot {path}", "is no picture", f"End it in {', '.join(PICTURES)}.")
    if importlib.util.find_spec("matplotlib") is None:
        cure = "Install it with pip install 'tilenet[plot]', or leave out --plot."
        raise InvalidData(f"--plot {path}", "needs matplotlib, which is missing", cure)


def draw_curves(isbi: IsbiTally, path: str, title: str) -> None:
    """Draw the figures of ISBI 2012 over thresholds."""
    from matplotlib.figure import Figure as Sheet
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sheet = Sheet(figsize=(11, 4.8), layout=ConstrainedLayoutEngine(wspace=0.08))
    sheet.suptitle(title, fontsize=10)
    scores, errors = sheet.subplots(1, 2)
    pixel, rand, v_rand, v_info = (
        isbi.pixel_curve, isbi.rand_curve, isbi.v_rand_curve, isbi.v_info_curve,
    )  # fmt: skip
    lines = [
        (f"pixel F-score: {pixel.score:.4f} (error {pixel.error:.4f})", pixel.f_score),
        (f"Rand F-score: {rand.score:.4f} (error {rand.error:.4f})", rand.f_score),
        (f"V_Rand, thinned: {v_rand.score:.4f}", v_rand.f_score),
        (f"V_Info, thinned: {v_info.score:.4f}", v_info.scores),
    ]
    thresholds = pixel.thresholds
    for marker, (label, values) in zip("osD^", lines, strict=True):
        scores.plot(thresholds, values, marker=marker, markersize=4, label=label)
        best = values.index(max(values))
        scores.plot(thresholds[best], values[best], "o", ms=11, mfc="none", color="black")
    scores.set(title="Scores: higher is better", ylabel="score", ylim=(0, 1.03))
    _draw_warping(errors, isbi.warping_curve)
    for axes in (scores, errors):
        axes.set(xlabel="threshold: interior is p above it", xlim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        # Beneath: a curve may be anywhere in the panel.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    sheet.savefig(path, dpi=150)


def _draw_warping(axes: Any, curve: ErrorCurve) -> None:
    label = f"warping error: {curve.error:.3g}, circles mark the best"
    axes.plot(curve.thresholds, curve.errors, "o-", color="tab:red", markersize=4, label=label)
    axes.plot(curve.best_threshold, curve.error, "o", ms=11, mfc="none", color="black")
    positive = [error for error in curve.errors if error > 0 and math.isfinite(error)]
    if len(positive) == len(curve.errors):  # errors span decades; zero has no place among them
        axes.set_yscale("log")
    axes.set(title="Error: lower is better", ylabel="split and merged pixels / pixels")
