"""What reads the damaged files: the library's own doors, in the process."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np

from pipelines.cluster import ClusterOptions, make_options
from pipelines.derive.ingest import IngestOptions, run_ingest
from pipelines.derive.label import run_label
from pipelines.derive.storage_options import StorageOptions
from pipelines.derive.weights import WeightOptions, run_weights
from pipelines.info import model_facts, volume_facts
from pipelines.options import region_box
from pipelines.outputs import Prediction, bounds_of, kind_of, problems
from pipelines.predict import (
    Choices,
    IntensityRule,
    Job,
    check_inputs,
    check_job,
    plan_job,
    provenance,
)
from pipelines.predict.checks import find_prediction
from pipelines.predict.job import new_output
from pipelines.predict.plan_text import plan_text
from pipelines.predict.resume import check_resume
from tests.fuzz import mutators
from tests.fuzz.seeds import SHAPE, values
from tilenet.errors import InvalidRecipe
from tilenet.formats import open_source
from tilenet.geometry import BlockGrid, Box
from tilenet.inference import RateCache, load_model
from tilenet.labels import LabelRule, WeightRule
from tilenet.planning import Costs, Plan
from tilenet.strict_toml import load, validate
from tilenet.training import Recipe
from tilenet.volumes import (
    VolumeReference,
    create_volume,
    identify,
    open_volume,
    reopen_for_writing,
)
from tilenet.volumes.inspection import check_shard, views

LOCAL = ClusterOptions(workers=1, slots=1, memory=2 * 2**30)
FACTS = {"device": "cpu", "torch": "2", "tilenet": "0"}
BLOCK = (5, 20, 24)


@dataclass(frozen=True)
class Target:
    """A file, or a folder of files, and what reads it."""

    root: str
    run: Callable[[Path], None]
    weight: int
    files: Callable[[Path], bool] = lambda path: True
    mutate: mutators.Mutator | None = None
    links: bool = True

    def damage(self, folder: Path, rng: Random) -> None:
        """Damage one to three files."""
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            top = folder / self.root
            if top.is_symlink():  # by now
                return
            found = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
            chosen = [p for p in found if self.files(p)]
            if not chosen:  # a link leads elsewhere by now
                return
            path = rng.choice(chosen)
            if self.links and rng.random() < 0.02:
                mutators.relink(path, rng, folder.parent / "outside")
            elif not path.is_symlink():
                path.write_bytes(self._mutator(path)(path.read_bytes(), rng))

    def _mutator(self, path: Path) -> mutators.Mutator:
        if self.mutate is not None:
            return self.mutate
        known = {".json": mutators.change_json, ".toml": mutators.change_toml,
                 ".safetensors": mutators.change_model}  # fmt: skip
        if path.name in (".zarray", ".zattrs", ".zgroup"):
            return mutators.change_json
        return known.get(path.suffix, mutators.damage)


def small(shape: tuple[int, ...]) -> Box:
    """The first voxels of a volume of any size."""
    return Box((0, 0, 0), tuple(min(n, k) for n, k in zip(shape, (2, 12, 12), strict=True)))  # type: ignore[arg-type]


def read_volume(path: Path) -> None:
    reference = VolumeReference(str(path))
    json.dumps(volume_facts(reference.open()), default=str)
    volume = reference.open()
    identify(volume)
    volume.read(small(volume.shape))
    kind_of(volume)
    problems(volume)
    check_shard(views(volume)[0], next(iter(BlockGrid(volume.shape, volume.write_shape))), None)


def read_plain(path: Path) -> None:
    volume = open_volume(str(path))
    volume.read(small(volume.shape))
    identify(volume)


def read_exactly(path: Path) -> None:
    """What has a checksum gives the voxels that were stored, or says that it cannot."""
    found = open_volume(str(path)).read(Box.of_shape(SHAPE))
    assert np.array_equal(found, values()), "other voxels than were stored"


def write_volume(path: Path) -> None:
    volume = reopen_for_writing(str(path))
    shard = next(iter(BlockGrid(volume.shape, volume.write_shape)))
    if shard.size <= 10**5 and volume.channels is None:
        try:
            volume.write(shard, np.ones(shard.shape, volume.dtype))
        except OSError as error:  # the engine tells what the system says, a full disk for example
            if error.errno is None:
                raise


def read_source(path: Path) -> None:
    source = open_source(str(path))
    source.read(small(source.shape))
    source.identity()


def read_model(path: Path) -> None:
    model_facts(str(path))
    load_model(path)


def read_recipe(path: Path) -> None:
    validate(Recipe, load(path, InvalidRecipe), str(path), InvalidRecipe)


def read_profile(path: Path) -> None:
    make_options(str(path), {"tls_ca": None})


def read_rates(path: Path) -> None:
    with mock.patch.dict(os.environ, TILENET_CACHE=str(path.parent)):
        RateCache.load()


# -- outputs that are gone on with --------------------------------------------------------------


def _job(folder: Path) -> Job:
    source = VolumeReference(str(folder / "ours.zarr"))
    choices = Choices(block=(5, 16, 24), shard=(5, 16, 24))
    return check_job(source, str(folder / "model.safetensors"), mask=None, choices=choices)


def _stated(job: Job, plan: Plan, rule: IntensityRule) -> Prediction:
    return provenance(
        job, plan, intensity=rule.stated(job.header.intensity), facts=FACTS, dtype="uint8"
    )


def begin_prediction(folder: Path) -> None:
    job = _job(folder)
    plan = plan_job(job, region_box(None, SHAPE), LOCAL)
    create_volume(
        str(folder / "begun.zarr"),
        new_output(job, plan, "uint8", _stated(job, plan, IntensityRule("model"))),
    )
    reopen_for_writing(str(folder / "begun.zarr")).write(Box.of_shape(SHAPE), values())


def continue_prediction(path: Path) -> None:
    """All that ``predict`` does with a begun output before it starts workers."""
    job = _job(path.parent)
    begun = find_prediction(job, str(path))
    assert begun is not None
    plan = plan_job(job, region_box(None, SHAPE), LOCAL, begun)
    stored = Prediction.from_attributes(begun.attributes)
    for text in ("model", "volume"):
        IntensityRule(text).known(job.header, stored.intensity)
    check_inputs(job, plan)
    check_resume(job, plan, begun, _stated(job, plan, IntensityRule("model")))
    open_volume(str(path)).missing(plan.grid)
    problems(begun)
    bounds_of(begun)


def plan_damaged(path: Path) -> None:
    """All that ``predict`` does with an input before it creates an output."""
    job = _job(path.parent)
    plan = plan_job(job, region_box(None, job.volume.shape), LOCAL)
    check_inputs(job, plan)
    plan_text(job, Costs(plan))


def label(path: Path) -> None:
    rule = LabelRule(connectivity=6, threshold=200.0)
    options = StorageOptions(chunk=(5, 10, 24), shard=BLOCK)
    source = VolumeReference(str(path.parent / "ours.zarr"))
    run_label(source, str(path), rule, options=options, cluster=LOCAL)


def weigh(path: Path) -> None:
    source = VolumeReference(str(path.parent / "labels.zarr"))
    options = WeightOptions(chunk=(5, 10, 24), shard=BLOCK)
    run_weights(source, str(path), WeightRule(), options=options, cluster=LOCAL)


def ingest(path: Path) -> None:
    options = IngestOptions(chunk=(5, 10, 24), shard=BLOCK)
    run_ingest(open_source(str(path.parent / "x.npy")), str(path), options, LOCAL)


def ingest_zarr(path: Path) -> None:
    """A damaged Zarr to a new volume, which lies where it was asked for."""
    source, output = open_source(str(path)), path.parent / f"new-{uuid.uuid4().hex}.zarr"
    if source.dtype.itemsize * int(np.prod(source.shape, dtype=object)) < 10**6:
        run_ingest(source, str(output), IngestOptions(chunk=BLOCK, shard=BLOCK), LOCAL)


def is_attributes(path: Path) -> bool:
    return path.name == ".zattrs"


def is_shard(path: Path) -> bool:
    return path.suffix == "" and not path.name.startswith(".")


TARGETS: dict[str, Target] = {
    "OME-Zarr 0.5": Target("ours.zarr", read_volume, 12, lambda p: p.suffix == ".json"),
    "OME-Zarr 0.4": Target("ome04.zarr", read_plain, 10),
    "OME-Zarr 0.3": Target("near0.3.zarr", read_plain, 2, is_attributes),
    "OME-Zarr 0.6": Target("near0.6.zarr", read_plain, 3, is_attributes),
    "OpenOrganelle": Target("near0.4.zarr", read_plain, 3, is_attributes),
    "attributes": Target("stated.zarr", read_plain, 3, is_attributes),
    "Zarr v3": Target("v3.zarr", read_plain, 8),
    "Zarr v2": Target("v2.zarr", read_plain, 8),
    "Zarr, big-endian": Target("big.zarr", read_plain, 4),
    "shards": Target("ours.zarr", read_exactly, 8, is_shard, mutators.damage, links=False),
    "written to": Target("ours.zarr", write_volume, 6),
    "planned": Target("ours.zarr", plan_damaged, 4, lambda p: p.suffix == ".json"),
    "predicted": Target("begun.zarr", continue_prediction, 8),
    "labelled": Target("labels.zarr", label, 3),
    "weighed": Target("weights.zarr", weigh, 3),
    "ingested": Target("ingested.zarr", ingest, 3),
    "ingested from Zarr": Target("ome04.zarr", ingest_zarr, 2),
    "model": Target("model.safetensors", read_model, 16),
    "recipe": Target("recipe.toml", read_recipe, 12),
    "profile": Target("profile.toml", read_profile, 12),
    "rates": Target("calibration.json", read_rates, 8),
    "TIFF": Target("plain.tif", read_source, 6),
    "TIFF, Deflate": Target("deflate.tif", read_source, 8),
    "TIFF, tiles": Target("tiles.tif", read_source, 6),
    "TIFF of Fiji": Target("fiji.tif", read_source, 6),
    "OME-TIFF": Target("ome.ome.tif", read_source, 8),
    "BigTIFF": Target("big.tif", read_source, 4),
    "PNG": Target("grey.png", read_source, 6),
    "PNG, 16 bits": Target("grey16.png", read_source, 4),
    "NumPy": Target("x.npy", read_source, 6),
    "NumPy, zipped": Target("x.npz", read_source, 6),
    "HDF5": Target("x.h5", read_source, 10),
}
