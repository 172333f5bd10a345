"""What a network is, which sizes it takes, what it must see. Pure: the standard library only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
