"""``tilenet label`` into the labels of an OME-Zarr image: legal, listed, the image as it was."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from pipelines import cli
from tests.support.runs import files_below
from tests.volumes.test_volume_open import write_image
from tilenet.synthetic import synthetic_em
from tilenet.volumes import (
    fingerprint,
    image_of,
    label_images,
    list_label_image,
    open_volume,
)

STORED = ("--chunk", "2,16,16", "--shard", "2,32,32")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks in this process, and the test's own folder."""
    monkeypatch.setattr(
        "pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(None)
    )
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def masks() -> npt.NDArray[np.uint8]:
    return np.asarray(synthetic_em((4, 40, 50), seed=1).cells)


@pytest.fixture
def em(masks: npt.NDArray[np.uint8]) -> Path:
    np.save("masks.npy", masks)
    assert cli.run(["ingest", "masks.npy", "em.zarr", "--voxel-size", "50,4,4", *STORED]) == 0
    return Path("em.zarr")


def label(output: str, *more: str, source: str = "em.zarr") -> int:
    return cli.run(["label", source, output, *STORED, *more])


def listing(image: Path = Path("em.zarr")) -> Any:
    return json.loads((image / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"]


def check(name: str, masks: npt.NDArray[np.uint8]) -> None:
    """It is a legal label image, and plain Zarr reads the right ids."""
    # The root is a legal image still, and lists no member that is no node.
    root = zarr.open_group("em.zarr", mode="r")
    Image.from_zarr(root)
    assert name in Labels.from_zarr(zarr.open_group("em.zarr/labels", mode="r")).label_paths
    group = zarr.open_group(f"em.zarr/labels/{name}", mode="r")
    said = ImageLabel.from_zarr(group).attributes.ome.image_label
    assert said is not None
    assert said.source is not None
    assert said.source.image == "../../"
    ids = root[f"labels/{name}/0"]
    assert isinstance(ids, zarr.Array)
    wanted = cc3d.connected_components(masks > 0, connectivity=6)
    found = np.asarray(ids[:])
    assert found.max() == wanted.max()
    pairs = set(zip(found.ravel().tolist(), wanted.ravel().tolist(), strict=True))
    assert len(pairs) == wanted.max() + 1


def test_it_is_legal_and_listed_and_leaves_the_image_as_it_was(
    em: Path, masks: npt.NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    before, known = files_below(em), fingerprint(open_volume(str(em)))
    assert label("em.zarr/labels/cells") == 0
    check("cells", masks)
    assert listing() == ["cells"]
    after = files_below(em)
    assert {name: raw for name, raw in after.items() if not name.startswith("labels/")} == before
    assert fingerprint(open_volume(str(em))) == known
    # Nothing but nodes of Zarr lies in the group; the report is beside the image.
    assert sorted(path.name for path in (em / "labels").iterdir()) == ["cells", "zarr.json"]
    assert Path("em.zarr-labels-cells.report.json").exists()
    capfd.readouterr()
    for output in ("em.zarr", "em.zarr/labels/cells"):
        assert cli.run(["verify", output]) == 0
        told = capfd.readouterr()
        assert "all is well" in told.out
        assert "not of tilenet" not in told.err
    assert cli.run(["verify", "em.zarr/labels/cells", "--source", "em.zarr"]) == 0
    # A label image and the image are the same to a second run.
    assert label("em.zarr/labels/cells") == 0
    assert label("em.zarr/labels/again", source="em.zarr/labels/cells") == 0
    assert listing() == ["cells", "again"]


def test_masks_from_elsewhere_make_a_label_image_too(
    em: Path, masks: npt.NDArray[np.uint8]
) -> None:
    shutil.copytree(em, "masks.zarr")
    assert label("em.zarr/labels/cells", source="masks.zarr") == 0
    check("cells", masks)


def test_names_and_keys_of_others_are_kept_and_overwriting_keeps_the_list(
    em: Path, masks: npt.NDArray[np.uint8]
) -> None:
    ome = {"version": "0.5", "labels": ["theirs"], "colour": "blue"}
    zarr.create_group("em.zarr/labels", attributes={"ome": ome, "lab": [1, 2]})
    zarr.consolidate_metadata(zarr.open_group("em.zarr/labels").store)
    shutil.copytree("em.zarr/0", "em.zarr/labels/theirs")
    for more in ((), ("--overwrite",)):
        assert label("em.zarr/labels/cells", *more) == 0
        attributes = zarr.open_group("em.zarr/labels", mode="r").attrs.asdict()
        assert attributes == {"ome": {**ome, "labels": ["theirs", "cells"]}, "lab": [1, 2]}
        assert "cells" in dict(zarr.open_group("em.zarr/labels", mode="r").members())
    assert (em / "labels" / "theirs" / "zarr.json").exists()


@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_killed_run_is_continued_and_listed(
    em: Path, masks: npt.NDArray[np.uint8], killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the list is written, or after it."""
    with monkeypatch.context() as patch:
        if killed == "before":
            patch.setattr("pipelines.derive.label.list_label_image", _stop)
        else:
            patch.setattr("pipelines.derive.label.write_join", _stop)
        assert label("em.zarr/labels/cells") == 130
    assert (em / "labels" / "cells" / "zarr.json").exists()
    assert (em / "labels" / "zarr.json").exists() == (killed == "after")
    assert label("em.zarr/labels/cells") == 0
    check("cells", masks)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_parts_list_it_once(em: Path, masks: npt.NDArray[np.uint8]) -> None:
    for part in ("1/2", "2/2"):
        assert label("em.zarr/labels/cells", "--part", part) == 0
    assert label("em.zarr/labels/cells") == 0
    check("cells", masks)
    assert listing() == ["cells"]


def test_of_many_writers_at_once_no_name_is_lost(em: Path) -> None:
    names = [f"n{i}" for i in range(16)]
    for name in names:
        (em / "labels" / name).mkdir(parents=True)
    gate = threading.Barrier(len(names))

    def add(name: str) -> None:
        gate.wait()
        list_label_image(f"em.zarr/labels/{name}")

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    assert sorted(listing()) == sorted(names)


@pytest.mark.parametrize(
    "output", ["em.zarr/cells", "em.zarr/labels", "em.zarr/labels/a/b", "em.zarr/0/labels/a"]
)
def test_no_other_place_within_the_input_is_legal(
    em: Path, output: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_below(em)
    assert label(output) == 1
    assert "lie inside one another" in capfd.readouterr().err
    assert files_below(em) == before


def test_other_commands_stay_outside(em: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("weights", "ingest"):
        assert cli.run([command, "em.zarr", "em.zarr/labels/cells"]) == 1
        assert "lie inside one another" in capfd.readouterr().err


def _v2(image: Path, values: npt.NDArray[Any]) -> str:
    shutil.rmtree(image)
    write_image(image, {"0": values}, version="0.4")
    return "(Zarr v3) within an image of another version"


def _newer(image: Path, values: npt.NDArray[Any]) -> str:
    metadata = json.loads((image / "zarr.json").read_text())
    metadata["attributes"]["ome"]["version"] = "0.6"
    (image / "zarr.json").write_text(json.dumps(metadata))
    return "within an image of another version"


def _labels_v2(image: Path, values: npt.NDArray[Any]) -> str:
    zarr.create_group(str(image / "labels"), zarr_format=2, attributes={"labels": []})
    return "labels is of Zarr v2"


def _broken(image: Path, values: npt.NDArray[Any]) -> str:
    zarr.create_group(str(image / "labels"), attributes={"ome": {"labels": "cells"}})
    return "not of a group of label images"


@pytest.mark.parametrize("make", [_v2, _newer, _labels_v2, _broken])
@pytest.mark.parametrize("source", ["em.zarr", "other.zarr"])
def test_what_would_be_no_legal_label_image_is_refused_before_anything_is_written(
    em: Path, masks: npt.NDArray[np.uint8], make: Any, source: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(em, "other.zarr")
    words = make(em, masks)
    before = files_below(em)
    assert label("em.zarr/labels/cells", source=source) == 1
    assert words in capfd.readouterr().err
    assert files_below(em) == before


def test_folders_of_these_names_that_are_no_image_are_as_any_other(em: Path) -> None:
    Path("results/labels").mkdir(parents=True)
    assert image_of("results/labels/cells") is None
    assert label("results/labels/cells") == 0
    names = sorted(path.name for path in Path("results/labels").iterdir())
    assert names == ["cells", "cells.report.json", "cells.report.png"]
    attributes: Any = zarr.open_group("results/labels/cells", mode="r").attrs["ome"]
    assert "image-label" not in attributes


def test_overwriting_the_image_does_not_take_its_labels_along(
    em: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert label("em.zarr/labels/cells") == 0
    assert label_images("em.zarr") == label_images("em.zarr/labels") == ("cells",)
    before = files_below(em)
    again = ["ingest", "masks.npy", "em.zarr", "--voxel-size", "50,4,4", *STORED, "--overwrite"]
    shutil.copytree(em, "other.zarr")
    for command in (again, ["label", "other.zarr", "em.zarr/labels", *STORED, "--overwrite"]):
        assert cli.run(command) == 1
        assert "holds the label images cells" in capfd.readouterr().err
        assert files_below(em) == before
    shutil.rmtree("em.zarr/labels/cells")
    assert cli.run(again) == 0


def test_a_label_image_lies_where_the_image_lies(masks: npt.NDArray[np.uint8]) -> None:
    whole = [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]},
        {"type": "translation", "translation": [80.0, 16.0, 24.0]},
    ]
    image = Path("em.zarr")
    write_image(image, {"s0": masks}, version="0.5", scales=[[40.0, 8.0, 8.0]], whole=whole)
    assert label("em.zarr/labels/cells") == 0
    assert listing() == ["cells"]
    volume = open_volume("em.zarr/labels/cells")
    assert list(volume.voxel_size or ()) == [40, 8, 8]
    assert list(volume.translation or ()) == [80, 16, 24]
