"""The one door to Dask clusters.

:class:`ClusterOptions` says which one: worker processes on this machine, also one per GPU
(``local``); jobs of a queueing system (``jobs``, with their ``job_script`` and ``job_queue``); or a
scheduler that is running already (``joined``). Each queueing system has a file (``slurm``, ``lsf``,
``pbs``, ``sge``) of the form of ``queueing``, and ``systems`` lists them. ``from_profile`` makes it
out of a ``profile`` (a TOML file) and the command's options; ``lifetimes`` says when a job's
workers end; ``tls`` checks certificates; ``worker`` and ``worker_settings`` are what every worker
process of ours is given, ``nannies`` what ends those that never come up. ``scheduler_rpc`` waits
for no answer without an end, ``worker_states`` tells what runs where, and ``replacing`` ends
workers that hang.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
