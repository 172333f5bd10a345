from .command import run_training as run_training
from .job import TrainingOptions as TrainingOptions
