"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.cluster.tls import Tls


def make(folder: Path, authority: str) -> Tls:
    """Make an authority, a key, and a certificate that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates to test with")
    ca, ca_key = folder / f"{authority}-ca.pem", folder / f"{authority}-ca-key.pem"
    openssl("req", "-x509", *new_key(ca_key), "-out", str(ca), "-subj", f"/CN={authority}")
    cert, key, request = (folder / f"{authority}-{name}.pem" for name in ("cert", "key", "request"))
    openssl("req", *new_key(key), "-out", str(request), "-subj", "/CN=tilenet")
    signer = ("-CA", str(ca), "-CAkey", str(ca_key), "-set_serial", "1")
    openssl("x509", "-req", "-in", str(request), "-out", str(cert), *signer)
    return Tls(ca=str(ca), cert=str(cert), key=str(key))


def new_key(path: Path) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", str(path))


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
