"""Model files: one ``.safetensors`` that says all that is needed to apply the network.

The tensors are the weights; the header holds, as JSON under "tilenet", the format version, the
architecture, the output channels, the intensity rule, the voxel size and the training record.
Nothing is ever unpickled. PyTorch is loaded only when weights are: ``tilenet plan`` and
``tilenet info`` read the header alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from safetensors import SafetensorError, safe_open

from tilenet.errors import (
    ArchitectureError,
    InvalidData,
    InvalidModelFile,
    ModelMismatch,
    one_line,
)
from tilenet.inference.foreign_models import foreign_kind
from tilenet.inference.stored_shapes import check_shapes
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity, OwnStatistics
from tilenet.volumes.stores import is_remote, write_durably

if TYPE_CHECKING:
    from tilenet.inference.unet import UNet

#: Raised by one whenever an older tilenet could not read what we write. A file states the lowest
#: that can hold it: 2 are models by which every volume is normalised by its own statistics.
FORMAT_VERSION = 2

#: What reading a header raises that is not what it ought to be.
_BROKEN_HEADER = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

Activation = Literal["softmax", "sigmoid", "linear"]


@dataclass(frozen=True, slots=True)
class OutputChannel:
    """What one channel of the network's output stands for.

    Parameters
    ----------
    name : str
        For example "membrane".
    label : int or None
        The value that stands for it in label volumes; ISBI 2012 has 0 membrane, 255 interior.
    activation : {"softmax", "sigmoid", "linear"}
        What turns scores into the output; softmax is over all channels.
    """

    name: str
    label: int | None = None
    activation: Activation = "softmax"

    def __post_init__(self) -> None:
        if self.activation not in ("softmax", "sigmoid", "linear"):
            cure = "Choose softmax, sigmoid or linear."
            raise InvalidData(f"Activation {self.activation!r}", "is unknown", cure)

    @property
    def is_bounded(self) -> bool:
        """Whether it holds values from 0 to 1, which uint8 needs."""
        return self.activation != "linear"


@dataclass(frozen=True)
class ModelHeader:
    """All that a model file says beside the weights.

    Parameters
    ----------
    architecture : UNetArchitecture
    intensity : Intensity
        Of the training volumes; of the first where each has its own.
    outputs : tuple of OutputChannel, one per output channel of the network
        All of one activation: no model has several so far.
    voxel_size : tuple of float or None
        Of the training volume, nanometres, (z, y, x).
    training : mapping
        Record of the training, for people.
    own : OwnStatistics or None
        Set where every volume is normalised by its own statistics, so that the intensity is not
        that of a new one.
    """

    architecture: UNetArchitecture
    intensity: Intensity = field(default_factory=Intensity)
    outputs: tuple[OutputChannel, ...] = (OutputChannel("background"), OutputChannel("foreground"))
    voxel_size: tuple[float, float, float] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    own: OwnStatistics | None = None

    def __post_init__(self) -> None:
        if len(self.outputs) != self.architecture.out_channels:
            problem = (
                f"are {len(self.outputs)}, but the network has {self.architecture.out_channels}"
            )
            raise InvalidData("Output channels", problem, "Name each output channel once.")
        if len(found := {output.activation for output in self.outputs}) > 1:
            problem = f"have the activations {', '.join(sorted(found))}"
            raise InvalidData("Output channels", problem, "Give all of them the same.")
        size = self.voxel_size
        if size is not None and not (len(size) == 3 and all(0 < v < math.inf for v in size)):
            cure = "Give nanometres along z, y and x."
            raise InvalidData(f"Voxel size {size}", "is not three positive numbers", cure)

    @property
    def activation(self) -> Activation:
        """What turns the scores of all channels into the output."""
        return self.outputs[0].activation

    @property
    def stored_outputs(self) -> tuple[OutputChannel, ...]:
        """The channels that a prediction stores, the last ones of the network's output.

        Probabilities of two softmax classes add up to one, so the second alone, the foreground,
        is stored.
        """
        return self.outputs if self._has_channel_axis else self.outputs[1:]

    @property
    def stored_channels(self) -> tuple[str, ...] | None:
        """Names along the channel axis of a prediction; None where it is stored as (z, y, x)."""
        return tuple(o.name for o in self.outputs) if self._has_channel_axis else None

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """What precedes (z, y, x) in the shape of a prediction: (channels,), or nothing."""
        return (len(self.outputs),) if self._has_channel_axis else ()

    @property
    def _has_channel_axis(self) -> bool:
        return self.activation != "softmax" or len(self.outputs) != 2

    def to_json(self) -> str:
        values = {
            "format_version": 1 if self.own is None else 2,
            "architecture": self.architecture.to_dict(),
            "intensity": self.intensity.to_dict(),
            "outputs": [{"name": o.name, "label": o.label} for o in self.outputs],
            "activation": self.activation,
            "voxel_size": self.voxel_size,
            "training": dict(self.training),
        }
        if self.own is not None:
            values["own_statistics"] = self.own.to_dict()
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        version = values["format_version"]
        if version not in range(1, FORMAT_VERSION + 1):
            problem = f"is {version}, and this tilenet reads up to {FORMAT_VERSION}"
            raise InvalidData("Format version", problem, "Use the tilenet that wrote it.")
        size = values["voxel_size"]
        return cls(
            architecture=UNetArchitecture.from_dict(values["architecture"]),
            intensity=Intensity.from_dict(values["intensity"]),
            outputs=tuple(
                OutputChannel(**output, activation=values["activation"])
                for output in values["outputs"]
            ),
            voxel_size=None if size is None else cast(Any, tuple(float(v) for v in size)),
            training=dict(values["training"]),
            own=OwnStatistics.from_dict(values["own_statistics"]) if version == 2 else None,
        )


@dataclass(frozen=True)
class Model:
    """A network ready to be applied, and what its file says of it.

    Parameters
    ----------
    network : UNet
        In eval mode, float32: tensor (B, C, (Z,) Y, X) to scores.
    header : ModelHeader
        Everything else.
    """

    network: UNet
    header: ModelHeader

    @property
    def architecture(self) -> UNetArchitecture:
        """The layers of the network."""
        return self.header.architecture

    @property
    def intensity(self) -> Intensity:
        """Rule that normalises grey values; has ``mean`` and ``std``.

        Of a model by which every volume has its own there is none: ModelMismatch is raised.
        """
        if self.header.own is not None:
            problem = "normalises every volume by its own statistics, and has no numbers for all"
            cure = (
                "Take those of the whole volume's values, with tilenet.volumes: "
                "own_intensity(lambda count: count(values), model.header.own, values.dtype)."
            )
            raise ModelMismatch("The model", problem, cure)
        return self.header.intensity


def save_model(path: str | Path, network: UNet, header: ModelHeader | None = None) -> None:
    """Write a model file; an existing one is replaced at once or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        Usually ``.safetensors``.
    network : UNet
        Its weights are stored as float32.
    header : ModelHeader, optional
        Of the network's architecture; by default no normalisation, two classes, softmax.
    """
    from safetensors.torch import save

    header = header or ModelHeader(network.architecture)
    if header.architecture != network.architecture:
        problem = "describes another architecture than the network's"
        raise InvalidData("Model header", problem, "Build both from one UNetArchitecture.")
    tensors = {
        name: tensor.detach().cpu().float().contiguous()
        for name, tensor in network.state_dict().items()
    }
    write_durably(Path(path), save(tensors, metadata={"tilenet": header.to_json()}))


def read_header(path: str | Path) -> ModelHeader:
    """Read what a model file says, without its weights and without PyTorch.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    ModelHeader
        Checked against the shapes of the stored weights.

    Raises
    ------
    InvalidModelFile
        When the file is missing, truncated, foreign, or contradicts itself.
    """
    try:
        if is_remote(str(path)):
            raise InvalidModelFile(str(path), "is a URL, and models are read from disk: copy it")
        if not Path(path).is_file():
            kind = foreign_kind(path) if Path(path).is_dir() else None
            problem = "does not exist or is not a file" if kind is None else _not_read(kind)
            raise InvalidModelFile(str(path), problem)
        Path(path).open("rb").close()  # safetensors gives another reason when it must not read
    except OSError as error:
        raise InvalidModelFile(str(path), f"cannot be read: {error.strerror or error}") from error
    try:
        with safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("tilenet")
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        kind = foreign_kind(path)
        problem = f"is not a safetensors file, or is truncated ({error})"
        raise InvalidModelFile(str(path), _not_read(kind) if kind else problem) from error
    if text is None:
        raise InvalidModelFile(str(path), "is a safetensors file, but not of tilenet")
    try:
        header = ModelHeader.from_json(text)
        check_shapes(str(path), header.architecture, shapes)
    except (InvalidData, ArchitectureError) as error:
        raise InvalidModelFile(str(path), str(error).rstrip(".")) from error
    except _BROKEN_HEADER as error:
        problem = f"has a broken header ({one_line(repr(error))})"
        raise InvalidModelFile(str(path), problem) from error
    return header


def _not_read(kind: str) -> str:
    return f"is not a safetensors file, but {kind}, which is not read yet"


def load_model(path: str | Path) -> Model:
    """Load a model.

    Parameters
    ----------
    path : str or pathlib.Path
        A file written by :func:`save_model` or ``tilenet train``.

    Returns
    -------
    Model
        With ``.network`` (eval mode, float32), ``.architecture`` and ``.intensity``.

    Raises
    ------
    InvalidModelFile
        When the file is missing, truncated, foreign, or contradicts itself.
    """
    from safetensors.torch import load_file

    from tilenet.inference.unet import UNet

    header = read_header(path)
    network = UNet(header.architecture)
    try:
        network.load_state_dict(load_file(str(path)))
    except (RuntimeError, SafetensorError) as error:
        problem = (
            f"has weights that do not fit its architecture ({str(error).splitlines()[-1].strip()})"
        )
        raise InvalidModelFile(str(path), problem) from error
    network.eval()
    network.requires_grad_(False)
    return Model(network, header)


def model_sha256(path: str | Path) -> str:
    """Identify a model by its file's content.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    str
        Hexadecimal.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidModelFile(str(path), f"cannot be read: {error.strerror or error}") from error
