"""Seeing a run: its page beside Dask's own, metrics for Prometheus, and a report at the end.

``pass_state`` has what is known of one pass over blocks, on the flat ``block_map``; ``watch`` has a
whole run, and asks for its ``workers``. ``page`` serves them as ``page.html``, JSON,
``metrics_text`` and a ``picture`` of the blocks; ``report`` writes them beside the output.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
