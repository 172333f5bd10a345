"""What every worker of a run must have in common, and what to do where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed import Client

from pipelines.cluster import ask_workers, slurm_features
from tilenet.errors import InvalidData
from tilenet.inference import WorkerKind, worker_kind
from tilenet.networks import DECIDING, EXPLAINING, Execution, explained

#: Nodes that a message names.
NAMED = 8


def common_facts(client: Client, execution: Execution) -> dict[str, Any]:
    """Ask every worker what decides the last bits of its results; they must agree.

    They are those of :func:`tilenet.inference.predictor.numeric_facts`; what only explains, and
    differs, is listed.
    """
    answers: list[WorkerKind] = list(ask_workers(client, worker_kind, execution).values())
    kinds: dict[tuple[Any, ...], list[WorkerKind]] = {}
    for answer in answers:
        kinds.setdefault(tuple(answer.facts.get(name) for name in DECIDING), []).append(answer)
    if len(kinds) > 1:
        raise differ(sorted(kinds.values(), key=len, reverse=True))
    facts = dict(answers[0].facts)
    for name in EXPLAINING:
        found = {str(answer.facts.get(name, "unset")) for answer in answers}
        if len(found) > 1:
            facts[name] = " and ".join(sorted(found))
    return facts


def differ(kinds: Sequence[Sequence[WorkerKind]]) -> InvalidData:
    """Say what kinds of workers there are (most first), how they differ, and what selects one."""
    most, *others = kinds
    here = most[0].facts
    text = "; ".join(
        f"{_count(kind)}: {', '.join(explained(kind[0].facts, here))}" for kind in others
    )
    problem = f"are of {len(kinds)} kinds. {_count(most)} are alike. {text}"
    cure = f"One output comes from one kind of device and one set of versions: {_selection(kinds)}."
    return InvalidData("Workers", problem, cure)


def _count(kind: Sequence[WorkerKind]) -> str:
    nodes = sorted({answer.node for answer in kind})
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return f"{len(kind)} on {', '.join(nodes[:NAMED])}{more}"


def _selection(kinds: Sequence[Sequence[WorkerKind]]) -> str:
    # What selects the kind that most workers are of.
    nodes = [sorted({answer.node for answer in kind}) for kind in kinds]
    wanted, unwanted = nodes[0], [node for group in nodes[1:] for node in group]
    if not set(wanted).isdisjoint(unwanted):
        return "workers of one node differ, so make their environments alike"
    if all(answer.in_slurm for kind in kinds for answer in kind):
        return f"select one with --directive={slurm_selection(wanted, unwanted)}"
    return "let workers run on nodes of one kind only (--queue, --directive)"


def slurm_selection(wanted: Sequence[str], unwanted: Sequence[str]) -> str:
    """Give the option of sbatch that selects some nodes.

    A constraint on a feature that all wanted nodes have and no other; where there is none, the
    unwanted nodes are excluded.
    """
    nodes = [*wanted, *unwanted]
    features = dict.fromkeys(nodes, frozenset[str]()) | slurm_features(nodes)
    common = frozenset.intersection(*(features[node] for node in wanted))
    telling = common.difference(*(features[node] for node in unwanted))
    if telling:
        return f"--constraint={min(telling)}"
    return f"--exclude={','.join(unwanted)}"
