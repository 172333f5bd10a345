"""Training: reading patches, deforming them, the loss, the loop, validation and going on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
