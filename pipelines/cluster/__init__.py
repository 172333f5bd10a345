"""The one door to Dask clusters.

:class:`ClusterOptions` says which one: worker processes on this machine, also one per GPU
(``local``); jobs of a queueing system (``jobs``, with ``job_script`` and ``job_queue``); or a
scheduler that is running already (``joined``). Each queueing system is a file of the form of
``queueing``. ``scheduler_rpc`` waits for no answer without an end.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
