"""Exact U-Net segmentation of electron-microscopy volumes of any size.

What one worker computes. The names below are the public ones; they load on first use, so that
``import tilenet`` costs neither PyTorch nor Zarr.
"""

import lazy_loader

from tilenet._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
