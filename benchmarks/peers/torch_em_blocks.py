"""torch-em's ``predict_with_halo``, plain and pipelined: blocks that are read with their halo.

It crops the halo from what the network returns, so that has to be as large as the block with it.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers import arrays, same_size
from benchmarks.peers.contestant import Contestant, Run, Setting, timed
from tilenet.geometry import ZYX

#: Blocks, and how many are evaluated at once, by case. An operation costs the same in blocks of 512
#: and 1024 (86.6 and 87.4 GFLOP/s on one core), so these are the blocks of fewest operations of
#: which one is at hand for every core, within twice the memory that tilenet's plan takes.
SETTINGS = {
    "2d-16": Setting((1, 2048, 2048), 2),
    "2d-64": Setting((1, 1024, 1024), 2),
    "3d-16": Setting((128, 128, 256), 2),
    "2d-quick": Setting((1, 80, 80), 2),
    "3d-quick": Setting((24, 24, 24), 2),
}

# Declared operators live as long as this.
_declared: list[Any] = []


def predict(function: str, source: str, output: str, path: str, block: ZYX, threads: int) -> None:
    """Predict from Zarr to Zarr, several blocks at once."""
    model, raw = methods.load(path), arrays.opened(source)
    stored, network = arrays.created(output, raw.shape, block), same_size.Embedded(model, block)
    getattr(_prediction(), function)(
        raw,
        network,
        gpu_ids=["cpu"] * threads,
        block_shape=block,
        halo=network.halo,
        output=[(stored, 0)],
        preprocess=model.intensity.apply,
        disable_tqdm=True,
    )


def _prediction() -> Any:
    # PyPI's torchvision, which torch-em imports, does not load beside a build of PyTorch for CPUs
    # ("operator torchvision::nms does not exist"). Nothing of it is used here, so the two operators
    # that it asks for are declared, and it loads.
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declared.append(torch.library.Library("torchvision", "DEF"))  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            _declared[0].define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return importlib.import_module("torch_em.util.prediction")


def run(inputs: Inputs, output: str, setting: Setting, cores: int, *, function: str) -> Run:
    """Predict block by block, the cores shared by those that are evaluated at once."""
    torch.set_num_threads(max(1, cores // setting.at_once))
    cut = setting.kept, setting.at_once
    with timed(methods.load(inputs.model)) as watch:
        predict(function, inputs.source, output, inputs.model, *cut)
    return watch


def _contestant(name: str, title: str, function: str) -> Contestant:
    return Contestant(
        name=name,
        title=title,
        run=functools.partial(run, function=function),
        choose=lambda inputs, _: SETTINGS[inputs.case.name],
        code=(methods.load, same_size.pad, same_size.Embedded, predict),
        package="torch_em",
    )


CONTESTANTS = (
    _contestant("torch-em", "torch-em", "predict_with_halo"),
    _contestant("torch-em-pipelined", "torch-em, pipelined", "predict_with_halo_pipelined"),
)
