"""Bad bytes: whatever is in a file, it is read or refused with a message, and nothing else happens.

Longer runs: ``python -m tests.fuzz --cases 100000 --seed 7``.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.engine import run
from tests.fuzz.targets import TARGETS

#: What is said of each trap.
TRAPS = {
    "crash": "the process died",
    "hang": "silent for",
    "stumble": "KeyError: 'shape'",
    "ramble": "a message of",
    "allocate": "Unable to allocate",
    "swell": "MiB for a file",
    "escape": "changed something outside",
    "leave": "changed something outside",
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("cases", "seed"), [(10_000, 0), pytest.param(20_000, 1, marks=pytest.mark.long)]
)
def test_thousands_of_damaged_files_are_read_or_refused(cases: int, seed: int) -> None:
    tally = run(cases, seed=seed)
    assert tally.defects == []
    assert tally.cases == cases
    never = {"rates"}  # what cannot be read of measured rates is measured again
    assert set(tally.refused) == TARGETS.keys() - never, "damage is seen, in files of every kind"
    assert tally.read.total() > cases / 10, "not every damage hides what is sound"


@pytest.mark.timeout(600)
def test_what_may_not_happen_is_found_out_and_put_down_to_its_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**40))  # as in workers: memory is kept
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(2**40))
    tally = run(len(TRAPS), seed=0, module="tests.fuzz.traps", looks=40)
    found = {defect.target: defect.problem for defect in tally.defects}
    assert found.keys() == TRAPS.keys()
    for name, words in TRAPS.items():
        assert words in found[name]


def test_the_same_seed_damages_in_the_same_way(tmp_path: Path) -> None:
    path, seen = tmp_path / "x.npy", []
    for _ in range(2):
        path.write_bytes(bytes(range(256)) * 4)
        TARGETS["NumPy"].damage(tmp_path, Random("3/x"))
        seen.append(path.read_bytes())
    assert seen[0] == seen[1] != bytes(range(256)) * 4
