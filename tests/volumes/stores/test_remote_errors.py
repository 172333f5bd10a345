"""What is said of a store that fails, where its settings come from, and what is never shown."""

from __future__ import annotations

import asyncio
import http.server
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from tilenet.errors import InvalidData, StoreFailed, UnreadableVolume
from tilenet.volumes import open_volume
from tilenet.volumes.stores import redact
from tilenet.volumes.stores.aws_profile import FileKeys, profile_settings
from tilenet.volumes.stores.remote_client import store_seconds
from tilenet.volumes.stores.remote_errors import explain, explained
from tilenet.volumes.stores.urls import refuse_secrets

SECRET = "wJalr/secret+key%of=nobody"

# -- answers of other servers ----------------------------------------------------------------------

#: As AWS documents them; an answer to a wrong signature quotes what was signed, and the key's name.
WRONG_SIGNATURE = (
    "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature we calculated does not "
    "match</Message><AWSAccessKeyId>AKIAOFNOBODY</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256 "
    "20260101T000000Z</StringToSign><SignatureProvided>fe5f80f77d5fa3bec</SignatureProvided></Error>"
)
MALFORMED = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The header is malformed; "
    "the region 'us-east-1' is wrong; expecting 'eu-west-3'</Message><Region>eu-west-3</Region>"
    "</Error>"
)
SLOW = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
QUOTA = "<Error><Code>QuotaExceeded</Code><Message>AKIAOFNOBODY has no room</Message></Error>"


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A server that gives every request the same answer, and the settings that lead to it."""
    answer: list[tuple[int, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer[0]
            if status == 200 and not self.path.endswith("zarr.json"):
                status, body = 404, ""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,))
        thread.start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{served.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIAOFNOBODY",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "NO_PROXY": "127.0.0.1",
            "TILENET_STORE_TIMEOUT": "0.5",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        yield lambda status, body="": answer.insert(0, (status, body))
        served.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, WRONG_SIGNATURE, r"not accept the credentials \(403 SignatureDoesNotMatch\)"),
        (400, MALFORMED, r"not in us-east-1, and no region is set .*Set AWS_REGION=eu-west-3"),
        (301, "", "not in us-east-1, and no region is set.*AWS_REGION=REGION"),
        (503, SLOW, "answers 503 SlowDown still after [01](.[0-9])? s.*TILENET_STORE_TIMEOUT"),
        (403, "", r"access is denied \(403\).*the right to list too"),
        (400, QUOTA, r"the store refuses it \(400 QuotaExceeded\)"),
    ],
)
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_what_a_server_answers_is_explained_and_not_quoted(
    answering: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    status: int,
    body: str,
    words: str,
    debug: tuple[str, ...],
) -> None:
    answering(status, body)
    with pytest.raises(StoreFailed, match=words) as caught:
        open_volume("s3://bucket/em.zarr")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert cli.run(["info", "s3://bucket/em.zarr", *debug]) == 1
    shown = "".join(capsys.readouterr())
    assert ("Traceback" in shown) == bool(debug)
    for secret in ("AKIAOFNOBODY", SECRET, "AWS4-HMAC", "fe5f80f77d5fa3bec"):
        assert secret not in shown


def test_a_web_server_is_not_asked_for_a_list(answering: Callable[..., None]) -> None:
    # A group without OME metadata, of which only a list could tell what it holds.
    answering(200, '{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreFailed, match=r"cannot be asked what it holds.*path of one image"):
        open_volume(os.environ["AWS_ENDPOINT_URL"] + "/em.zarr")


def test_a_missing_client_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UnreadableVolume, match=r"s3://b/em.zarr: needs.*'tilenet\[remote\]'"):
        open_volume("s3://b/em.zarr")


@pytest.mark.parametrize(
    ("variables", "place"),
    [({"AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1:9"), ({}, "account nobody")],
)
def test_azure_s_place_is_named_though_its_client_shows_no_url(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    settings = {"AZURE_STORAGE_ACCOUNT_NAME": "nobody", "AZURE_STORAGE_SAS_KEY": f"sig={SECRET}"}
    for name, value in {**settings, **variables, "TILENET_STORE_TIMEOUT": "0.5"}.items():
        monkeypatch.setenv(name, value)
    message = (
        "Generic MicrosoftAzure error: Error performing GET REDACTED in 503.350488ms, after 3 "
        "retries, max_retries: 9, retry_timeout: 500ms  - HTTP error: error sending request"
    )
    assert f"{place} does not answer after 0.5 s" in str(explain("az://c/x.zarr", message))


def test_azure_s_place_is_named_by_the_client_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": "nobody",
        "AZURE_STORAGE_SAS_KEY": f"sig={SECRET}",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9",
        "AZURE_ALLOW_HTTP": "true",
        "TILENET_STORE_TIMEOUT": "0.5",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreFailed, match=r"az://c/x.zarr: 127.0.0.1:9 does not answer") as caught:
        open_volume("az://c/x.zarr")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_panic_of_the_client_is_an_error_like_others(awaited: bool) -> None:
    obstore = pytest.importorskip("obstore")
    keys = {"access_key_id": "A", "secret_access_key": SECRET, "session_token": f"{SECRET}\n"}
    store = obstore.store.S3Store("bucket", config={**keys, "region": "us-east-1"})
    with (
        pytest.raises(StoreFailed, match="s3://bucket/x: the client library failed") as caught,
        explained("s3://bucket/x"),
    ):
        asyncio.run(_read(store)) if awaited else obstore.get(store, "x")
    assert SECRET not in str(caught.value)


async def _read(store: Any) -> None:
    import obstore

    await obstore.get_async(store, "x")


# -- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at s3://me:pw@lab/em.zarr: no", "at s3://lab/em.zarr: no"),
        ("s3://me:p/w+%@lab/em.zarr", "s3://lab/em.zarr"),
        ("http://host:80/a@b.zarr", "http://host:80/a@b.zarr"),
        ("https://a.b/c?X-Amz-Signature=1&x=2 ended", "https://a.b/c ended"),
        ("'http://pw@host:9/x' and gs://b/y?k", "'http://host:9/x' and gs://b/y"),
        ("abfs://container@account.net/x", "abfs://container@account.net/x"),
        ("abfs://container:key@account.net/x", "abfs://account.net/x"),
        ("mail me@host, a/b?c, C://x", "mail me@host, a/b?c, C://x"),
    ],
)
def test_nothing_secret_is_shown_of_a_url(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:pw@lab/x",
        "s3://me:a/p w?pw@lab/x",
        "https://pw@host/x",
        "https://host/x?pw",
        "abfs://c:pw@a.net/x",
    ],
)
def test_a_url_with_secrets_is_refused(url: str) -> None:
    with pytest.raises(InvalidData, match=r"holds a .*come from the environment") as caught:
        refuse_secrets(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://lab/x@1", "http://host:80/x@1", "abfs://c@a.net/x", "memory://"]
)
def test_a_url_without_secrets_is_not(url: str) -> None:
    refuse_secrets(url)


def test_wrong_usage_does_not_show_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["info", "a.zarr", "s3://me:hidden@lab/x"]) == 2
    shown = "".join(capsys.readouterr())
    assert "s3://lab/x" in shown
    assert "hidden" not in shown


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TILENET_STORE_TIMEOUT", text)
    with pytest.raises(InvalidData, match=f"TILENET_STORE_TIMEOUT: is '{text}'"):
        store_seconds()


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\t", "\x7f"])
def test_a_control_character_in_a_setting_is_refused(
    answering: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    end: str,
) -> None:
    monkeypatch.setenv(name, f"{SECRET}{end}")
    assert cli.run(["info", "s3://bucket/em.zarr"]) == 1
    shown = "".join(capfd.readouterr())
    assert f"{name}: holds a line break or another control character. Set it without" in shown
    assert SECRET not in shown
    assert "panicked" not in shown


def test_a_key_that_is_a_text_of_several_lines_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{\n"private_key": "x"\n}')
    with pytest.raises(StoreFailed, match="missing field `private_key_id`"):
        open_volume("gs://b/x.zarr")


FILES = {
    "credentials": "[default]\naws_access_key_id = A\naws_secret_access_key = %B\n"
    "[lab]\naws_access_key_id=C\naws_secret_access_key=D\naws_session_token=E\n",
    "config": "[default]\nregion = eu-north-1\n[profile lab]\nendpoint_url = http://lab\n"
    "[profile asked]\nsso_session = x\nregion = eu-west-1\n",
}
KEYS = {"access_key_id": "A", "secret_access_key": "%B"}
LAB = {"access_key_id": "C", "secret_access_key": "D", "session_token": "E"}


def files(folder: Path, **content: str) -> dict[str, str]:
    """Write AWS's files, and give the variables that name them."""
    for name, text in content.items():
        (folder / name).write_text(text)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": str(folder / "config"),
    }


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({}, {**KEYS, "region": "eu-north-1"}),
        ({"AWS_PROFILE": "lab"}, {**LAB, "endpoint": "http://lab"}),
        ({"AWS_ACCESS_KEY_ID": "Z"}, {"region": "eu-north-1"}),
        ({"AWS_REGION": "x", "AWS_SKIP_SIGNATURE": "true"}, {}),
        ({"AWS_PROFILE": "lab", "AWS_ENDPOINT_URL": "http://z"}, LAB),
        # What the keys come from does not matter where there are some.
        ({"AWS_PROFILE": "asked", "AWS_ACCESS_KEY_ID": "Z"}, {"region": "eu-west-1"}),
    ],
)
def test_the_environment_wins_over_the_profile(
    tmp_path: Path, variables: dict[str, str], settings: dict[str, str]
) -> None:
    assert profile_settings({**variables, **files(tmp_path, **FILES)}) == settings


