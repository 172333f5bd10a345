from .command import SECTION_BYTES as SECTION_BYTES
from .command import run_evaluation as run_evaluation
from .comparison import Judgement as Judgement
from .metadata_checks import check_comparison as check_comparison
