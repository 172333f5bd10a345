"""The life of a block: in this process (``loop``), or on a Dask cluster (``blockwise``).

It waits in the backlog (``attempts``), is sent to the cluster (``in_flight``), and ends in the
outcome (``outcome``). One that fails returns to the backlog until its tries are spent, and is sent
elsewhere: away from workers it failed on (``suspects``, ``unfit``). Its worker is watched
(``supervisor``) for hanging (``hangs``), dying (``deaths``) and the user's limits (``limits``).
When block after block fails, the run pauses and probes with one (``outages``). ``runner`` does all
this for a command, ``spooled`` keeps reports on disk, ``worker_agreement`` asks what workers are.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