def test_no_profile_is_needed(tmp_path: Path) -> None:
    assert profile_settings(files(tmp_path)) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lob", "AWS_PROFILE lob: is no profile.*Choose one of asked, default, lab"),
        ("asked", "gets its keys by sso_session.*aws configure export-credentials --profile asked"),
    ],
)
def test_a_profile_without_keys_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InvalidData, match=words):
        profile_settings({"AWS_PROFILE": name, **files(tmp_path, **FILES)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"[default]\naws_access_key_id=A\naws_secret_access_key={SECRET}\n  {SECRET}\n",
            "aws_secret_access_key of the AWS profile default: holds a line break",
        ),
        ("[default]\naws_access_key_id=A\n", "AWS profile default: has one of aws_access_key_id"),
    ],
)
def test_keys_that_cannot_be_sent_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidData, match=words) as caught:
        profile_settings(files(tmp_path, credentials=text))
    assert SECRET not in str(caught.value)


def test_keys_in_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in files(tmp_path, **FILES).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    ask = FileKeys()
    first = ask()
    assert [first[name] for name in ("access_key_id", "secret_access_key", "token")] == [*"CDE"]
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = F\n")  # half written
    assert ask()["access_key_id"] == "C"
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = F\naws_secret_access_key = G\n"
    )
    renewed = ask()
    assert [renewed[name] for name in ("access_key_id", "secret_access_key", "token")] == [
        "F", "G", None,
    ]  # fmt: skip


def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"credentials: cannot be read \(") as caught:
        profile_settings(files(tmp_path, credentials=f"aws_secret_access_key = {SECRET}\n"))
    assert SECRET not in str(caught.value)
