"""The report of a run beside its output: JSON, and a picture of its blocks."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipelines.watching.picture import report_png
from pipelines.watching.watch import Watch, now_text
from tilenet.volumes import LABELS, image_of
from tilenet.volumes.stores import is_remote, local_path, write_durably


def report_place(output: str, part: str | None = None) -> Path:
    """Say where the report of a run, or of its part "17/100", goes.

    It lies beside the output; where that is a URL, in the current folder by its whole name.
    """
    if is_remote(output):
        url = urlsplit(output)
        path = Path("-".join([url.scheme, url.hostname or "", *PurePosixPath(url.path).parts[1:]]))
    else:
        path = local_path(output)
        image = image_of(output)
        if image is not None:  # beside the image: within it are nodes of Zarr alone
            path = Path(f"{image}-{LABELS}-{path.name}")
    shared = "" if part is None else f".part-{part.replace('/', '-of-')}"
    return path.with_name(f"{path.name}{shared}.report.json")


def is_unfinished(output: str, part: str | None = None) -> bool:
    """Tell whether there is a report that can be read, of a run that did not store all.

    Parameters
    ----------
    output : str
        Path or URL of what the run wrote.
    part : str, optional
        Which share of the run it is.

    Returns
    -------
    bool
        False where there is none.
    """
    try:
        summary = json.loads(report_place(output, part).read_text())["summary"]
        return bool(summary["stored"] < summary["blocks"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write_report(watch: Watch, summary: dict[str, Any], part: str | None = None) -> Path:
    """Write the report of a run that is over, and its picture; an OSError where it cannot be.

    Parameters
    ----------
    watch : Watch
    summary : dict
        What the command says of it.
    part : str, optional
        Which share of the run it is.

    Returns
    -------
    Path
        The report; its picture lies beside it. Both appear whole or not at all.
    """
    place = report_place(watch.output, part)
    picture = place.with_suffix(".png")
    done = f"tilenet {watch.command} {watch.output}"
    write_durably(picture, report_png(watch.passes[-1], done))
    report = {
        "summary": summary,
        "part": part,
        "tilenet": watch.to_dict()["tilenet"],
        "started": watch.started,
        "ended": now_text(),
        "workers": watch.workers["count"],
        "slots": watch.workers["slots"],
        "passes": [state.to_dict() for state in watch.passes],
        "picture": picture.name,
    }
    write_durably(place, json.dumps(report, indent=2).encode())
    return place
