"""The profile of AWS's own files, which the object store client does not read.

Only what stands in the files is used: keys, region and endpoint. A profile that has to be asked
for keys (single sign-on, roles, a process) is AWS's own tool's to resolve. Tools renew the keys
there, so they are read again while a client lives.

obstore's own ``Boto3CredentialProvider`` (0.12.1, tried) does not do that: it reads the files once
and calls the keys good for half an hour. It takes a secret with a line break, knows no endpoint,
and needs boto3: 37 MB, and no python-dateutil of version 3 or later.
"""

from __future__ import annotations

import configparser
import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilenet.errors import InvalidData
from tilenet.volumes.stores.urls import refuse_control_characters

#: Seconds after which the keys are read again.
KEYS_SECONDS = 10.0

#: Seconds before their end at which the client asks for new ones.
_AHEAD = 300.0

#: Keys of a profile, and what obstore calls them.
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}

#: Keys of a profile that say how to get credentials.
_ASKED = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")


def profile_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Read what a profile adds to the environment, which wins, as settings of an S3Store."""
    chosen = variables.get("AWS_PROFILE")
    name = chosen or variables.get("AWS_DEFAULT_PROFILE") or "default"
    credentials = _read(variables, "AWS_SHARED_CREDENTIALS_FILE", "credentials")
    settings = _read(variables, "AWS_CONFIG_FILE", "config")
    profile = {
        **(settings.get(f"profile {name}") or settings.get(name) or {}),
        **credentials.get(name, {}),
    }
    if chosen and not profile:
        known = sorted({*credentials, *(n.removeprefix("profile ") for n in settings)})
        cure = f"Choose one of {', '.join(known)}." if known else "Write ~/.aws/credentials first."
        raise InvalidData(f"AWS_PROFILE {chosen}", "is no profile of AWS's files", cure)
    for key in (*_KEYS, "region", "endpoint_url"):
        refuse_control_characters(profile.get(key, ""), f"{key} of the AWS profile {name}")
    found: dict[str, str] = {}
    if "AWS_ACCESS_KEY_ID" not in variables and "AWS_SKIP_SIGNATURE" not in variables:
        found |= _keys(name, profile)
    if not {"AWS_REGION", "AWS_DEFAULT_REGION"} & variables.keys() and "region" in profile:
        found["region"] = profile["region"]
    if not {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"} & variables.keys():
        found |= {"endpoint": profile["endpoint_url"]} if "endpoint_url" in profile else {}
    return found


def _keys(name: str, profile: Mapping[str, str]) -> dict[str, str]:
    found = {ours: profile[theirs] for theirs, ours in _KEYS.items() if theirs in profile}
    asked = [key for key in _ASKED if key in profile]
    if asked and "access_key_id" not in found:
        cure = (
            f'Run first: eval "$(aws configure export-credentials --profile {name} --format env)"'
        )
        raise InvalidData(f"AWS profile {name}", f"gets its keys by {asked[0]}", cure)
    if len(found.keys() & {"access_key_id", "secret_access_key"}) == 1:
        problem = "has one of aws_access_key_id and aws_secret_access_key, not both"
        raise InvalidData(f"AWS profile {name}", problem, "Write the other one too.")
    return found


class FileKeys:
    """The keys of a profile, as an obstore client asks for them: read again now and then."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self) -> dict[str, Any]:
        """Read them; a file without is refused only where none were known before."""
        try:
            found = profile_settings(os.environ)
        except InvalidData:  # a tool may be writing it just now
            if not self._known:
                raise
            found = {}
        if found.keys() >= {"access_key_id", "secret_access_key"}:
            self._known = found
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_AHEAD + KEYS_SECONDS)
        return {
            "access_key_id": self._known["access_key_id"],
            "secret_access_key": self._known["secret_access_key"],
            "token": self._known.get("session_token"),
            "expires_at": until,
        }


def _read(variables: Mapping[str, str], variable: str, name: str) -> dict[str, dict[str, str]]:
    path = variables.get(variable, f"~/.aws/{name}")
    # No interpolation: a secret may hold a per cent sign.
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read(Path(path).expanduser(), encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # Not its text, which quotes the line.
        problem = f"cannot be read ({type(error).__name__})"
        raise InvalidData(path, problem, "Correct it; it is AWS's own format.") from None
    return {section: dict(parser[section]) for section in parser.sections()}
