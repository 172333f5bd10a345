"""Training: reading patches, deforming them, the loss, and the loop.

==============  ==================================================================
``recipe``      every parameter, its default and the source of the default
``volumes``     what is trained on
``statistics``  one pass over it
``sampling``    patches: position, reading, deformation, reading ahead
``loop``        loss, learning rate, updates
``validation``  loss and errors on a held-out box
``checkpoints`` going on after an interruption
==============  ==================================================================
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
