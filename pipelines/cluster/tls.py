"""Certificates: what Dask takes, and a check that they fit together before anything is begun."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Security

from tilenet.errors import InvalidData


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files that encrypt what a cluster's processes say, and prove who they are."""

    ca: str  # certificate of the authority that signed the others
    cert: str  # of this side
    key: str


def security(tls: Tls | None) -> Security | None:
    """Give Dask's form of the files."""
    if tls is None:
        return None
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_cert": tls.cert for role in roles}
    files |= {f"tls_{role}_key": tls.key for role in roles}
    return Security(require_encryption=True, tls_ca_file=tls.ca, **files)


def check_tls(tls: Tls) -> None:
    """See that the files are there, are what they should be, and belong together."""
    for option, path in (("--tls-ca", tls.ca), ("--tls-cert", tls.cert), ("--tls-key", tls.key)):
        _check_readable(option, path)
    _authority(tls)
    certificate = _certificate(tls)
    refusal = _refusal(tls, certificate)
    if refusal is not None:
        problem = f"is not accepted by --tls-ca {tls.ca}: {refusal}"
        cure = "Give the certificate of the authority that signed it."
        raise InvalidData(f"--tls-cert {tls.cert}", problem, cure)


def _check_readable(option: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise InvalidData(f"{option} {path}", problem, "Check the path and its rights.") from error


def _authority(tls: Tls) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
    except ssl.SSLError as error:
        problem = "is not a certificate in PEM form"
        raise InvalidData(f"--tls-ca {tls.ca}", problem, "Check the file.") from error


def _certificate(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    def no_password(*_: Any) -> str:
        raise InvalidData(f"--tls-key {tls.key}", "is encrypted", "Give one without a password.")

    try:
        context.load_cert_chain(tls.cert, tls.key, password=no_password)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            problem = f"is not the key of --tls-cert {tls.cert}"
            cure = "Give the two that were made together."
            raise InvalidData(f"--tls-key {tls.key}", problem, cure) from error
        problem = f"and --tls-key {tls.key} are not a certificate and a key in PEM form"
        raise InvalidData(f"--tls-cert {tls.cert}", problem, "Check both files.") from error


def _refusal(tls: Tls, certificate: ssl.SSLContext) -> str | None:
    # The two shake hands in memory: this side shows its certificate to one that trusts the
    # authority. Python's ssl judges a certificate in no other way, and Dask would do so when work
    # has begun, and say less of what went wrong.
    trusting = _authority(tls)
    trusting.verify_mode = ssl.CERT_REQUIRED
    _load(trusting, tls)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = trusting.wrap_bio(to_server, to_client, server_side=True)
    client = certificate.wrap_bio(to_client, to_server)
    done = set()
    for side in (client, server) * 4:
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except ssl.SSLError as error:
            return str(error.reason)
    return None if len(done) == 2 else "the handshake does not end"
