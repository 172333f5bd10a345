"""An S3 server on loopback, started for tests and ended with them: SeaweedFS."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

#: Credentials that exist on this server alone: of one who may do all, and of one who may read.
KEY, SECRET = "TESTKEYOFONETHATWRITES", "test/secret+of%one=that/writes"
READER_KEY, READER_SECRET = "TESTKEYOFONETHATREADS", "testsecretofonethatreads"

BUCKET = "lab"

#: The server takes a second port this much above each for itself.
SECOND = 10_000


def program() -> str | None:
    """The server's program, or None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


class S3Server:
    """A server with one bucket, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        may = {KEY: (SECRET, ["Admin", "Read", "Write", "List"]),
               READER_KEY: (READER_SECRET, ["Read", "List"])}  # fmt: skip
        people = [
            {
                "name": key,
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": actions,
            }
            for key, (secret, actions) in may.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": people}))
        self.ports = dict(zip(("s3", "filer", "master", "volume"), _free_ports(4), strict=True))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """How a program reaches it."""
        nothing = str(self.folder / "none")
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nothing,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
            "NO_PROXY": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it, and come back when it answers."""
        found = program()
        assert found is not None
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [found, "server", "-s3", f"-s3.config={self.folder / 's3.json'}", *ports,
                 "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
                 f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                 "-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
                 # No election of a master, which after a kill takes a quarter of a minute.
                 "-master.peers=none"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def _answers(self) -> bool:
        # A folder of the filer is a bucket. That a stranger is refused says that S3 is there.
        bucket = f"http://127.0.0.1:{self.ports['filer']}/buckets/{BUCKET}/"
        made = _status(urllib.request.Request(bucket, method="POST"))
        return made in (201, 409) and _status(f"{self.url}/{BUCKET}/none") == 403

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)
        self.process = None
        for port in self.ports.values():
            for number in (port, port + SECOND):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink()

    def close(self) -> None:
        """End it if it runs."""
        if self.process is not None:
            self.kill()


def _status(request: urllib.request.Request | str) -> int:
    # 0: no answer.
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def _free_ports(count: int) -> list[int]:
    # All held until the last is found, so that no two are the same.
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port + SECOND > 65535:
                continue
            second = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + SECOND))
                found.append(port)
    return found
