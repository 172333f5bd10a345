"""A task over blocks: in this process, or on a Dask cluster that fails in parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
