from .geometry import Box as Box
from .inference import Model as Model
from .inference import UNet as UNet
from .inference import load_model as load_model
from .inference import save_model as save_model
from .networks import UNetArchitecture as UNetArchitecture
from .volumes import Intensity as Intensity
from .volumes import Volume as Volume
from .volumes import open_volume as open_volume

__version__: str

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
