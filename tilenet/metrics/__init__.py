"""Figures that say how good a prediction is.

The five of ISBI 2012 for probabilities of interior, section by section; for instances the SEG
score of the Cell Tracking Challenge, the adapted Rand error of SNEMI3D and the variation of
information. Everything is summed from small tallies of sections or blocks, so that volumes of any
size can be judged piece by piece.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
