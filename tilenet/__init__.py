"""Exact U-Net segmentation of electron-microscopy volumes of any size.

What one worker computes. The names below are the public ones; they load on first use, so that
``import tilenet`` costs neither PyTorch nor Zarr.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilenet.architecture import UNetArchitecture
    from tilenet.checkpoint import Model, load_model, save_model
    from tilenet.geometry import Box
    from tilenet.intensity import Intensity
    from tilenet.unet import UNet
    from tilenet.volume import Volume, open_volume

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Intensity",
    "Model",
    "UNet",
    "UNetArchitecture",
    "Volume",
    "load_model",
    "open_volume",
    "save_model",
]

_HOME = {
    "Box": "geometry",
    "Intensity": "intensity",
    "Model": "checkpoint",
    "UNet": "unet",
    "UNetArchitecture": "architecture",
    "Volume": "volume",
    "load_model": "checkpoint",
    "open_volume": "volume",
    "save_model": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tilenet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tilenet.{_HOME[name]}"), name)
