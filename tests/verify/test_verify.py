"""``tilenet verify``: what is whole passes, every kind of damage is found, and the cure cures."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from distributed import Client

from pipelines import cli
from pipelines.cli import tilenet
from pipelines.cluster import ClusterOptions
from pipelines.derive.ingest import IngestOptions, run_ingest
from pipelines.derive.label import run_label
from pipelines.derive.storage_options import StorageOptions
from pipelines.derive.weights import WeightOptions, run_weights
from pipelines.engine import Outcome, RunOptions, run_on_cluster
from pipelines.predict import Choices, run_prediction
from pipelines.verify.command import run_verify
from pipelines.verify.findings import Report
from pipelines.verify.recompute import Basis
from tests.support.oracles import ARCHITECTURES, grey_values, random_network, save_softmax
from tests.support.runs import environment, files_below, store_volume
from tests.volumes.test_volume_write import noise
from tilenet.errors import InvalidData, OutputDamaged, TilenetError
from tilenet.formats import open_source
from tilenet.geometry import BlockGrid, Box
from tilenet.inference.recompute_task import Difference, difference
from tilenet.labels import LabelRule, WeightRule
from tilenet.volumes import (
    CODECS,
    Intensity,
    NewVolume,
    VolumeReference,
    create_volume,
    delete_objects,
    open_volume,
    reopen_for_writing,
    replace_attributes,
    write_join,
)
from tilenet.volumes.inspection import check_shard, views

pytestmark = pytest.mark.cluster

SHAPE = (5, 70, 90)
JOINED: dict[str, ClusterOptions] = {}


@pytest.fixture(scope="module", autouse=True)
def join(client: Client) -> None:
    JOINED["cluster"] = ClusterOptions(scheduler=client.scheduler.address)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a model, and outputs of every command."""
    folder = tmp_path_factory.mktemp("case")
    np.save(folder / "em.npy", grey_values(SHAPE, top=256))
    store_volume(folder / "em.zarr", grey_values(SHAPE, top=256))
    save_softmax(
        folder / "model.safetensors",
        random_network(ARCHITECTURES["planar"]),
        Intensity(127.0, 70.0),
    )
    for command in MAKERS.values():
        command(folder)
    return folder


@pytest.fixture
def copy(case: Path, tmp_path: Path) -> Path:
    """The same, to be damaged by one test."""
    shutil.copytree(case, tmp_path / "case")
    return tmp_path / "case"


def predict(folder: Path, output: str = "prediction.zarr", **changes: Any) -> None:
    choices = {"block": (2, 32, 48), "shard": (1, 16, 48), **changes}
    source = VolumeReference(str(folder / "em.zarr"))
    model, where = str(folder / "model.safetensors"), JOINED["cluster"]
    run_prediction(
        source, str(folder / output), model=model, cluster=where, choices=Choices(**choices)
    )


def ingest(folder: Path) -> None:
    options = IngestOptions(chunk=(2, 32, 32), shard=(2, 32, 64))
    source = open_source(str(folder / "em.npy"))
    run_ingest(source, str(folder / "volume.zarr"), options, JOINED["cluster"])


def label(folder: Path) -> None:
    rule = LabelRule(connectivity=6, threshold=200.0)
    options = StorageOptions(chunk=(2, 32, 32), shard=(2, 32, 64))
    source = VolumeReference(str(folder / "em.zarr"))
    output = str(folder / "instances.zarr")
    run_label(source, output, rule, options=options, cluster=JOINED["cluster"])


def weights(folder: Path) -> None:
    options = WeightOptions(chunk=(2, 32, 32), shard=(2, 32, 64))
    source, rule = (
        VolumeReference(str(folder / "instances.zarr")),
        WeightRule(voxel_size=(50, 4, 4)),
    )
    output = str(folder / "weights.zarr")
    run_weights(source, output, rule, options=options, cluster=JOINED["cluster"])


