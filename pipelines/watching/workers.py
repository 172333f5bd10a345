"""What the scheduler knows of its workers, asked for now and then."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from pipelines.cluster import ask

#: Where the name of a task says which block it is for: see ``str(Box)``.
_START = re.compile(r"z=(\d+):\d+,y=(\d+):\d+,x=(\d+):\d+")

#: Workers that are told of one by one.
LISTED = 200


def list_workers(client: Client) -> list[dict[str, Any]]:
    """Ask the scheduler for its workers; of their tasks for those of this client."""
    workers: list[dict[str, Any]] = ask(client, client.run_on_scheduler, _asker(client.id))
    return workers


def _asker(client_id: str) -> Callable[..., list[dict[str, Any]]]:
    # A function of its own is sent as code: a scheduler of somebody else's may lack tilenet.
    def look(dask_scheduler: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": str(worker.name),
                "host": worker.host,
                "slots": worker.nthreads,
                "memory": worker.metrics.get("memory"),
                "memory_limit": worker.memory_limit,
                # A share of one core.
                "cpu": worker.metrics.get("cpu", 0.0) / 100,
                "running": [
                    str(task.key)
                    for task in list(worker.executing)
                    if any(who.client_key == client_id for who in task.who_wants or ())
                ],
            }
            for worker in list(dask_scheduler.workers.values())
        ]

    return look


def running_blocks(workers: Sequence[dict[str, Any]]) -> list[tuple[int, ...]]:
    """Find the blocks that workers compute."""
    keys = (key for worker in workers for key in worker["running"])
    found = (_START.search(key) for key in keys)
    return [tuple(int(n) for n in match.groups()) for match in found if match]


def summarise(workers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    listed = [{**worker, "running": len(worker["running"])} for worker in workers[:LISTED]]
    return {
        "count": len(workers),
        "slots": sum(worker["slots"] for worker in workers),
        "running": sum(len(worker["running"]) for worker in workers),
        "memory": sum(worker["memory"] or 0 for worker in workers),
        "list": listed,
    }
