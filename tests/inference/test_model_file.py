"""Model files: a round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pipelines import cli
from tests.support.oracles import ARCHITECTURES, random_network
from tests.whole.test_imports import modules_after
from tilenet.errors import InvalidData, InvalidModelFile, ModelMismatch
from tilenet.inference import (
    ModelHeader,
    OutputChannel,
    Predictor,
    load_model,
    model_sha256,
    read_header,
    save_model,
)
from tilenet.networks import Execution
from tilenet.volumes import Intensity, OwnStatistics, own_intensity

ARCHITECTURE = ARCHITECTURES["anisotropic"]

HEADER = ModelHeader(
    architecture=ARCHITECTURE,
    intensity=Intensity(127.25, 39.5, 10.0, 240.0, invert=True),
    outputs=(OutputChannel("membrane", 0), OutputChannel("interior", 255)),
    voxel_size=(50.0, 4.0, 4.5),
    training={"steps": 300, "seed": 7, "loss": [0.5, 0.25]},
)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return random_network(ARCHITECTURE, seed=3)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, network: Any) -> Path:
    path = tmp_path_factory.mktemp("model") / "good.safetensors"
    save_model(path, network, HEADER)
    return path


def refuse(path: Path, words: str) -> None:
    """Both ways of reading refuse the file, name it, and say why."""
    for read in (read_header, load_model):
        with pytest.raises(InvalidModelFile, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)


def tampered(good: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the JSON that tilenet stores in the header; the tensors stay."""
    raw = good.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8:end])
    values = json.loads(head["__metadata__"]["tilenet"])
    change(values)
    head["__metadata__"]["tilenet"] = json.dumps(values)
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + raw[end:]


# -- what is written is read -------------------------------------------------------------------


def test_weights_come_back_bit_for_bit(good: Path, network: Any) -> None:
    loaded = load_model(good).network.state_dict()
    stored = network.state_dict()
    assert list(loaded) == list(stored)
    for name, tensor in stored.items():
        assert loaded[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_the_header_comes_back_equal(good: Path) -> None:
    assert read_header(good) == HEADER
    model = load_model(good)
    assert model.header == HEADER
    assert model.architecture == ARCHITECTURE
    assert (model.intensity.mean, model.intensity.std) == (127.25, 39.5)


def test_a_model_of_each_volumes_own_statistics_has_no_numbers_for_all(good: Path) -> None:
    model = load_model(good)
    own = replace(model, header=replace(HEADER, own=OwnStatistics((10, 90))))
    values = np.arange(101, dtype=np.uint8)
    with pytest.raises(ModelMismatch, match=r"own_intensity\(lambda count: count\(values\), model"):
        _ = own.intensity
    with pytest.raises(ModelMismatch, match="by its own statistics"):
        Predictor(own, Execution())
    # As it says there.
    assert own.header.own is not None
    numbers = own_intensity(lambda count: count(values), own.header.own, values.dtype)
    assert (numbers.low, numbers.high) == (10, 90)
    assert numbers.mean == pytest.approx(values.clip(10, 90).mean())
    assert Predictor(own, Execution(), numbers).intensity == numbers


def test_a_loaded_network_is_ready_to_be_applied(good: Path) -> None:
    network = load_model(good).network
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in network.parameters())


def test_a_loaded_network_computes_what_the_saved_one_did(good: Path, network: Any) -> None:
    shape = ARCHITECTURE.input_for(ARCHITECTURE.smallest_output)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, *shape))).float()
    with torch.inference_mode():
        assert torch.equal(load_model(good).network(x), network.eval()(x))


def test_weights_of_another_precision_are_stored_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "double.safetensors"
    save_model(path, random_network(ARCHITECTURE).double())
    assert next(load_model(path).network.parameters()).dtype == torch.float32


def test_without_a_header_the_defaults_are_stored(tmp_path: Path, network: Any) -> None:
    path = tmp_path / "new" / "folder" / "plain.safetensors"
    save_model(str(path), network)
    assert read_header(str(path)) == ModelHeader(ARCHITECTURE)


def test_the_header_is_read_without_torch(good: Path) -> None:
    code = (
        f"from tilenet.inference.model_file import read_header; assert read_header({str(good)!r})"
    )
    assert "torch" not in modules_after(code)


def test_the_sha256_is_that_of_the_file(good: Path) -> None:
    assert model_sha256(good) == hashlib.sha256(good.read_bytes()).hexdigest()


