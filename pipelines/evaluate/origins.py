"""Where prediction and truth come from, as far as their provenance says: doubts, for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.evaluate.comparison import Comparison
from pipelines.outputs import prediction_behind, say_notes
from tilenet.geometry import Box, zyx
from tilenet.volumes import Volume, digest_of, fingerprint


def say_origins(comparison: Comparison) -> None:
    """Say on stderr what makes the figures say less than they seem to."""
    predicted, true = comparison.predicted, comparison.true
    if true.location == predicted.location:
        say_notes(true.location, ["Prediction and truth are the same volume."])
    elif true.volume.attributes.get("kind") == "prediction":
        say_notes(true.location, ["This truth is a prediction that tilenet made."])
    elif _is_made_of(true.volume, predicted):
        say_notes(true.location, ["This truth was made of the prediction itself."])
    elif prediction_behind(true.volume):
        say_notes(true.location, ["This truth was made of a prediction that tilenet made."])
    say_notes(predicted.location, list(_trained(comparison)))


def _is_made_of(volume: Volume, other: Volume) -> bool:
    origin = volume.attributes.get("input")
    return isinstance(origin, Mapping) and digest_of(origin) == fingerprint(other)


def _trained(comparison: Comparison) -> Iterator[str]:
    """Say which parts of the region the model was trained on."""
    behind = prediction_behind(comparison.predicted)
    volumes = behind.get("trained_on")
    if not isinstance(volumes, list) or not isinstance(behind.get("input"), Mapping):
        return
    raw, labels = digest_of(behind["input"]), fingerprint(comparison.true.volume)
    for volume in volumes:
        if not isinstance(volume, Mapping):
            continue
        if raw != volume.get("raw"):
            # Its region is of other raw data, and may lie elsewhere here.
            if labels == volume.get("labels"):
                yield "The model was trained on this truth, beside other raw data."
            continue
        seen = _box(volume.get("region"))
        part = None if seen is None else seen.intersect(comparison.region)
        if part is not None and part.size:
            yield f"The model was trained on {part} of this volume, so figures flatter it there."


def _box(text: Any) -> Box | None:
    numbers = re.fullmatch(r"z=(\d+):(\d+),y=(\d+):(\d+),x=(\d+):(\d+)", str(text))
    if numbers is None:
        return None
    ends = [int(n) for n in numbers.groups()]
    return Box(zyx(ends[::2]), zyx(ends[1::2]))
