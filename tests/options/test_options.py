"""Options as users write them."""

from __future__ import annotations

import click
import pytest

from pipelines.options import BOX, REGION, region_box
from tilenet.errors import RegionOutside
from tilenet.geometry import Box

SHAPE = (10, 20, 30)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1:2,3:4,5:6", Box((1, 3, 5), (2, 4, 6))),
        ("x=5:6, z=1:2 ,y=3:4", Box((1, 3, 5), (2, 4, 6))),
        ("z=1:2", Box((1, 0, 0), (2, 20, 30))),
        ("x=5:,y=:4", Box((0, 0, 5), (10, 4, 30))),
        (":,:,29:", Box((0, 0, 29), SHAPE)),
    ],
)
def test_what_a_region_leaves_out_is_all_of_it(text: str, box: Box) -> None:
    assert region_box(REGION.convert(text, None, None), SHAPE) == box


@pytest.mark.parametrize("text", ["z=3:3", "z=:11", "z=10:", "z=5:4"])
def test_a_region_that_is_empty_or_leaves_the_volume_is_refused(text: str) -> None:
    with pytest.raises(RegionOutside):
        region_box(REGION.convert(text, None, None), SHAPE)


@pytest.mark.parametrize("text", ["", "1:2", "z", "z=", "z=1", "z=1:2:3", "z=-1:2", "1:2,3:4"])
def test_what_is_no_region_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not three|is not a range"):
        REGION.convert(text, None, None)


def test_a_box_needs_every_axis_and_end() -> None:
    assert BOX.convert("z=1:2,y=3:4,x=5:6", None, None) == ((1, 2), (3, 4), (5, 6))
    for text in ("z=1:2", "1:2,3:4,5:"):
        with pytest.raises(click.BadParameter):
            BOX.convert(text, None, None)