def test_two_softmax_classes_store_one_probability() -> None:
    assert HEADER.stored_channels is None
    assert (HEADER.stored_outputs, HEADER.leading_shape) == (HEADER.outputs[1:], ())
    sigmoid = ModelHeader(
        ARCHITECTURE, outputs=tuple(OutputChannel(n, activation="sigmoid") for n in "ab")
    )
    assert sigmoid.stored_channels == ("a", "b")
    assert (sigmoid.stored_outputs, sigmoid.leading_shape) == (sigmoid.outputs, (2,))


def test_a_model_of_several_activations_is_refused() -> None:
    outputs = (OutputChannel("a", activation="linear"), OutputChannel("b", activation="sigmoid"))
    with pytest.raises(InvalidData, match="Output channels: have the activations linear, sigmoid"):
        ModelHeader(ARCHITECTURE, outputs=outputs)


# -- what cannot be a model --------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "nothing.safetensors", "does not exist or is not a file")


def test_a_folder(tmp_path: Path) -> None:
    refuse(tmp_path, "does not exist or is not a file")


def test_a_file_that_must_not_be_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_open(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse_to_open)
    refuse(good, "cannot be read: Permission denied")


@pytest.mark.parametrize("cut", ["0", "4", "8", "8 + n // 2", "8 + n", "8 + n + 10", "size - 1"])
def test_a_truncated_file(good: Path, tmp_path: Path, cut: str) -> None:
    raw = good.read_bytes()
    places = {"n": int.from_bytes(raw[:8], "little"), "size": len(raw)}
    path = tmp_path / "cut.safetensors"
    path.write_bytes(raw[: eval(cut, places)])
    refuse(path, "is not a safetensors file, or is truncated")


def test_a_file_with_something_behind_it(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(good.read_bytes() + b"more")
    refuse(path, "is not a safetensors file, or is truncated")


@given(raw=st.binary(max_size=200))
def test_random_bytes(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(raw)
    refuse(path, "is not")


def test_a_safetensors_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata={"format": "pt"})
    refuse(path, "is a safetensors file, but not of tilenet")


def _explode() -> NoReturn:
    raise AssertionError("the pickle was loaded")


class Bomb:
    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return _explode, ()


def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pickled.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    refuse(path, "is not a safetensors file")
    torch.save({"weight": torch.zeros(3)}, path)
    refuse(path, "is not a safetensors file")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore")  # of PyTorch's own ways of writing, some of them old
def test_models_of_pytorch_are_called_by_their_names(tmp_path: Path) -> None:
    layer, x = torch.nn.Conv2d(1, 1, 3).eval(), torch.zeros(1, 1, 8, 8)
    path = tmp_path / "foreign.pt"
    torch.save(layer.state_dict(), path)
    refuse(path, r"but a PyTorch checkpoint \(.pt, .pth, .ckpt\), which is not read yet")
    torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=False)
    refuse(path, r"but a pickle, as old PyTorch checkpoints are \(.pt, .pth\), which is not read")
    torch.jit.save(torch.jit.trace(layer, x), str(path))  # type: ignore[no-untyped-call]
    refuse(path, "but a TorchScript model, which is not read yet")
    torch.jit.save(torch.jit.script(layer), str(path))
    refuse(path, "but a TorchScript model, which is not read yet")
    torch.export.save(torch.export.export(layer, (x,)), path)
    refuse(path, r"but a program of torch.export \(.pt2\), which is not read yet")


#: How files of libraries that are not installed here begin: onnx 1.16 (ir_version 8, producer
#: "pytorch"), Keras 3, TensorFlow 2, bioimage.io 0.5.
FOREIGN = {
    "net.onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\xaf", "an ONNX model"),
    "net.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "net.h5": (b"\x89HDF\r\n\x1a\n" + bytes(88), "an HDF5 file, as Keras models are"),
    "net.tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "a TensorFlow Lite model"),
    "net.zip": (zipped("rdf.yaml", "weights.pt"), "a bioimage.io package"),
    "rdf.yaml": (b"format_version: 0.5.3\nweights:\n  onnx: {}\n", "a bioimage.io description"),
    "some.zip": (zipped("notes.txt"), "a zip file, as PyTorch, Keras and bioimage.io write"),
    "cut.pt": (zipped("a/data.pkl")[:40], "a zip file, .* and a broken one"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_others_are_called_by_their_names(tmp_path: Path, name: str) -> None:
    content, kind = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    refuse(tmp_path / name, f"is not a safetensors file, but {kind}.*, which is not read yet")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("saved_model.pb", "a TensorFlow SavedModel"), ("bioimageio.yaml", "a bioimage.io package")],
)
def test_folders_of_others_are_called_by_their_names(
    tmp_path: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"")
    refuse(tmp_path, f"but {kind}, which is not read yet")
    assert cli.run(["info", str(tmp_path)]) == 1
    assert f"but {kind}, which is not read yet" in capsys.readouterr().err


