"""What the race counts and chooses by itself."""

from __future__ import annotations

import pytest

from benchmarks.peers.contestant import count_lines, middle
from benchmarks.peers.field import CONTESTANTS
from benchmarks.peers.loops import largest_tile, plain_bytes
from tilenet.architecture import UNetArchitecture
from tilenet.geometry import zyx

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
