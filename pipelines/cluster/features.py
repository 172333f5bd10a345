"""What SLURM knows of nodes, to select those of one kind."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

#: Seconds that SLURM may take to answer.
SINFO_SECONDS = 20


def slurm_features(nodes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Ask SLURM for the features of nodes.

    Parameters
    ----------
    nodes : sequence of str
        Their names.

    Returns
    -------
    dict
        Features by node; empty where SLURM does not tell.
    """
    program = shutil.which("sinfo")
    if program is None:
        return {}
    command = [program, "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%f"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=SINFO_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:  # what is asked for is a hint, which a message lacks then
        return {}
    pairs = (line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line)
    return {node: frozenset(listed.split(",")) - {"(null)", ""} for node, listed in pairs}
