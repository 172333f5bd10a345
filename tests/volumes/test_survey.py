"""Chunks that are not found are no zeros: nothing stored is refused, little is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipelines import cli
from tests.support.oracles import ARCHITECTURES, random_network, save_softmax
from tests.support.runs import files_below, store_volume
from tests.volumes.test_volume_open import DATA, write_image
from tilenet.errors import UnreadableVolume
from tilenet.geometry import Box
from tilenet.volumes import check_stored, open_volume, survey
from tilenet.volumes.survey import MANY

#: Metadata as Zarr writes them, by how keys then look: c/0/1/2, c.0.1.2, 0/1/2, 0.1.2.
STYLES = {
    "c/": {"name": "default", "configuration": {"separator": "/"}},
    "c.": {"name": "default", "configuration": {"separator": "."}},
    "/": {"name": "v2", "configuration": {"separator": "/"}},
    ".": {"name": "v2", "configuration": {"separator": "."}},
}


def state(image: Path, style: str) -> None:
    """Let the metadata of the array 0 say how keys look, whatever lies there."""
    file = next(path for name in ("zarr.json", ".zarray") if (path := image / "0" / name).exists())
    said = json.loads(file.read_text())
    if file.name == "zarr.json":
        said["chunk_key_encoding"] = STYLES[style]
    else:
        said["dimension_separator"] = style
    file.write_text(json.dumps(said))


def rename(image: Path, start: str, separator: str) -> None:
    """Move the chunks of the array 0, 3 along each axis, to other names."""
    array = image / "0"
    files = {p: p.relative_to(array) for p in array.rglob("*") if p.is_file()}
    for path, name in files.items():
        numbers = [part for part in str(name).replace(".", "/").split("/") if part.isdigit()]
        if len(numbers) == 3:
            target = array / (start + separator.join(numbers))
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


@pytest.mark.parametrize("lying", STYLES)
@pytest.mark.parametrize(
    ("version", "stated"), [*(("0.5", style) for style in STYLES), ("0.4", "/"), ("0.4", ".")]
)
def test_files_under_other_names_are_named_and_the_cure_finds_them(
    tmp_path: Path, version: str, stated: str, lying: str
) -> None:
    image = tmp_path / "em.zarr"
    write_image(image, {"0": DATA}, version=version)
    state(image, stated)
    rename(image, lying[:-1] and f"c{lying[-1]}", lying[-1])
    volume = open_volume(str(image))
    if lying == stated:
        assert check_stored(volume) is None
        np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), DATA)
        return
    with pytest.raises(UnreadableVolume) as caught:
        check_stored(volume)
    keys = {"c/": "c/0/0/0", "c.": "c.0.0.0", "/": "0/0/0", ".": "0.0.0"}
    assert "none of its 8 chunks is stored" in caught.value.problem
    assert f"({keys[stated]})" in caught.value.problem
    assert f"({keys[lying]})" in caught.value.problem
    assert str(survey(volume)).startswith("0 of 8 chunks are stored")
    # The cure, word by word.
    cure = caught.value.cure
    if "chunk_key_encoding" in cure:
        start, stop = cure.index("{"), cure.rindex("}") + 1
        assert json.loads(cure[start:stop]) == STYLES[lying]
        assert cure.endswith(" in 0/zarr.json")
        state(image, lying)
    elif "dimension_separator" in cure:
        assert cure == f'Set "dimension_separator" to "{lying}" in 0/.zarray'
        state(image, lying)
    else:
        assert version == "0.4"
        assert cure.startswith(f"Rename the files: {keys[lying]} to {keys[stated]}")
        rename(image, "", stated)
    again = open_volume(str(image))
    assert check_stored(again) is None
    np.testing.assert_array_equal(again.read(Box.of_shape(again.shape)), DATA)


def sparse(path: Path, shape: tuple[int, ...], stored: list[Any], **more: Any) -> zarr.Array[Any]:
    """An array of chunks of one voxel along all but the channels, of which a few are stored."""
    array = zarr.create_array(
        str(path), shape=shape, chunks=more.pop("chunks", (1,) * len(shape)), dtype="u1", **more
    )
    for place in stored:
        array[place] = 7
    return array


def test_what_stores_nothing_is_refused_also_where_zeros_are_meant(tmp_path: Path) -> None:
    array = sparse(tmp_path / "a.zarr", (2, 4, 4), [], chunks=(1, 2, 2), fill_value=3)
    array[:] = 3  # Zarr stores none of it
    with pytest.raises(UnreadableVolume) as caught:
        check_stored(open_volume(str(tmp_path / "a.zarr")))
    assert "none of its 8 chunks is stored, so that every voxel would read as 3" in str(
        caught.value
    )
    assert "write_empty_chunks" in caught.value.cure
    array.with_config({"write_empty_chunks": True})[:] = 3
    assert check_stored(open_volume(str(tmp_path / "a.zarr"))) is None


@pytest.mark.parametrize("stored", [1, 3, 4, 8])
def test_few_stored_chunks_are_counted(tmp_path: Path, stored: int) -> None:
    places = [np.s_[i // 4, i // 2 % 2, i % 2] for i in range(stored)]
    sparse(tmp_path / "a.zarr", (2, 2, 2), places)
    note = check_stored(open_volume(str(tmp_path / "a.zarr")))
    wanted = f"{stored} of 8 chunks are stored; what is not reads as 0."
    assert note == (wanted if stored < 4 else None)


def test_shards_are_counted_as_such(tmp_path: Path) -> None:
    sparse(tmp_path / "a.zarr", (2, 4, 4), [(0, 0, 0)], shards=(1, 2, 2))
    note = check_stored(open_volume(str(tmp_path / "a.zarr")))
    assert note == "1 of 8 shards are stored; what is not reads as 0."


def test_the_chosen_channel_counts_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    sparse(path, (2, 2, 2, 2), [np.s_[0]])
    assert check_stored(open_volume(str(path), axes="czyx", channel=0)) is None
    with pytest.raises(UnreadableVolume, match="none of its 8 chunks"):
        check_stored(open_volume(str(path), axes="czyx", channel=1))


def test_empty_corners_of_sections_are_not_taken_for_the_whole(tmp_path: Path) -> None:
    # 64 sections of 81 chunks: an even step of 81 would look at corners alone.
    array = sparse(tmp_path / "a.zarr", (64, 9, 9), [])
    folder = tmp_path / "a.zarr" / "c"
    for z, y in np.ndindex(64, 9):
        (folder / f"{z}/{y}").mkdir(parents=True)
        for x in range(9):
            if (y, x) != (0, 0):
                (folder / f"{z}/{y}/{x}").touch()
    assert array.nchunks > MANY
    assert check_stored(open_volume(str(tmp_path / "a.zarr"))) is None


#: A volume of more chunks than are looked for.
LARGE = (30, 20, 20)


def test_one_chunk_of_very_many_is_found_and_not_refused(tmp_path: Path) -> None:
    sparse(tmp_path / "a.zarr", LARGE, [(11, 7, 3)])
    seen = survey(open_volume(str(tmp_path / "a.zarr")))
    assert (seen.found, seen.looked, seen.total, seen.none) == (0, MANY, 12_000, False)
    note = check_stored(open_volume(str(tmp_path / "a.zarr")))
    assert note is not None
    assert note.startswith("0 of 4,096 chunks that were looked for, among 12,000, are stored;")


@pytest.mark.parametrize("stored", [[], [(11, 7, 3)]])
def test_none_of_very_many_is_refused_with_what_lies_there(
    tmp_path: Path, stored: list[Any]
) -> None:
    path = tmp_path / "a.zarr"
    sparse(path, LARGE, stored, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "."})
    said = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**said, "dimension_separator": "/"}))
    with pytest.raises(UnreadableVolume, match="none of its 12,000 chunks") as caught:
        check_stored(open_volume(str(path)))
    assert ("11.7.3" in caught.value.problem) == bool(stored)


def test_a_file_where_a_folder_is_looked_for_is_no_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    sparse(path, (2, 2, 2), [])
    (path / "c").touch()
    with pytest.raises(UnreadableVolume, match="none of its 8 chunks"):
        check_stored(open_volume(str(path)))


def test_our_own_outputs_say_themselves_what_is_missing(tmp_path: Path) -> None:
    store_volume(tmp_path / "ours.zarr", DATA.astype(np.uint8))
    shutil.rmtree(tmp_path / "ours.zarr" / "0" / "c")
    assert check_stored(open_volume(str(tmp_path / "ours.zarr"))) is None


#: Every command that reads a volume, with the misnamed one in each place.
COMMANDS = (
    "ingest BAD out.zarr", "label BAD out.zarr", "weights BAD out.zarr",
    "predict BAD out.zarr --model m.safetensors",
    "predict em.zarr out.zarr --model m.safetensors --mask BAD",
    "plan BAD --model m.safetensors --no-calibration", "evaluate BAD em.zarr",
    "evaluate em.zarr BAD", "train BAD em.zarr --output out.safetensors",
    "train em.zarr BAD --output out.safetensors",
    "train em.zarr em.zarr --output out.safetensors --weight-map BAD",
    "train em.zarr em.zarr --output out.safetensors --also em.zarr,BAD",
    "verify copy.zarr --source BAD",
)  # fmt: skip


def test_every_command_refuses_it_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    values = DATA.astype(np.uint8)
    for name in ("em.zarr", "BAD"):
        write_image(tmp_path / name, {"0": values}, version="0.5", separator=".")
    network = random_network(ARCHITECTURES["planar"])
    save_softmax(tmp_path / "m.safetensors", network)
    assert cli.run(["ingest", "em.zarr", "copy.zarr", "--workers", "1"]) == 0
    state(tmp_path / "BAD", "c/")
    (tmp_path / "copy.zarr.report.json").unlink(missing_ok=True)
    before = files_below(tmp_path)
    for command in COMMANDS:
        capfd.readouterr()
        assert cli.run(command.split()) == 1, command
        said = capfd.readouterr().err
        assert "none of its 8 chunks is stored by its metadata (c/0/0/0)" in said, command
        assert "(c.0.0.0)" in said, command
        assert files_below(tmp_path) == before, command
    assert cli.run(["info", "BAD"]) == 0
    assert "0 of 8 chunks are stored" in capfd.readouterr().out


def test_little_is_a_warning_that_names_the_volume(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sparse(tmp_path / "a.zarr", (2, 4, 4), [np.s_[0, 0, 0]], chunks=(1, 2, 2))
    for command in ("ingest", "label"):
        assert cli.run([command, str(tmp_path / "a.zarr"), str(tmp_path / command)]) == 0
        said = capfd.readouterr().err
        wanted = (
            f"Warning: {tmp_path / 'a.zarr'}: 1 of 8 chunks are stored; what is not reads as 0."
        )
        assert wanted in said.splitlines()
