"""Checkpoints: all that a training needs to go on as if it had never stopped.

One ``.safetensors`` file beside the model, written durably and whole; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from tilenet.errors import InvalidModelFile
from tilenet.training.loop import State, pack, unpack
from tilenet.volumes import refuse_if_different
from tilenet.volumes.stores import write_durably

#: Added to the name of the model.
SUFFIX = ".checkpoint"

#: Raised by one whenever an older tilenet could not go on with what we write.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CheckpointRecord:
    """What a checkpoint says beside its tensors.

    Parameters
    ----------
    step : int, updates done
    conditions, best : mapping
        Recipe and inputs, which must be the same for the training to go on; the best validation so
        far.
    """

    step: int
    conditions: Mapping[str, Any]
    best: Mapping[str, Any]


def checkpoint_path(model: str) -> Path:
    """Name the checkpoint of a model.

    Parameters
    ----------
    model : str
        The model file that the training is to write.

    Returns
    -------
    pathlib.Path
        Beside it.
    """
    return Path(model + SUFFIX)


def save_checkpoint(path: Path, state: State, record: CheckpointRecord) -> None:
    """Write a checkpoint; an older one is replaced at once or not at all.

    Parameters
    ----------
    path : pathlib.Path
    state : State
    record : CheckpointRecord
    """
    values = {
        "format_version": FORMAT_VERSION,
        "step": record.step,
        "conditions": dict(record.conditions),
        "best": dict(record.best),
    }
    write_durably(path, save(pack(state), metadata={"tilenet_training": json.dumps(values)}))


def read_record(path: Path) -> CheckpointRecord:
    """Read what a checkpoint says, without its tensors.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    CheckpointRecord
        Step, conditions and best validation.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            values = json.loads((file.metadata() or {})["tilenet_training"])
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(values["format_version"])
        return CheckpointRecord(
            int(values["step"]), dict(values["conditions"]), dict(values["best"])
        )
    except (
        SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError,
        RecursionError,
    ) as error:  # fmt: skip
        problem = f"is not a checkpoint of this tilenet, or is truncated ({error!r}); remove it"
        raise InvalidModelFile(str(path), problem) from error


def resume(path: Path, state: State, conditions: Mapping[str, Any]) -> CheckpointRecord:
    """Go on where a checkpoint stands.

    Parameters
    ----------
    path : pathlib.Path
    state : State
        A new one; changed in place.
    conditions : mapping
        Recipe and inputs now.

    Returns
    -------
    CheckpointRecord
        What the checkpoint says.

    Raises
    ------
    ResumeRefused
        When it was begun with another recipe or input, naming every field that differs.
    """
    record = read_record(path)
    refuse_if_different(str(path), record.conditions, conditions)
    try:
        unpack(state, load_file(str(path)), record.step)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        problem = f"does not fit its own recipe ({error!r}); remove it"
        raise InvalidModelFile(str(path), problem) from error
    return record
