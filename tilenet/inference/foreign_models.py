"""Telling what other programs' models are, by how their files begin: none of them is read yet."""

from __future__ import annotations

import zipfile
from pathlib import Path

#: What a member of a zipped model, or of a folder, tells; the first that is there decides.
_MEMBERS = {
    "bioimageio.yaml": "a bioimage.io package",
    "rdf.yaml": "a bioimage.io package",
    "model.weights.h5": "a Keras model (.keras)",
    "saved_model.pb": "a TensorFlow SavedModel",
    "constants.pkl": "a TorchScript model",
    "models/model.json": "a program of torch.export (.pt2)",
    "archive_format": "a program of torch.export (.pt2)",
    "data.pkl": "a PyTorch checkpoint (.pt, .pth, .ckpt)",
}

_PICKLE = b"\x80"
_HDF5 = b"\x89HDF\r\n\x1a\n"

#: Fields that follow the version in ONNX: producer, domain, graph, sets of operators.
_ONNX_NEXT = b"\x12\x1a\x22\x3a\x42"

#: Bytes of a text that are looked at.
_HEAD = 65536


def foreign_kind(path: str | Path) -> str | None:
    """Say what a file or folder is that another program's model may be.

    Parameters
    ----------
    path : str or pathlib.Path
        Local; nothing of it is unpickled.

    Returns
    -------
    str or None
        With its article, for example "a TorchScript model"; None where nothing is recognised.
    """
    path = Path(path)
    if path.is_dir():
        return next((kind for name, kind in _MEMBERS.items() if (path / name).exists()), None)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        return _zipped_kind(path)
    if head[8:9] == b"{":
        return None  # a safetensors file, whatever its length looks like
    if head.startswith(_PICKLE) and len(head) > 2 and 2 <= head[1] <= 5 and head[2]:
        return "a pickle, as old PyTorch checkpoints are (.pt, .pth)"
    if head.startswith(_HDF5):
        return "an HDF5 file, as Keras models are (.h5)"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[:1] == b"\x08" and len(head) > 8 and head[1] < 32 and head[2] in _ONNX_NEXT:
        return "an ONNX model"
    if b"format_version:" in head and b"weights:" in head:
        return "a bioimage.io description"
    return None


def _zipped_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "a zip file, as PyTorch, Keras and bioimage.io write models, and a broken one"
    for name, kind in _MEMBERS.items():
        # PyTorch and some packages put all in one folder more.
        if any(found == name or found.partition("/")[2] == name for found in names):
            return kind
    return "a zip file, as PyTorch, Keras and bioimage.io write models"