#: How each kind of output is made.
MAKERS: dict[str, Callable[[Path], None]] = {
    "prediction": predict, "volume": ingest, "instances": label, "weights": weights,
}  # fmt: skip

#: What each was made of.
SOURCES = {
    "prediction": "em.zarr", "volume": "em.npy", "instances": "em.zarr", "weights": "instances.zarr"
}  # fmt: skip


def check(
    folder: Path, kind: str = "prediction", *, delete_bad: bool = False,
    delete_different: bool = False, **options: Any,
) -> Report:  # fmt: skip
    """Verify an output, and delete, as the command does."""
    options = {"basis": Basis(), "cluster": JOINED["cluster"], **options}
    report = run_verify(str(folder / (kind if kind.isdigit() else f"{kind}.zarr")), **options)
    if delete_bad or delete_different:
        report.delete(bad=delete_bad, different=delete_different)
    return report


def at_hand(folder: Path, **changes: Any) -> Basis:
    known = {
        "source": VolumeReference(str(folder / "em.zarr")),
        "model": str(folder / "model.safetensors"),
    }
    return Basis(**{**known, **changes})


def shards(folder: Path, kind: str = "prediction") -> list[Path]:
    below = folder / f"{kind}.zarr" / "0" / "c"
    return sorted(path for path in below.rglob("*") if path.is_file())


def edit(folder: Path, change: Callable[[dict[str, Any]], None], kind: str = "prediction") -> None:
    """Change what an output says of itself."""
    location = str(folder / f"{kind}.zarr")
    values = json.loads(json.dumps(dict(open_volume(location).attributes)))
    change(values)
    replace_attributes(location, values)


# -- what is whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_command_made_passes(case: Path, kind: str) -> None:
    basis = Basis(source=VolumeReference(str(case / SOURCES[kind])))
    report = check(case, kind, basis=basis)
    assert (report.kind, report.flaws, report.notes) == (kind, [], [])
    assert report.objects == len(shards(case, kind)) > 1
    assert report.finish(as_json=False) == 0


def test_all_blocks_of_a_prediction_are_computed_again_to_the_same_bits(case: Path) -> None:
    report = check(case, recompute=1.0, basis=at_hand(case))
    assert report.flaws == []
    assert report.recomputed == report.blocks == 3 * 3 * 2
    assert report.notes == []


def test_a_share_of_the_blocks_is_one_at_least_and_the_seed_decides_which(case: Path) -> None:
    seen = [check(case, recompute=0.01, seed=seed, basis=at_hand(case)) for seed in (5, 5)]
    assert [(r.seed, r.recomputed, r.flaws) for r in seen] == [(5, 1, [])] * 2


def test_masked_predictions_of_several_channels_and_orientations_pass(copy: Path) -> None:
    store_volume(copy / "mask.zarr", np.eye(35, 45, dtype=np.uint8)[None].repeat(5, 0),
                 voxel_size=(50.0, 8.0, 8.0))  # fmt: skip
    mask = VolumeReference(str(copy / "mask.zarr"))
    run_prediction(
        VolumeReference(str(copy / "em.zarr")), str(copy / "masked.zarr"),
        model=str(copy / "model.safetensors"), cluster=JOINED["cluster"], mask=mask,
        choices=Choices(block=(2, 32, 48), shard=(1, 16, 48), flips=True, dtype="float32"),
    )  # fmt: skip
    report = check(copy, "masked", recompute=0.5, basis=at_hand(copy, mask=mask))
    assert (report.flaws, report.recomputed) == ([], 9)
    with pytest.raises(InvalidData, match="--mask"):
        check(copy, "masked", recompute=0.5, basis=at_hand(copy))


