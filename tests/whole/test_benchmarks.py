"""What the benchmarks count, choose and judge by themselves."""

from __future__ import annotations

import pytest

from benchmarks.bench_scale import GROWTH, RESUME_SECONDS, check
from benchmarks.peers.contestant import count_lines, middle
from benchmarks.peers.field import CONTESTANTS
from benchmarks.peers.loops import largest_tile, plain_bytes
from benchmarks.scale_cluster import Sample
from benchmarks.scale_paper import GPUS, Measured, petabyte
from benchmarks.scale_resume import Resume
from tilenet.geometry import zyx
from tilenet.networks import UNetArchitecture

GIB = 2**30


def _written(
    first: int,
    second: int,  # a comment beside code is no line less
) -> str:
    """Have a docstring.

    Of several lines.
    """
    import json

    # A comment.

    return f"""{first}
    {json.dumps(second)}
    """


def test_lines_are_those_that_hold_code() -> None:
    # Four of the signature, three of the text.
    assert count_lines(_written) == 7


def test_middle_is_as_far_from_both_ends() -> None:
    box = middle((1, 4096, 10), (1, 16, 3))
    assert (box.start, box.stop) == ((0, 2040, 3), (1, 2056, 6))
    assert middle((5, 6, 7), (5, 6, 7)).shape == (5, 6, 7)


def test_contestants_are_told_apart() -> None:
    assert len({contestant.name for contestant in CONTESTANTS}) == len(CONTESTANTS)
    assert CONTESTANTS[0].name == "tilenet"


@pytest.mark.parametrize("memory", [GIB, 2 * GIB, 4 * GIB])
def test_more_memory_allows_a_tile_of_fewer_operations(memory: int) -> None:
    law, shape = UNetArchitecture.volumetric(16), (256, 256, 256)

    def executed(tile: tuple[int, int, int]) -> int:
        counts = [-(-n // t) for n, t in zip(shape, tile, strict=True)]
        given = law.input_for(law.output_for(zyx(tile)))
        return counts[0] * counts[1] * counts[2] * law.evaluation(given).operations

    tile = largest_tile(law, shape, memory)
    assert plain_bytes(law, shape, tile) <= memory
    assert executed(largest_tile(law, shape, 2 * memory)) < executed(tile)


def _samples(**grown: int) -> list[Sample]:
    # Ten looks; what grows does so after a tenth of the blocks.
    parts = ("scheduler", "client", "workers")
    return [
        Sample(n, 100 * n, {p: 2**30 + (n > 1) * grown.get(p, 0) for p in parts}, {})
        for n in range(1, 11)
    ]


def test_a_scheduler_or_client_that_grows_fails_the_benchmark() -> None:
    check(_samples(scheduler=GROWTH * 2**20, client=GROWTH * 2**20, workers=2**40), [])
    for part in ("scheduler", "client"):
        with pytest.raises(AssertionError, match=f"the {part} grew by {GROWTH + 1} MiB"):
            check(_samples(**{part: (GROWTH + 1) * 2**20}), [])


def test_a_resume_that_takes_long_fails_the_benchmark() -> None:
    def found(shards: int, listing: float, command: float) -> Resume:
        return Resume(shards, shards, "warm", listing, listing, command, command, 0, 0)

    check([], [found(10**6, RESUME_SECONDS, RESUME_SECONDS)])
    check([], [found(2 * 10**6, 2 * RESUME_SECONDS, 2 * RESUME_SECONDS)])
    for slow in (found(10**6, RESUME_SECONDS + 1, 1), found(10**6, 1, RESUME_SECONDS + 1)):
        with pytest.raises(AssertionError, match=f"{RESUME_SECONDS + 1} s"):
            check([], [slow])


def test_a_petabyte_on_paper_follows_from_what_was_measured() -> None:
    figures = petabyte(10, Measured(scheduler=1e-3, client=5e-4, memory=1e8, listing=1e-6))
    assert figures["scheduler_hours"] == pytest.approx(figures["blocks"] * 1e-3 / 3600)
    assert figures["scheduler_hours"] == pytest.approx(2 * figures["client_hours"])
    assert figures["gpus_per_scheduler_at_that"] == pytest.approx(600 / 1e-3)
    assert figures["gpu_hours"] == pytest.approx(24 * GPUS * figures["days"])
