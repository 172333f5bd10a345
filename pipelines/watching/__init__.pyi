from .report import is_unfinished as is_unfinished
from .report import report_place as report_place
from .report import write_report as write_report
from .watch import Watch as Watch
from .watch import open_watch as open_watch