def test_of_a_region_only_its_blocks_are_asked_for(copy: Path) -> None:
    source, model = VolumeReference(str(copy / "em.zarr")), str(copy / "model.safetensors")
    region = ((0, 1), (40, 50), (0, 90))
    run_prediction(
        source, str(copy / "part.zarr"), model=model, region=region, cluster=JOINED["cluster"],
        choices=Choices(block=(2, 32, 48), shard=(1, 16, 48)),
    )  # fmt: skip
    report = check(copy, "part", region=region, recompute=1.0, basis=at_hand(copy))
    assert (report.flaws, report.objects, report.recomputed) == ([], 2 * 2 * 2, 2)
    whole = check(copy, "part")
    assert {flaw.kind for flaw in whole.flaws} == {"missing"}
    assert len(whole.flaws) == 5 * 5 * 2 - 8


# -- damage to stored objects ----------------------------------------------------------------------


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(raw)


def damage_index(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 1
    path.write_bytes(raw)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a flipped bit": (flip, "damaged", "cannot be decoded"),
    "cut in half": (lambda p: p.write_bytes(p.read_bytes()[: -p.stat().st_size // 2]), "damaged",
                    "does not match its checksum"),
    "empty": (lambda p: p.write_bytes(b""), "damaged", "has 0 bytes"),
    "bytes before the index": (lambda p: p.write_bytes(p.read_bytes()[:-20] + b"?" * 9
                                                       + p.read_bytes()[-20:]), "damaged", "bytes"),
    "a damaged index": (damage_index, "damaged", "does not match its checksum"),
    "missing": (Path.unlink, "missing", "is not stored"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_the_same_command_repairs_it(copy: Path, name: str) -> None:
    before = files_below(copy / "prediction.zarr")
    damage, kind, cause = DAMAGES[name]
    path = shards(copy)[7]
    damage(path)
    report = check(copy, delete_bad=True)
    (flaw,) = report.flaws
    assert (flaw.kind, flaw.path) == (kind, str(path.relative_to(copy / "prediction.zarr")))
    assert cause in flaw.cause
    assert report.deleted == ([flaw.path] if kind == "damaged" else [])
    assert not path.exists()
    with pytest.raises(OutputDamaged, match="the command that made"):
        report.finish(as_json=False)
    predict(copy)
    assert files_below(copy / "prediction.zarr") == before
    assert check(copy).flaws == []


@pytest.mark.parametrize("kind", ["volume", "instances", "weights"])
def test_outputs_of_other_commands_are_repaired_the_same_way(copy: Path, kind: str) -> None:
    before = files_below(copy / f"{kind}.zarr")
    flip(shards(copy, kind)[0])
    shards(copy, kind)[-1].unlink()
    report = check(copy, kind, delete_bad=True)
    assert [flaw.kind for flaw in report.flaws] == ["damaged", "missing"]
    MAKERS[kind](copy)
    assert files_below(copy / f"{kind}.zarr") == before
    assert check(copy, kind).flaws == []


def test_without_being_told_to_nothing_is_deleted(copy: Path) -> None:
    flip(shards(copy)[3])
    before = files_below(copy)
    assert check(copy).deleted == []
    assert files_below(copy) == before


def test_only_a_recomputation_finds_other_voxels_and_its_cure_cures(copy: Path) -> None:
    before = files_below(copy / "prediction.zarr")
    volume, box = reopen_for_writing(str(copy / "prediction.zarr")), Box((2, 16, 0), (3, 32, 48))
    values = volume.read(box)
    values[0, 3, 5] ^= 64
    volume.write(box, values)
    assert check(copy).flaws == []
    report = check(copy, recompute=1.0, basis=at_hand(copy), delete_different=True)
    (flaw,) = report.flaws
    assert (flaw.kind, flaw.path, flaw.box) == ("different", "0/c/2/1/0", str(box))
    assert flaw.cause.startswith("1 of 768 voxels differ")
    assert report.deleted == [flaw.path]
    predict(copy)
    assert files_below(copy / "prediction.zarr") == before


@pytest.mark.parametrize("change", [1, 64])
def test_what_is_different_is_deleted_only_when_told_to_and_never_within_the_tolerance(
    copy: Path, change: int
) -> None:
    volume, box = reopen_for_writing(str(copy / "prediction.zarr")), Box((2, 16, 0), (3, 32, 48))
    values = volume.read(box)
    values[0, 3, 5] ^= change
    volume.write(box, values)
    before = files_below(copy / "prediction.zarr")
    report = check(copy, recompute=1.0, basis=at_hand(copy), delete_bad=True)
    (flaw,) = report.flaws
    where = "within" if change == 1 else "more than"
    assert (flaw.kind, flaw.tolerable) == ("different", change == 1)
    assert f"by up to {change}: {where} the 1 that numeric plans may differ by" in flaw.cause
    assert report.deleted == []
    assert "Nothing known differs. Voxels were changed, or" in report.notes[0]
    assert "1 objects that are different were kept" in report.notes[1]
    assert files_below(copy / "prediction.zarr") == before
    with pytest.raises(OutputDamaged, match="--delete-different"):  # exit code 1
        report.finish(as_json=False)
    report = check(copy, recompute=1.0, basis=at_hand(copy), delete_different=True)
    assert report.deleted == ([] if change == 1 else ["0/c/2/1/0"])


def test_an_unreadable_object_is_not_taken_for_a_bad_one(copy: Path) -> None:
    path = shards(copy)[2]
    path.unlink()
    path.symlink_to(path)  # an error of the system, whoever runs the test
    report = check(copy, delete_bad=True)
    assert [flaw.kind for flaw in report.flaws] == ["unreachable"]
    assert report.deleted == []
    assert path.is_symlink()


@pytest.mark.parametrize("codec", CODECS)
def test_no_flipped_bit_of_a_shard_goes_unnoticed_and_changes_a_voxel(
    tmp_path: Path, codec: str
) -> None:
    new = NewVolume(shape=(3, 12, 12), dtype="uint8", chunk=(2, 8, 12), shard=(4, 16, 12),
                    codec=codec, attributes={})  # fmt: skip
    create_volume(str(tmp_path / "x.zarr"), new)
    values, box = noise(new.shape), Box.of_shape(new.shape)
    reopen_for_writing(str(tmp_path / "x.zarr")).write(box, values)
    (path,) = [p for p in (tmp_path / "x.zarr/0/c").rglob("*") if p.is_file()]
    raw, passed = path.read_bytes(), 0
    volume = open_volume(str(tmp_path / "x.zarr"))
    assert check_shard(volume, box, None) is None
    for position in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        if check_shard(volume, box, None) is None:  # a time stamp in a header of gzip, say
            passed += 1
            np.testing.assert_array_equal(volume.read(box), values)
    assert passed <= (len(raw) // 20 if codec == "gzip" else 0)


_WITHOUT_FILES = """
import os, resource, sys
from tilenet.volumes import inspection as shards
from tilenet.geometry.box import Box
from tilenet.volumes.volume import open_volume
volume, held = open_volume(sys.argv[1]), []
box = Box.of_shape(volume.shape)
assert (shards.check_shard(volume, box, None) is None) == (sys.argv[2] != "damaged")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def from_then_on(function, act):  # the fault is real; when it begins and ends is arranged
    def called(*arguments):
        found = function(*arguments)
        act()
        return found
    return called

def take_all():
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass

def give_back():
    while held:
        os.close(held.pop())

shards._index_problem = from_then_on(shards._index_problem, take_all)
if sys.argv[2] == "once":
    # As if zarrs had not said its number, at the first attempt.
    shards.is_of_system = from_then_on(lambda error: False, give_back)
flaw = shards.check_shard(volume, box, None)
give_back()
print(flaw.kind, flaw.cause)
"""


@pytest.mark.parametrize("fault", ["lasting", "once", "damaged"])
def test_what_the_system_does_not_let_us_read_is_not_damaged(tmp_path: Path, fault: str) -> None:
    new = NewVolume(shape=(3, 12, 12), dtype="uint8", chunk=(3, 12, 12), shard=(3, 12, 12),
                    attributes={})  # fmt: skip
    location = str(tmp_path / "x.zarr")
    create_volume(location, new)
    reopen_for_writing(location).write(Box.of_shape(new.shape), noise(new.shape))
    if fault == "damaged":
        flip(tmp_path / "x.zarr/0/c/0/0/0")
    found = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FILES, location, fault],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("unreachable")
    assert "Too many open files" in found.stdout
    assert ("at the second attempt only" in found.stdout) == (fault == "once")


def test_only_what_lies_in_the_output_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    for name in ("mine", "x.zarr/a", "x.zarr/b"):
        (tmp_path / name).touch()
    for path in (str(tmp_path / "mine"), "../mine", "a/../../mine", ""):
        with pytest.raises(InvalidData, match="does not lie below"):
            delete_objects(str(tmp_path / "x.zarr"), ["a", path])
    assert files_below(tmp_path).keys() == {"mine", "x.zarr/a", "x.zarr/b"}
    delete_objects(str(tmp_path / "x.zarr"), ["a", "gone"])
    assert files_below(tmp_path).keys() == {"mine", "x.zarr/b"}


def test_channels_are_looked_at_one_by_one(tmp_path: Path) -> None:
    new = NewVolume(shape=(2, 8, 8), dtype="uint8", chunk=(1, 8, 8), shard=(2, 8, 8),
                    channels=("a", "b"), attributes={})  # fmt: skip
    create_volume(str(tmp_path / "x.zarr"), new)
    box = Box.of_shape(new.shape)
    reopen_for_writing(str(tmp_path / "x.zarr")).write(box, noise((2, 2, 8, 8)))
    flip(tmp_path / "x.zarr/0/c/1/0/0/0")
    found = [check_shard(view, box, None) for view in views(open_volume(str(tmp_path / "x.zarr")))]
    assert [flaw and flaw.path for flaw in found] == [None, "0/c/1/0/0/0"]


# -- values that cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "cause"),
    [
        ("instances", 10**6, "holds 1000000"),
        ("weights", -1.0, "holds -1.0"),
        ("weights", np.nan, "1 values are NaN or infinite"),
        ("weights", np.inf, "1 values are NaN or infinite"),
    ],
)
def test_values_that_cannot_be_are_found(copy: Path, kind: str, value: float, cause: str) -> None:
    volume = reopen_for_writing(str(copy / f"{kind}.zarr"))
    box = BlockGrid(volume.shape, volume.write_shape)[1]
    values = volume.read(box)
    values[0, 1, 2] = value
    volume.write(box, values)
    (flaw,) = check(copy, kind).flaws
    assert flaw.kind == "impossible"
    assert flaw.cause.startswith(f"in {box}: {cause}")


# -- names and provenance --------------------------------------------------------------------------


def test_what_lies_beside_the_shards_is_named(copy: Path) -> None:
    inside = copy / "prediction.zarr" / "0" / "c" / "0" / "0"
    (inside / "0.123.partial").write_bytes(b"half")
    (copy / "prediction.zarr" / "notes.txt").write_text("mine")
    report = check(copy)
    assert report.flaws == []
    assert [note.split()[0] for note in sorted(report.notes)] == [
        "0/c/0/0/0.123.partial", "notes.txt",
    ]  # fmt: skip
    (inside / "99").write_bytes(b"?")
    (flaw,) = check(copy, delete_bad=True).flaws
    assert (flaw.kind, flaw.path) == ("stray", "0/c/0/0/99")
    assert (inside / "99").exists(), "what is not of the output is not deleted"


def test_labels_that_were_not_finished_are_told_apart(copy: Path) -> None:
    location = str(copy / "instances.zarr")
    write_join(location, np.ones(3, np.uint32), np.zeros(4, np.int64))
    (flaw,) = check(copy, "instances").flaws
    assert flaw.kind == "unfinished"


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no plan": (lambda a: a.pop("numeric_plan"), "numeric_plan is missing"),
    "a block of words": (lambda a: a["numeric_plan"].update(block="big"), "numeric_plan.block"),
    "a torn block": (lambda a: a["numeric_plan"].update(block=[2, 33, 48]), "not whole shards"),
    "no precision": (lambda a: a["numeric_plan"].update(precision="int4"), "precision = 'int4'"),
    "another shape": (lambda a: a["input"].update(shape=[5, 70, 91]), "[5, 70, 91]"),
    "no sizes": (lambda a: a["input"].update(stored_bytes=7), "input.stored_bytes = 7"),
    "another type": (lambda a: a["output"].update(dtype="float32"), "stored as uint8"),
    "more channels": (lambda a: a["output"].update(channels=[{}, {}]), "names 2"),
    "a broken digest": (lambda a: a.update(model_sha256="0x12"), "model_sha256 = '0x12'"),
    "no deviation": (lambda a: a["intensity"]["numbers"].update(std=0), "std 0"),
    "unknown turns": (lambda a: a.update(test_time_augmentation="some"), "'some'"),
}


def test_counts_of_weights_that_cannot_be_are_found(copy: Path) -> None:
    edit(copy, lambda a: a["counts"].update(background="many", middle=3), "weights")
    causes = [flaw.cause.split(" =")[0] for flaw in check(copy, "weights").flaws]
    assert sorted(causes) == ["counts.background", "counts.middle"]


@pytest.mark.parametrize("name", EDITS)
def test_provenance_that_cannot_be_true_is_found(copy: Path, name: str) -> None:
    change, cause = EDITS[name]
    edit(copy, change)
    report = check(copy, recompute=1.0, basis=at_hand(copy))
    assert {flaw.kind for flaw in report.flaws} == {"provenance"}
    assert any(cause in flaw.cause for flaw in report.flaws)
    assert report.recomputed == 0
    assert report.objects == len(shards(copy)), "what is stored is looked at all the same"


def test_another_model_and_another_input_are_told(copy: Path) -> None:
    save_softmax(copy / "other.safetensors", random_network(ARCHITECTURES["planar"], seed=1))
    other = at_hand(copy, model=str(copy / "other.safetensors"))
    (flaw,) = check(copy, basis=other, recompute=1.0).flaws
    assert flaw.cause.startswith("model_sha256: it says")
    store_volume(copy / "noise.zarr", grey_values(SHAPE, top=4))
    elsewhere = at_hand(copy, source=VolumeReference(str(copy / "noise.zarr")))
    (flaw,) = check(copy, basis=elsewhere).flaws
    assert "of its sampled objects have other sizes" in flaw.cause


def test_an_edited_intensity_is_found_by_the_model_that_says_another(copy: Path) -> None:
    edit(copy, lambda a: a["intensity"]["numbers"].update(mean=128.0))
    assert check(copy, basis=at_hand(copy)).flaws == []
    report = check(copy, basis=at_hand(copy), recompute=0.01)
    (flaw,) = report.flaws
    assert flaw.cause.startswith("intensity.numbers.mean: it says 128.0")
    assert report.recomputed == 0


def test_under_another_numeric_plan_it_is_compared_within_a_tolerance(copy: Path) -> None:
    edit(copy, lambda a: a["numeric_plan"].update(torch="1.0.0"))
    report = check(copy, basis=at_hand(copy), recompute=1.0)
    assert (report.flaws, report.recomputed) == ([], 18)
    (note,) = report.notes
    assert "not bit for bit" in note
    assert "torch was 1.0.0" in note


def test_the_tolerance_is_one_grey_level_in_uint8_and_none_without() -> None:
    a = np.array([3, 7, 255], np.uint8).reshape(3, 1, 1)
    assert difference(a, a.copy(), 1e-5) is None

    def tolerable(stored: npt.NDArray[Any], computed: npt.NDArray[Any]) -> bool:
        found = difference(stored, computed, 1e-5)
        assert found is not None, "every bit counts"
        return found.tolerable

    assert tolerable(a, a - np.uint8(1))
    assert not tolerable(a, a - np.uint8(2))
    zero = np.zeros((2, 1, 1), np.float32)
    assert tolerable(zero, -zero)
    assert tolerable(zero, zero + np.float32(1e-6))
    assert not tolerable(zero, zero + np.float32(1e-3))
    assert not tolerable(zero, np.full_like(zero, np.nan))
    large = np.array([-1e4, 0], np.float32).reshape(2, 1, 1)
    assert tolerable(large, large + np.float32(0.05))
    assert not tolerable(large, large + np.float32(0.5))


def test_the_difference_is_that_of_all_planes_and_takes_the_memory_of_few() -> None:
    stored = np.zeros((64, 256, 256), np.uint8)
    computed = stored.copy()
    computed[3, :2] = 9
    computed[60, 5, 5] = 40
    everywhere = np.invert(stored)
    tracemalloc.start()
    try:
        found = difference(stored, everywhere, 1e-5)
        assert tracemalloc.get_traced_memory()[1] < stored.nbytes
    finally:
        tracemalloc.stop()
    assert str(found) == (
        "4194304 of 4194304 voxels differ from what is computed anew, by up to 255: more than the "
        "1 that numeric plans may differ by"
    )
    assert difference(stored, computed, 1e-5) == Difference(513, 4194304, 40.0, 1.0)
    computed[5, 0, 0] = 1
    floats = np.where(computed == 1, np.nan, computed.astype(np.float32))
    found = difference(stored.astype(np.float32), floats.astype(np.float32), 100.0)
    assert found is not None
    assert not found.tolerable
    assert "by up to nan: more than the" in str(found)


# -- what goes wrong on the way --------------------------------------------------------------------


def watched(monkeypatch: pytest.MonkeyPatch, before: Callable[[], Any]) -> list[RunOptions]:
    """Note how blocks are recomputed, and do something just before."""
    seen = list[RunOptions]()

    def run(task: Any, blocks: Any, options: RunOptions, *, client: Client) -> Outcome:
        if options.name == "recompute":
            seen.append(options)
            before()
        return run_on_cluster(task, blocks, options, client=client)

    monkeypatch.setattr("pipelines.engine.runner.run_on_cluster", run)
    return seen


def test_blocks_that_cannot_be_computed_again_are_told_and_what_is_bad_is_deleted(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = shards(copy)[7]
    flip(bad)
    (first, *_) = [path for path in (copy / "em.zarr").rglob("c/*") if path.is_dir()]
    broken = next(path for path in first.rglob("*") if path.is_file())
    seen = watched(monkeypatch, lambda: flip(broken))
    where = dataclasses.replace(JOINED["cluster"], block_timeout=1234.0)
    report = check(copy, recompute=1.0, basis=at_hand(copy), delete_bad=True, cluster=where)
    kinds = Counter(flaw.kind for flaw in report.flaws)
    assert kinds.keys() == {"damaged", "unchecked"}
    assert report.recomputed == 17 - kinds["unchecked"] > 0
    assert report.deleted == [str(bad.relative_to(copy / "prediction.zarr"))]
    assert not bad.exists()
    (options,) = seen
    assert options.limits.block == 1234
    assert options.limits.memory > 0
    with pytest.raises(OutputDamaged) as raised:
        report.finish(as_json=False)
    assert "1 objects were deleted: run the command that made" in str(raised.value)
    assert "--delete-bad" not in str(raised.value)
    assert "is not known to be bad" in str(raised.value)


def test_a_stop_while_blocks_are_computed_again_keeps_what_was_found(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(copy)[0].unlink()
    watched(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    report = check(copy, recompute=1.0, basis=at_hand(copy))
    assert [flaw.kind for flaw in report.flaws] == ["missing", "unchecked"]
    assert "it was stopped" in report.flaws[1].cause


def test_what_cannot_be_deleted_is_told(copy: Path) -> None:
    bad = shards(copy)[0]
    flip(bad)
    report = check(copy)
    shutil.rmtree(bad.parent)
    bad.parent.touch()
    report.delete(bad=True, different=True)
    assert report.deleted == []
    assert "not all bad objects could be deleted: " in report.notes[-1]
    with pytest.raises(OutputDamaged, match="--delete-bad"):
        report.finish(as_json=False)


def test_an_absurd_shape_ends_with_what_is_wrong_and_not_never(copy: Path) -> None:
    metadata = copy / "prediction.zarr" / "0" / "zarr.json"
    values = json.loads(metadata.read_text())
    values["shape"][0] = 10**10
    metadata.write_text(json.dumps(values))
    report = check(copy, recompute=0.1, basis=at_hand(copy))
    assert {flaw.kind for flaw in report.flaws} == {"provenance"}
    assert report.objects == 0
    assert "no object was looked at" in report.notes[-1]


# -- the command -----------------------------------------------------------------------------------


def command(*arguments: object) -> Any:
    where = ["--scheduler", str(JOINED["cluster"].scheduler)]
    return CliRunner().invoke(tilenet, ["verify", *map(str, arguments), *where])


def test_the_command_prints_json_and_fails_where_something_is_wrong(copy: Path) -> None:
    output = copy / "prediction.zarr"
    good = command(output, "--json")
    assert (good.exit_code, json.loads(good.stdout)["ok"]) == (0, True)
    shards(copy)[0].unlink()
    bad = command(output, "--json", "--recompute", "0.1", "--seed", "3",
                  "--model", copy / "model.safetensors", "--source", copy / "em.zarr")  # fmt: skip
    values = json.loads(bad.stdout)
    assert (values["ok"], values["seed"], values["recomputed"]) == (False, 3, 2)
    assert values["flaws"] == [
        {"kind": "missing", "path": "0/c/0/0/0", "box": "z=0:1,y=0:16,x=0:48",
         "cause": "is not stored", "tolerable": False}
    ]  # fmt: skip
    assert isinstance(bad.exception, OutputDamaged)


def test_what_is_asked_for_must_be_possible(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    store_volume(tmp_path / "x.zarr", grey_values(SHAPE), kind="other")
    basis = Basis(model=str(case / "model.safetensors"))
    refused: dict[str, tuple[Path, str, dict[str, Any]]] = {
        "no output of tilenet": (tmp_path, "x", {}),
        "--model": (case, "weights", {"basis": basis}),
        "--recompute: is for predictions": (case, "instances", {"recompute": 0.5}),
        "needs --source": (case, "prediction", {"recompute": 0.5, "basis": basis}),
        "Give the folder above": (case / "prediction.zarr", "0", {}),
        "does not exist": (tmp_path, "nothing", {}),
    }
    monkeypatch.setattr("pipelines.verify.command.open_runner", None)  # nothing is looked at
    for match, (folder, kind, options) in refused.items():
        with pytest.raises(TilenetError, match=match):
            check(folder, kind, **options)
    assert command(case / "prediction.zarr", "--level", 1).exit_code == 2
    assert command(case / "prediction.zarr", "--recompute", 2).exit_code == 2


def test_what_is_different_is_not_deleted_where_nothing_is_recomputed(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["verify", str(copy / "prediction.zarr"), "--delete-different"]) == 2
    assert "--delete-different deletes what --recompute finds: give both" in capsys.readouterr().err
