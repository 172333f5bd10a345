"""Foreign files, read box by box: TIFF, PNG, HDF5, NumPy, Zarr."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