@pytest.mark.parametrize("length", [0x0280, 0x0580, 0x120808])
def test_a_safetensors_file_whose_length_looks_like_another_is_one(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "cut.safetensors"
    for rest in (b"", b'{"a":'):
        path.write_bytes(length.to_bytes(8, "little") + rest)
        refuse(path, "is not a safetensors file, or is truncated")


def test_a_good_file_is_loaded_without_pickle(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"),
                         (torch, "load")]:  # fmt: skip
        monkeypatch.setattr(module, name, lambda *args, **kwargs: _explode())
    assert load_model(good).header == HEADER


# -- headers that say what cannot be -----------------------------------------------------------


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = value

    return change


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a later format": (
        _set("format_version", value=3),
        "Format version: is 3, and this tilenet reads up to 2",
    ),
    "no format": (lambda v: v.pop("format_version"), "broken header.*format_version"),
    "no architecture": (lambda v: v.pop("architecture"), "broken header.*architecture"),
    "an unknown field": (
        _set("architecture", "kernals", value=[[1, 3, 3]] * 3),
        "kernals = .*unknown field; did you mean kernels",
    ),
    "an impossible kernel": (
        _set("architecture", "kernels", value=[[2, 2, 2]] * 3),
        "kernels must be odd",
    ),
    "other channels": (
        _set("architecture", "channels", value=[2, 2, 4]),
        r"has \d+ weights in \d+ tensors, but its architecture has \d+ in \d+",
    ),
    "a field of another kind": (_set("architecture", "convolutions", value=[2]), "broken header"),
    "one output too few": (
        lambda v: v["outputs"].pop(),
        "Output channels: are 1, but the network has 2",
    ),
    "an unknown activation": (_set("activation", value="relu"), "Activation 'relu': is unknown"),
    "a negative deviation": (_set("intensity", "std", value=-1.0), "std -1: is not positive"),
    "no mean": (_set("intensity", "mean", value=None), "broken header"),
    "a flat voxel": (_set("voxel_size", value=[50, 4]), "is not three positive numbers"),
    "a voxel of nothing": (_set("voxel_size", value=[50, 4, 0]), "is not three positive numbers"),
    "a record that is none": (_set("training", value="long"), "broken header"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_header(good: Path, tmp_path: Path, name: str) -> None:
    change, words = WRONG[name]
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(tampered(good, change))
    refuse(path, words)


def test_tampering_itself_breaks_nothing(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "same.safetensors"
    path.write_bytes(tampered(good, lambda values: None))
    assert read_header(path) == HEADER


def test_weights_whose_shapes_are_exchanged(good: Path, tmp_path: Path) -> None:
    # As many values under the same names, so that only their shapes can tell.
    tensors = {name: t.numpy() for name, t in load_model(good).network.state_dict().items()}
    name = next(name for name, t in tensors.items() if t.ndim == 5 and t.shape[0] != t.shape[1])
    tensors[name] = np.ascontiguousarray(tensors[name].swapaxes(0, 1))
    path = tmp_path / "exchanged.safetensors"
    save_file(tensors, path, metadata={"tilenet": HEADER.to_json()})
    with pytest.raises(InvalidModelFile, match="weights that do not fit") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_header_of_another_network_is_not_saved(tmp_path: Path, network: Any) -> None:
    path = tmp_path / "never.safetensors"
    with pytest.raises(InvalidData, match="another architecture than the network's"):
        save_model(path, network, ModelHeader(ARCHITECTURES["planar"]))
    assert list(tmp_path.iterdir()) == []


# -- replacing a file --------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(good.read_bytes())

    def fail(*args: object) -> None:
        raise OSError(f"no {step}")

    where: object = os if step == "fsync" else Path
    monkeypatch.setattr(where, step, fail)
    with pytest.raises(OSError, match=f"no {step}"):
        save_model(path, random_network(ARCHITECTURE, seed=9))
    assert path.read_bytes() == good.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saving_again_replaces_the_file(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(good.read_bytes())
    save_model(path, random_network(ARCHITECTURE, seed=9), HEADER)
    assert model_sha256(path) != model_sha256(good)
    assert read_header(path) == HEADER
