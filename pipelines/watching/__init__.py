"""Seeing a run: its page beside Dask's own, metrics for Prometheus, and a report at the end.

``figures`` has what is known of one pass over blocks, on the flat ``block_map``; ``watch`` has a
whole run, and asks for its ``workers``. ``page`` serves them as ``page.html``, JSON,
``metrics_text`` and a ``picture`` of the blocks; ``report`` writes them beside the output.
"""

from pipelines.watching.report import is_unfinished, report_place, write_report
from pipelines.watching.watch import Watch, open_watch

__all__ = ["Watch", "is_unfinished", "open_watch", "report_place", "write_report"]
