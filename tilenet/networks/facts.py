"""What decides the last bits of a result beside model, input and plan: its names, compared.

The digest of a few fixed convolutions decides (:mod:`tilenet.inference.digest`): no API tells which
of its kernels oneDNN takes, and processors of one PyTorch capability can get different ones. The
names beside it explain. Two models of processor with one digest agree in all that was tried, and
may work together; what is stored then names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Raised by one by every change of our code that changes a bit of a stored value, from the same
#: input, plan and libraries. A version that changes none goes on with what an older one began.
#: Tests keep a digest per number of predictions and of weight maps; the ids of instances follow
#: from the masks alone. Of a training nothing tells but care: who changes its sums, raises this.
ARITHMETIC = 1

#: Where one of these differs, so may bits.
DECIDING = ("device", "torch", "cudnn", "arithmetic", "digest")

#: Those of them that outputs of version 0.1.0 do not state.
UNSTATED = ("cudnn", "arithmetic", "digest")

#: Environment variables that choose kernels or their precision. Stated where they are set.
VARIABLES = (
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip

#: What decides nothing by itself, and says why digests differ.
EXPLAINING = ("processor", *VARIABLES, "tilenet")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in DECIDING if one.get(name) != other.get(name)]


def explained(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Say what differs between two processes, and what may be the reason.

    Parameters
    ----------
    here, there : mapping

    Returns
    -------
    list of str
        "torch is '2.8', not '2.9'" for each deciding fact, and where the digest is one of them for
        each explaining one; empty where both compute the same bits.
    """
    names = differing(here, there)
    if not names:
        return []
    if "digest" in names:
        names += [name for name in EXPLAINING if here.get(name) != there.get(name)]
    return [_words(name, here.get(name), there.get(name)) for name in names]


def _words(name: str, here: Any, there: Any) -> str:
    if name == "digest":
        return f"its convolutions give other bits (digest {here}, not {there})"
    if here is None:
        return f"{name} is not set, and not {there!r}"
    return f"{name} is {here!r}, not {'unset' if there is None else repr(there)}"
