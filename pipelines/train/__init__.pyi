from .command import run_training as run_training
from .training_options import TrainingOptions as TrainingOptions
