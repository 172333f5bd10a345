"""``tilenet evaluate``: say how good a prediction is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from pipelines.cluster import ClusterOptions, resolve
from pipelines.engine import Runner, open_runner
from pipelines.evaluate.comparison import (
    BY_BLOCK,
    BY_SECTION,
    FIGURES,
    Comparison,
    Judgement,
    describe,
)
from pipelines.evaluate.figure_choice import class_names, class_values, say_classes
from pipelines.evaluate.metadata_checks import check_comparison
from pipelines.evaluate.mistakes import draw_mistakes, locate
from pipelines.evaluate.results import Results, check_plot, draw_curves, figures_text
from pipelines.evaluate.section_sum import SectionSum
from pipelines.evaluate.skeletons import follow_skeletons
from pipelines.evaluate.voxel_checks import check_label_range, say_values
from pipelines.options import OFFSET, REGION, cluster_options, input_options
from tilenet._version import __version__
from tilenet.errors import BlocksFailed, InvalidData, NotEnoughMemory
from tilenet.geometry import ZYX, BlockGrid
from tilenet.metrics import (
    PairTally,
    PairTask,
    SectionTask,
    class_scores,
)
from tilenet.planning import PROCESS_BYTES
from tilenet.volumes import VolumeReference, fingerprint

#: Bytes per pixel of the section that is being compared, beside what was read: interior, distances
#: from the threshold, segments, and their overlaps (measured: see ``benchmarks.bench_metrics``).
SECTION_BYTES = 90

#: Bytes per voxel of a block whose pairs are counted, beside what was read.
PAIR_BYTES = 32

#: The same on top, where the centres of instances are wanted; and classes.
CENTRE_BYTES, CLASS_BYTES = 64, 16

#: Blocks after which their tables are added up, and an evaluation ends in which one failed.
FOLD = 256

#: Voxels that are compared sooner than a cluster is started.
SMALL = 2**21


def _read_figures(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name for name in FIGURES if name in value.split(","))
    unknown = set(value.split(",")) - set(names)
    if unknown:
        raise click.BadParameter(f"{sorted(unknown)} are none of {', '.join(FIGURES)}")
    return names


@click.command()
@click.argument("prediction")
@click.argument("truth")
@input_options
@click.option(
    "--region", type=REGION, help="Part to compare, voxels of PREDICTION: z=20:24 (all of y and x)."
)
@click.option(
    "--label-offset", type=OFFSET,
    help="Where TRUTH, a crop, begins: voxels of PREDICTION, z,y,x; else by stated positions.",
)  # fmt: skip
@click.option(
    "--figures", callback=_read_figures,
    help="isbi, seg, volume, objects (3-D), objects2d (by section), classes, or several with "
    "commas; by default isbi, or seg,volume of instances.",
)  # fmt: skip
@click.option("--segmentation", is_flag=True, help="PREDICTION is instances, not probabilities.")
@click.option(
    "--threshold", type=float,
    help="Probability above which is interior; instances for SEG are its 4-connected pieces.",
)  # fmt: skip
@click.option("--raw-threshold", type=float, help="Stored value instead; no probabilities needed.")
@click.option("--invert", is_flag=True, help="PREDICTION is the probability of membrane.")
@click.option("--ignore-voxel-size", is_flag=True, help="Compare whatever the voxel sizes are.")
@click.option("--ignore", type=int, help="Leave out voxels where TRUTH has this value.")
@click.option(
    "--boundary", type=click.IntRange(min=0),
    help="Leave out pixels of TRUTH so near to another label in the section.",
)  # fmt: skip
@click.option("--truth-class", type=int, help="Interior is where TRUTH has this value.")
@click.option(
    "--border", type=click.IntRange(min=1),
    help="Objects count neither way whose centre is within so many pixels of an edge in y or x.",
)  # fmt: skip
@click.option(
    "--skeletons", help="SWC file, folder of them, or CSV (id, z, y, x, parent; nm): run length."
)
@click.option("--mistakes", help="Draw the largest splits and mergers here (.png).")
@click.option("--json", "json_path", help="Write figures and curves here; - is stdout.")
@click.option("--plot", help="Draw the curves over thresholds here (.png, .pdf, .svg).")
@cluster_options
def evaluate(
    prediction: str,
    truth: str,
    *,
    json_path: str | None,
    plot: str | None,
    cluster: ClusterOptions,
    **options: Any,
) -> int:
    """Compare PREDICTION with the labels TRUTH.

    Probabilities (uint8 as 255 p, or 0 to 1) give the five figures of ISBI 2012: interior is where
    TRUTH is above 0. Instances (--segmentation) give SEG by section, and in 3-D the adapted Rand
    error and the variation of information. --level, --channel and --axes are those of PREDICTION.
    """
    how_to_open = {name: options.pop(name) for name in ("level", "channel", "axes")}
    reference = VolumeReference(prediction, **how_to_open)
    _check_outputs(json_path, plot, options["mistakes"])
    comparison = check_comparison(reference, VolumeReference(truth), Judgement(**options))
    if plot is not None and "isbi" not in comparison.figures:
        problem = "draws figures over thresholds, and there are none of instances"
        raise InvalidData(f"--plot {plot}", problem, "Leave it out.")
    click.echo(describe(comparison), err=True)
    run_length = None
    if comparison.wanted.skeletons is not None:  # soon known, and first what may be refused
        run_length = follow_skeletons(comparison, comparison.wanted.skeletons)
    results = dataclasses.replace(run_evaluation(comparison, cluster), run_length=run_length)
    record = json.dumps(to_dict(comparison, results), indent=2)
    click.echo(record if json_path == "-" else figures_text(results.figures))
    if json_path not in (None, "-"):
        Path(json_path).write_text(record + "\n")
    if results.mistakes is not None and comparison.wanted.mistakes is not None:
        draw_mistakes(comparison, results.mistakes, comparison.wanted.mistakes)
    if plot is not None and results.isbi is not None:
        title = f"{Path(prediction).name} against {Path(truth).name}, {comparison.region}"
        draw_curves(results.isbi, plot, title)
    return 0


def _check_outputs(json_path: str | None, plot: str | None, mistakes: str | None) -> None:
    if mistakes is not None and not mistakes.lower().endswith(".png"):
        raise InvalidData(f"--mistakes {mistakes}", "is no picture", "End it in .png.")
    for path in (json_path, plot, mistakes):
        if path in (None, "-"):
            continue
        if not Path(path).absolute().parent.is_dir():
            raise InvalidData(path, "its folder does not exist", "Make it, or choose another.")
        if Path(path).is_dir():
            raise InvalidData(path, "is a folder", "Give the name of a file.")
    if plot is not None:
        check_plot(plot)


def run_evaluation(comparison: Comparison, cluster: ClusterOptions) -> Results:
    """Compare a prediction with its truth.

    Parameters
    ----------
    comparison : Comparison
        Checked.
    cluster : ClusterOptions

    Returns
    -------
    Results
        The figures that were asked for.
    """
    cluster = resolve(cluster)
    by_section = BY_SECTION & set(comparison.figures)
    depth = _depth(comparison, cluster) if by_section else 1
    by_block = BY_BLOCK & set(comparison.figures) or comparison.wanted.mistakes is not None
    block = _pair_block(comparison, cluster) if by_block else None
    small, name = comparison.region.size <= SMALL, comparison.predicted.location
    with open_runner(cluster, command="evaluate", output=name, small=small) as runner:
        try:
            results = _by_section(comparison, runner, depth) if by_section else Results()
            return results if block is None else _in_3d(comparison, runner, block, results)
        except BlocksFailed as error:
            box, why = error.failed[0]
            problem = f"{len(error.failed)} of {error.total} blocks failed, the first {box}: {why}"
            cure = "Mend the cause, and run it again."
            raise InvalidData("Evaluation", problem, cure) from error


def _depth(comparison: Comparison, cluster: ClusterOptions) -> int:
    """Choose the sections of a task: as deep as chunks, if memory and the workers allow it."""
    region = comparison.region
    pixels = region.shape[1] * region.shape[2]
    stored = comparison.predicted.dtype.itemsize + comparison.true.volume.dtype.itemsize
    allowed = (cluster.memory - PROCESS_BYTES) / cluster.slots - SECTION_BYTES * pixels
    fitting = int(allowed // (stored * pixels))
    if fitting < 1:
        needed = PROCESS_BYTES + cluster.slots * (SECTION_BYTES + stored) * pixels
        what = f"Comparing whole sections of {region.shape[1]} x {region.shape[2]} (see --region)"
        raise NotEnoughMemory(needed, cluster.memory, what, "a smaller --region")
    chunk = max(comparison.predicted.chunk_shape[0], comparison.true.volume.chunk_shape[0])
    share = math.ceil(region.shape[0] / (4 * cluster.workers * cluster.slots))
    return max(1, min(chunk, fitting, share))


def _pair_block(comparison: Comparison, cluster: ClusterOptions) -> ZYX:
    """Choose blocks of whole shards, or of whole chunks where shards do not fit into memory."""
    volume, true = comparison.predicted, comparison.true.volume
    voxel = volume.dtype.itemsize * (volume.channels or 1) + true.dtype.itemsize + PAIR_BYTES
    voxel += CENTRE_BYTES * (comparison.wanted.border is not None)
    voxel += CLASS_BYTES * ("classes" in comparison.figures)
    allowed = (cluster.memory - PROCESS_BYTES) / cluster.slots
    for block in (volume.write_shape, volume.chunk_shape):
        if math.prod(block) * voxel <= allowed:
            return block
    needed = PROCESS_BYTES + cluster.slots * voxel * math.prod(volume.chunk_shape)
    what = f"A chunk of {volume.chunk_shape}"
    raise NotEnoughMemory(needed, cluster.memory, what, "a prediction in smaller chunks")


def _by_section(comparison: Comparison, runner: Runner, depth: int) -> Results:
    wanted = comparison.wanted
    task = SectionTask(
        prediction=comparison.prediction,
        truth=comparison.truth,
        run=runner.name,
        rule=wanted.rule,
        isbi="isbi" in comparison.figures,
        seg="seg" in comparison.figures,
        offset=comparison.true.offset,
        objects="objects2d" in comparison.figures,
        border=wanted.border,
        cut=comparison.cut if {"seg", "objects2d"} & set(comparison.figures) else None,
        invert=wanted.invert,
    )

    def add(total: SectionSum, values: Iterable[Any]) -> SectionSum:
        return reduce(
            SectionSum.plus, map(SectionSum.of, itertools.chain.from_iterable(values)), total
        )

    # Boxes end at multiples of the depth, so that no chunk of that depth is read twice.
    boxes = list(comparison.region.cut(0, depth))
    total: SectionSum = runner.fold("Evaluate", task, boxes, add, start=SectionSum(), group=FOLD)
    check_label_range(comparison, total.lowest, total.highest)
    say_values(comparison, total.lowest, total.highest, total.ignored)
    if total.isbi is not None and total.touching:
        click.echo(
            f"Note: {total.touching} pairs of neighbouring pixels have different labels above "
            "0; the figures of ISBI 2012 take touching instances for one.",
            err=True,
        )
    if total.isbi is not None:
        total.isbi.check_interior()
    return Results(
        isbi=total.isbi,
        seg=total.seg if task.seg else None,
        threshold=comparison.threshold,
        objects2d=total.objects,
    )


def _in_3d(comparison: Comparison, runner: Runner, block: ZYX, results: Results) -> Results:
    wanted, figures = comparison.wanted, comparison.figures
    task = PairTask(
        prediction=comparison.prediction,
        truth=comparison.truth,
        run=runner.name,
        offset=comparison.true.offset,
        region=comparison.region,
        rule=wanted.rule,
        centres=wanted.border is not None,
        classes=class_values(comparison),
        cut=comparison.cut,
    )
    grid = BlockGrid(comparison.predicted.shape, block, comparison.region)
    boxes = [box.intersect(comparison.region) for box in grid]

    def add(total: PairTally | None, values: Iterable[Any]) -> PairTally:
        before = () if total is None else (total,)
        return PairTally.pooled(itertools.chain(before, values))

    tally: PairTally = runner.fold("Evaluate", task, boxes, add, group=FOLD)
    table = tally.table
    check_label_range(comparison, tally.lowest, tally.highest)
    if not BY_SECTION & set(figures):  # else it was said
        say_values(comparison, tally.lowest, tally.highest, tally.ignored)
    if "volume" in figures:
        results = dataclasses.replace(
            results,
            volume_seg=table.seg(),
            adapted_rand=table.adapted_rand(),
            information=table.variation_of_information(),
        )
    if "objects" in figures:
        objects = tally.objects(comparison.region.shape[1:], wanted.border)
        results = dataclasses.replace(results, objects=objects)
    if "classes" in figures:
        if comparison.cut is not None:
            wanted.cut.check(comparison.predicted, tally.values)
        scores = tuple(class_scores(table))
        say_classes(comparison, scores)
        results = dataclasses.replace(results, classes=scores, names=class_names(comparison))
        results = dataclasses.replace(results, threshold=comparison.threshold)
    if wanted.mistakes is not None:
        seen = locate(comparison, runner, boxes, table)
        results = dataclasses.replace(results, mistakes=seen)
    return results


def to_dict(comparison: Comparison, results: Results) -> dict[str, Any]:
    wanted = comparison.wanted
    return {
        "command": "evaluate",
        "tilenet": __version__,
        "prediction": {
            "location": comparison.predicted.location,
            "fingerprint": fingerprint(comparison.predicted),
            "channel": comparison.prediction.channel,
            "inverted": wanted.invert,
            "instances": wanted.segmentation,
        },
        "truth": {
            "location": comparison.true.location,
            "fingerprint": fingerprint(comparison.true.volume),
            "offset": list(comparison.true.offset),
            "class": wanted.truth_class,
        },
        "region": str(comparison.region),
        "left_out": wanted.left_out,
        **results.to_dict(),
    }
