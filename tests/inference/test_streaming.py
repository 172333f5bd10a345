"""A network fed slab by slab against the same network given its whole input at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.networks.test_unet_architecture import architectures
from tests.support.oracles import ARCHITECTURES, integer_network, probabilities, random_network
from tilenet.geometry import ZYX, zyx
from tilenet.inference import Stream, StreamedNetwork, UNet
from tilenet.networks import (
    AxisLaw,
    UNetArchitecture,
    kept_values,
    live_values,
    slab_for,
    slabs,
    stream_axis,
)


def given_input(architecture: UNetArchitecture, output: ZYX, axis: int, seed: int = 0) -> Tensor:
    """Whole numbers of a legal input, of one section where the network takes one at a time."""
    shape = architecture.input_for(architecture.output_for(output))
    if architecture.is_planar and axis > 0:
        shape = zyx((1, *shape[1:]))
    values = np.random.default_rng(seed).integers(0, 4, (architecture.in_channels, *shape))
    return torch.from_numpy(values).double()


def pieces(network: UNet, x: Tensor, axis: int, slab: int | None) -> Iterator[Tensor]:
    """What a stream gives, piece by piece."""
    before = (slice(None),) * (1 + axis)
    return StreamedNetwork(network, axis).evaluate(
        lambda planes: x[(*before, planes)], x.shape[1 + axis], slab
    )


def streamed(network: UNet, x: Tensor, axis: int, slab: int | None) -> Tensor:
    """The same, put together."""
    with torch.inference_mode():
        return torch.cat(list(pieces(network, x, axis, slab)), dim=1 + axis)


@settings(max_examples=60)
@given(
    architectures(),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.integers(0, 2),
    st.one_of(st.none(), st.integers(1, 6)),
)
def test_any_network_fed_along_any_axis_by_any_slab_gives_the_same_bits(
    architecture: UNetArchitecture, output: ZYX, axis: int, units: int | None
) -> None:
    network = integer_network(architecture).double()
    x = given_input(architecture, output, axis)
    if x.numel() > 4e5:
        return  # seconds, and nothing new
    slab = None if units is None else units * architecture.alignment[axis]
    with torch.inference_mode():
        expected = network(x[None])[0]
    found = streamed(network, x, axis, slab)
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_is_within_1e_6_or_as_near_the_truth_as_the_one_pass_is(
    name: str, axis: int
) -> None:
    # The truth is the pass in float64. The two round differently, so each is compared with it.
    architecture = ARCHITECTURES[name]
    network = random_network(architecture)
    x = (given_input(architecture, (9, 24, 31), axis) - 1.5) / 1.1
    with torch.inference_mode():
        found = [
            streamed(network, x.float(), axis, n * architecture.alignment[axis]) for n in (1, 3)
        ]
        one_pass = probabilities(network(x.float()[None])[0].double().numpy())
        truth = probabilities(network.double()(x[None])[0].numpy())
    rounding = np.abs(one_pass - truth).max()
    assert rounding < 5e-6
    for scores in found:
        error = np.abs(probabilities(scores.double().numpy()) - truth).max()
        assert error < max(1e-6, 2 * rounding)
    assert np.ptp(truth) > 0.05, "the oracle must not be constant"


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_two_runs_of_one_plan_are_the_same_in_every_bit(precision: torch.dtype) -> None:
    architecture = UNetArchitecture.planar(8, 3, dropout=0.0)
    network = random_network(architecture).to(precision)
    x = given_input(architecture, (1, 100, 120), 1).to(precision)
    first = streamed(network, x, 1, 16)
    for _ in range(3):
        assert torch.equal(streamed(network, x, 1, 16), first)


def test_several_channels_in_and_out() -> None:
    architecture = UNetArchitecture.volumetric(2, 2, in_channels=2, out_channels=3, dropout=0.0)
    network = integer_network(architecture).double()
    x = given_input(architecture, (9, 12, 10), 2)
    with torch.inference_mode():
        assert torch.equal(streamed(network, x, 2, 8), network(x[None])[0])


def test_of_the_test_a_lost_plane_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = ARCHITECTURES["volumetric"]
    network = integer_network(architecture).double()
    x = given_input(architecture, (16, 12, 10), 0)
    whole = streamed(network, x, 0, None)
    honest = AxisLaw.crop
    monkeypatch.setattr(AxisLaw, "crop", lambda law, level: honest(law, level) - (level == 0))
    with pytest.raises(RuntimeError):  # the other axes do not fit any more
        streamed(network, x, 0, 4)
    monkeypatch.setattr(AxisLaw, "crop", honest)
    moved = streamed(network, torch.roll(x, 1, dims=1), 0, 4)
    assert not torch.equal(moved, whole)


@given(architectures(), st.integers(0, 2), st.integers(1, 9), st.integers(0, 5))
def test_slabs_cover_the_input_once_in_order_and_are_equal_but_for_the_ends(
    architecture: UNetArchitecture, axis: int, units: int, more: int
) -> None:
    law = architecture.laws[axis]
    size = law.smallest_output + more * law.alignment + 2 * law.halo
    slab = units * law.alignment
    found = list(slabs(law, size, slab))
    assert [n for piece in found for n in range(piece.start, piece.stop)] == list(range(size))
    assert all(piece.stop - piece.start == slab for piece in found[1:-1])
    assert all(0 < piece.stop - piece.start <= slab for piece in found)
    # No pooling has a remainder after a piece, once it was given more than the network's gain.
    assert all((piece.stop - law.gain) % law.alignment == 0 for piece in found)


def held_values(stream: Stream) -> int:
    """Count what a stream keeps, by looking."""
    convolutions = [c for level in (*stream._down, *stream._merge) for c in level]
    kept = [c.held for c in convolutions] + [pool.rest for pool in stream._pools]
    queued = [piece for skip in stream._skips for piece in skip.pieces]
    storages = {t.untyped_storage().data_ptr(): t for t in (*kept, *queued) if t is not None}
    return sum(t.untyped_storage().nbytes() // t.element_size() for t in storages.values())


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("name", ["volumetric", "anisotropic"])
def test_what_a_stream_keeps_does_not_grow_and_is_what_the_plan_counts(
    name: str, axis: int
) -> None:
    architecture = ARCHITECTURES[name]
    network = random_network(architecture)
    sizes = [20, 20, 20]
    sizes[axis] = 90
    x = given_input(architecture, zyx(sizes), axis).float()
    slab = 2 * architecture.alignment[axis]
    stream, kept = Stream(StreamedNetwork(network, axis)), []
    with torch.inference_mode():
        for piece in slabs(architecture.laws[axis], x.shape[1 + axis], slab):
            stream.feed(x[(*(slice(None),) * (1 + axis), piece)])
            kept.append(held_values(stream))
    assert set(kept[len(kept) // 2 : -1]) == {kept[-2]}, "it grows no more"
    shape = zyx(x.shape[1:])
    counted = live_values(architecture, shape, axis=axis, slab=slab)
    assert max(kept) < counted < 4 * max(kept)
    # Between two slabs; the first and the last slab in a queue may be used up.
    assert max(kept) < kept_values(architecture, shape, axis=axis, slab=slab) < counted
    longer = zyx(n + 400 * architecture.alignment[axis] * (i == axis) for i, n in enumerate(shape))
    assert live_values(architecture, longer, axis=axis, slab=slab) == counted


def test_the_longest_axis_is_streamed_but_never_z_of_sections() -> None:
    planar, cubic = ARCHITECTURES["planar"], ARCHITECTURES["volumetric"]
    assert stream_axis(planar, (900, 64, 80)) == 2
    assert stream_axis(planar, (900, 80, 80)) == 1
    assert stream_axis(cubic, (80, 64, 80)) == 0


@given(architectures(), st.integers(0, 10**6))
def test_a_slab_is_whole_alignments_within_the_limit(
    architecture: UNetArchitecture, values: int
) -> None:
    shape = architecture.input_for(architecture.output_for((30, 30, 30)))
    axis = stream_axis(architecture, shape)
    slab, unit = slab_for(architecture, shape, axis, values), architecture.alignment[axis]
    assert slab % unit == 0
    assert unit <= slab < shape[axis] + unit
    plane = architecture.channels[0] * shape[0] * shape[1] * shape[2] // shape[axis]
    assert slab == unit or slab * plane <= values


class Alive(TorchFunctionMode):
    """Counts the values that are alive at once of what PyTorch makes, without what was there."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.there = {tensor.untyped_storage().data_ptr() for tensor in there}
        self.made: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.made.append(weakref.ref(found))
        self.made = [made for made in self.made if made() is not None]
        tensors = [tensor for made in self.made if (tensor := made()) is not None]
        sizes = {
            tensor.untyped_storage().data_ptr():
            tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors
        }  # fmt: skip
        self.most = max(self.most, sum(n for place, n in sizes.items() if place not in self.there))
        return found


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_more_values_are_alive_at_once_than_the_plan_counts(name: str, axis: int) -> None:
    # The plan's own factor of safety lies outside of what is counted.
    architecture = ARCHITECTURES[name]
    sizes = [20, 20, 20]
    sizes[axis] = 90
    x = given_input(architecture, zyx(sizes), axis).float()
    slab = 4 * architecture.alignment[axis]
    streamed = StreamedNetwork(random_network(architecture), axis)
    weights = [tensor for layer in streamed.layers for tensor in (layer.weight, layer.bias)]
    stream, before = Stream(streamed), (slice(None),) * (1 + axis)
    counted = live_values(architecture, zyx(x.shape[1:]), axis=axis, slab=slab)
    with torch.inference_mode(), Alive(x, *weights) as alive:
        for piece in slabs(architecture.laws[axis], x.shape[1 + axis], slab):
            stream.feed(x[(*before, piece)])
    assert counted / 2 < alive.most <= counted
