"""What the fuzzer found, case by case: each was an error of another kind, a death or a hang."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipelines.cluster import make_options
from pipelines.outputs import check_whole
from tests.fuzz.seeds import SHAPE, make_seeds
from tests.support.runs import environment
from tilenet.errors import (
    InvalidData,
    InvalidModelFile,
    InvalidProfile,
    InvalidRecipe,
    UnreadableBlock,
    UnreadableVolume,
)
from tilenet.geometry import Box
from tilenet.inference import RateCache, read_header
from tilenet.strict_toml import load
from tilenet.volumes import identify, open_volume, reopen_for_writing

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    make_seeds(folder)
    return folder


@pytest.fixture
def files(sound: Path, tmp_path: Path) -> Path:
    """Sound files, to be damaged by one test."""
    shutil.copytree(sound, tmp_path / "files")
    return tmp_path / "files"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_bytes())
    change(values)
    path.write_text(json.dumps(values))


def edit_model(path: Path, change: Callable[[dict[str, Any]], str]) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    ours = json.loads(header["__metadata__"]["tilenet"])
    header["__metadata__"]["tilenet"] = change(ours)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_a_group_with_a_broken_member_is_refused(files: Path) -> None:
    edit(files / "ours.zarr/zarr.json", lambda v: v["attributes"].pop("ome"))
    edit(files / "ours.zarr/0/zarr.json", lambda v: v.update(chunk_grid="regular"))
    with pytest.raises(UnreadableVolume, match="holds something whose Zarr metadata"):
        open_volume(str(files / "ours.zarr"))


def test_attributes_that_are_no_table_are_refused(files: Path) -> None:
    (files / "v2.zarr" / ".zattrs").write_text('["a"]')
    with pytest.raises(UnreadableVolume, match="attributes that are not names and values"):
        open_volume(str(files / "v2.zarr"))


def test_levels_of_fewer_axes_than_the_first_are_refused(files: Path) -> None:
    # The models of OME-Zarr compare the levels' scales before they count them.
    def shorten(values: Any) -> None:
        values["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] = []

    edit(files / "ome04.zarr/.zattrs", shorten)
    with pytest.raises(UnreadableVolume, match="break the specification"):
        open_volume(str(files / "ome04.zarr"))


def test_chunks_without_voxels_are_refused(files: Path) -> None:
    edit(files / "v2.zarr/.zarray", lambda v: v.update(chunks=[2, 0, 24]))
    with pytest.raises(UnreadableVolume, match="claims chunks of"):
        open_volume(str(files / "v2.zarr"))


READ = """
import sys
from tilenet.errors import UnreadableBlock
from tilenet.geometry.box import Box
from tilenet.volumes.volume import open_volume
try:
    open_volume(sys.argv[1]).read(Box((0, 0, 0), (1, 10, 24)))
except UnreadableBlock as error:
    print(error)
"""


def test_a_damaged_index_without_a_checksum_does_not_kill_the_process(files: Path) -> None:
    # zarrs allocates what such an index says, and the process dies where that is too much.
    edit(files / "ours.zarr/0/zarr.json", lambda v: v["codecs"][0]["configuration"].update(
        index_codecs=[{"name": "bytes", "configuration": {"endian": "little"}}]
    ))  # fmt: skip
    shard = files / "ours.zarr/0/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-84] + struct.pack("<QQ", 0, 2**60) + bytes(64))
    done = subprocess.run(
        [sys.executable, "-c", READ, files / "ours.zarr"],
        capture_output=True, text=True, check=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert "cannot read z=0:1,y=0:10,x=0:24" in done.stdout


def test_a_chunk_that_links_to_itself_is_refused(files: Path) -> None:
    chunk = files / "v3.zarr/c/0/0/0"
    chunk.unlink()
    chunk.symlink_to(chunk)
    with pytest.raises(UnreadableVolume, match="Too many levels"):
        identify(open_volume(str(files / "v3.zarr")))


def test_absurd_shapes_are_refused_or_cost_nothing(files: Path) -> None:
    path = files / "ours.zarr/0/zarr.json"
    edit(path, lambda v: v.update(shape=[10**18] * 3))
    with pytest.raises(UnreadableVolume, match="more objects than any store holds"):
        open_volume(str(files / "ours.zarr"))
    edit(path, lambda v: v.update(shape=[10**9, 20, 24 * 1000]))
    volume = open_volume(str(files / "ours.zarr"))
    assert len(identify(volume)["stored_bytes"]) == 256
    with pytest.raises(InvalidData, match=r"at least .* are not stored yet"):
        check_whole(volume, Box.of_shape(volume.shape))


def test_what_cannot_be_written_to_says_so(files: Path) -> None:
    # An array whose chunks no longer are what its shards were made of.
    shard = files / "ours.zarr/0/c/0/0/0"
    raw = bytearray(shard.read_bytes())
    raw[-3] ^= 1
    shard.write_bytes(raw)
    volume = reopen_for_writing(str(files / "ours.zarr"))
    with pytest.raises(UnreadableBlock, match="checksum"):
        volume.write(Box((0, 0, 0), (1, 10, 24)), np.zeros((1, 10, 24), np.uint8))


@pytest.mark.parametrize(
    "text", [f"a = {DEEP}", f"a = {'9' * 5000}", '"' + "x" * 10**5 + '" = 1 1']
)
def test_toml_of_absurd_depth_and_length_is_refused_in_few_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(InvalidRecipe) as recipe:
        load(tmp_path / "x.toml", InvalidRecipe)
    with pytest.raises(InvalidProfile) as profile:
        make_options(str(tmp_path / "x.toml"), {})
    assert max(len(str(caught.value)) for caught in (recipe, profile)) < 1000


@pytest.mark.parametrize(
    "line", ['memory = "1e999GB"', "memory = inf", f'walltime = "{"9" * 400}h"']
)
def test_endless_sizes_and_durations_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.toml").write_text(line)
    with pytest.raises(InvalidProfile, match="is not a"):
        make_options(str(tmp_path / "x.toml"), {})


def test_an_unknown_key_of_absurd_length_is_named_in_few_words(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(f"{'x' * 10**5} = 1")
    with pytest.raises(InvalidProfile) as caught:
        make_options(str(tmp_path / "x.toml"), {})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda ours: DEEP,
        lambda ours: json.dumps(ours).replace('"convolutions": 2', '"convolutions": 1000000000000'),
        lambda ours: json.dumps(ours | {"voxel_size": [1, 2, 10**400]}),
    ],
)
def test_model_headers_that_ask_for_too_much_are_refused(
    files: Path, change: Callable[[dict[str, Any]], str]
) -> None:
    edit_model(files / "model.safetensors", change)
    with pytest.raises(InvalidModelFile):
        read_header(files / "model.safetensors")


def test_deep_rates_are_no_rates(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(files))
    assert RateCache.load().problem is None
    (files / "calibration.json").write_text(DEEP)
    assert "no file of measured rates" in (RateCache.load().problem or "")


@pytest.mark.parametrize("path", ["../outside", "/etc", "0/../../outside"])
def test_metadata_that_lead_out_of_their_group_are_refused(files: Path, path: str) -> None:
    zarr.create_array(files / "outside", shape=SHAPE, dtype="uint8")

    def lead_out(values: Any) -> None:
        values["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = path

    edit(files / "ours.zarr/zarr.json", lead_out)
    for read in (open_volume, reopen_for_writing):
        with pytest.raises(UnreadableVolume):
            read(str(files / "ours.zarr"))
