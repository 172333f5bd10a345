"""Opening what is no volume, or lies behind a URL."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zarr

from tests.volumes.test_volume_open import DATA, check, plain, write_image
from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.volumes import check_stored, identify, open_volume


def _a_file(path: Path) -> None:
    path.write_bytes(b"II*\0")


def _broken_json(path: Path) -> None:
    zarr.create_group(str(path))
    (path / "zarr.json").write_text("{")


def _lost_level(path: Path) -> None:
    write_image(path, {"0": DATA})
    shutil.rmtree(path / "0")


def _broken_metadata(path: Path) -> None:
    group = write_image(path, {"0": DATA})
    group.attrs["multiscales"] = [{"axes": "zyx"}]


NO_VOLUME: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "does not exist"),
    "a file": (_a_file, "is not a Zarr array or group.*tilenet ingest"),
    "a folder": (Path.mkdir, "is not a Zarr array or group"),
    "broken JSON": (_broken_json, "has Zarr metadata that cannot be read"),
    "an empty group": (lambda path: zarr.create_group(str(path)), "without an image"),
    "a lost level": (_lost_level, "x/0: is not a Zarr array or group"),
    "broken metadata": (_broken_metadata, "metadata break the specification.*path of an array"),
    "a group as level": (
        lambda path: write_image(path, {"0": DATA}).create_group("0", overwrite=True),
        "name a level '0' that is not an array",
    ),
    "no voxels": (
        lambda path: zarr.create_array(str(path), shape=(0, 3, 3), chunks=(1, 1, 1), dtype="u1"),
        "is empty",
    ),
    "complex values": (lambda path: plain(path, DATA.astype(complex)), "values of type complex"),
}


@pytest.mark.parametrize("name", NO_VOLUME)
def test_what_is_no_volume_is_refused(tmp_path: Path, name: str) -> None:
    make, words = NO_VOLUME[name]
    make(tmp_path / "x")
    with pytest.raises(UnreadableVolume, match=words) as caught:
        open_volume(str(tmp_path / "x"))
    assert str(tmp_path / "x") in str(caught.value)


def test_an_array_below_broken_metadata_can_be_opened(tmp_path: Path) -> None:
    _broken_metadata(tmp_path / "x")
    check(open_volume(str(tmp_path / "x/0")))


def test_several_images_in_one_group_are_not_chosen_from(tmp_path: Path) -> None:
    group = write_image(tmp_path, {"0": DATA})
    image: Any = group.attrs["multiscales"]
    group.attrs["multiscales"] = [*image, *image]
    with pytest.raises(AmbiguousVolume, match=r"several multiscale images.*one array below it"):
        open_volume(str(tmp_path))
    check(open_volume(f"{tmp_path}/0"))


# -- URLs --------------------------------------------------------------------------------------


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server that knows byte ranges, as object stores do."""

    def send_head(self) -> Any:
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range")
        if asked is None or not path.is_file():
            return super().send_head()
        first, last = asked.removeprefix("bytes=").split("-")
        raw = path.read_bytes()
        start = int(first) if first else max(0, len(raw) - int(last))
        part = raw[start : int(last) + 1 if first and last else None]
        self.send_response(http.HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(raw)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections beyond these wait for seconds


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Ranges, directory=str(tmp_path))
    with _Server(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_http(tmp_path: Path, server: str) -> None:
    plain(tmp_path / "sharded", chunks=(2, 3, 3), shards=(4, 3, 6))
    write_image(tmp_path / "em.zarr", {"s0": DATA}, scales=[[50, 4, 4]])
    check(open_volume(f"{server}/sharded"))
    check(open_volume(f"{server}/em.zarr"))
    level = open_volume(f"{server}/em.zarr/s0")
    check(level)
    assert level.voxel_size == (50, 4, 4)


def test_chunks_that_are_not_found_are_asked_for_one_by_one(tmp_path: Path, server: str) -> None:
    write_image(tmp_path / "em.zarr", {"0": DATA}, version="0.5")
    assert check_stored(open_volume(f"{server}/em.zarr")) is None
    metadata = tmp_path / "em.zarr" / "0" / "zarr.json"
    said = {**json.loads(metadata.read_text()), "chunk_key_encoding": {"name": "v2"}}
    metadata.write_text(json.dumps(said))
    with pytest.raises(UnreadableVolume, match=r"none of its 8 chunks.*\(0\.0\.0\).*\(c/0/0/0\)"):
        check_stored(open_volume(f"{server}/em.zarr"))
    shutil.rmtree(tmp_path / "em.zarr" / "0" / "c")
    with pytest.raises(UnreadableVolume, match="every voxel would read as 0"):
        check_stored(open_volume(f"{server}/em.zarr"))


def test_a_url_is_known_by_the_same_identity_as_its_copy(tmp_path: Path, server: str) -> None:
    path = plain(tmp_path / "a")
    assert identify(open_volume(f"{server}/a")) == identify(open_volume(path))


def test_nothing_behind_a_url(server: str) -> None:
    with pytest.raises(UnreadableVolume, match="is not a Zarr array or group"):
        open_volume(f"{server}/nothing.zarr")


def test_memory(tmp_path: Path) -> None:
    store = zarr.storage.FsspecStore.from_url(f"memory://{tmp_path}")
    zarr.create_array(store, data=DATA, chunks=(2, 3, 3), shards=(4, 3, 6))
    check(open_volume(f"memory://{tmp_path}"))
    fsspec.filesystem("memory").rm(str(tmp_path), recursive=True)


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    check(open_volume(f"file://{plain(tmp_path / 'with space')}".replace(" ", "%20")))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UnreadableVolume, match=r"foo://em.zarr: .*foo.*tilenet\[remote\]"):
        open_volume("foo://em.zarr")
