from .report import is_unfinished as is_unfinished
from .report import write_report as write_report
from .watch import Watch as Watch
from .watch import open_watch as open_watch
