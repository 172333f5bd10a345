"""The shape law, against the paper's figures and against real networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.oracles import ARCHITECTURES
from tilenet.errors import ArchitectureError, IllegalSize
from tilenet.geometry import ZYX, zyx
from tilenet.inference import UNet
from tilenet.networks import UNetArchitecture

PAPER = UNetArchitecture.planar()


@st.composite
def architectures(draw: st.DrawFn) -> UNetArchitecture:
    """Any small network: one to three poolings of one to three, kernels of one to five."""
    depth = draw(st.integers(1, 3))
    kernel = st.tuples(*[st.sampled_from((1, 3, 5))] * 3)
    pool = st.tuples(*[st.integers(1, 3)] * 3)
    return UNetArchitecture(
        channels=tuple(draw(st.lists(st.integers(1, 3), min_size=depth + 1, max_size=depth + 1))),
        kernels=tuple(draw(st.lists(kernel, min_size=depth + 1, max_size=depth + 1))),
        pools=tuple(draw(st.lists(pool, min_size=depth, max_size=depth))),
        convolutions=draw(st.integers(1, 2)),
        dropout=0.0,
    )


def square(architecture: UNetArchitecture) -> UNetArchitecture:
    """The same network with the kernels and poolings of y along x too."""
    kernels, pools = (
        tuple((z, y, y) for z, y, _ in triples)
        for triples in (architecture.kernels, architecture.pools)
    )
    return replace(architecture, kernels=kernels, pools=pools)


def test_the_papers_network_has_31_030_658_parameters() -> None:
    assert PAPER.parameter_count == 31_030_658


def test_the_papers_network_turns_572_into_388() -> None:
    assert PAPER.output_of((1, 572, 572)) == (1, 388, 388)
    assert PAPER.input_for((1, 388, 388)) == (1, 572, 572)


def test_the_papers_network_loses_92_on_every_side_and_aligns_to_16() -> None:
    assert PAPER.halo == (0, 92, 92)
    assert PAPER.alignment == (1, 16, 16)


def test_the_papers_network_runs_260_to_keep_256() -> None:
    assert PAPER.output_for((1, 256, 256)) == (1, 260, 260)


def test_the_papers_network_takes_1_47_megaflop_per_pixel() -> None:
    assert PAPER.operations_per_voxel == pytest.approx(1.47e6, rel=0.005)


@pytest.mark.parametrize(("kept", "factor"), [(68, 13.5), (132, 4.3), (260, 2.08), (516, 1.42)])
def test_overlap_in_3d_costs_what_the_design_says(kept: int, factor: float) -> None:
    network = UNetArchitecture.volumetric(64, 4)
    cost = network.evaluation(network.input_for((kept,) * 3)).operations
    assert cost / kept**3 / network.operations_per_voxel == pytest.approx(factor, rel=0.01)


def test_freiburgs_anisotropic_network_takes_their_tile() -> None:
    network = UNetArchitecture(
        channels=(32, 32, 64, 128, 256),
        kernels=((1, 3, 3),) * 2 + ((3, 3, 3),) * 3,
        pools=((1, 2, 2),) * 2 + ((2, 2, 2),) * 2,
    )
    assert network.output_of((44, 268, 268)) == (4, 84, 84)
    assert network.alignment == (4, 16, 16)


def test_an_illegal_input_names_the_axis_the_value_and_the_nearest() -> None:
    with pytest.raises(IllegalSize, match=r"570 along y .* 556 and 572"):
        PAPER.output_of((1, 570, 572))


def test_an_illegal_output_names_the_axis_the_value_and_the_nearest() -> None:
    with pytest.raises(IllegalSize, match=r"256 along x .* 244 and 260"):
        PAPER.input_for((1, 260, 256))


def test_a_tile_that_is_too_small_names_the_smallest() -> None:
    with pytest.raises(IllegalSize, match=r"100 along y .*: 188"):
        PAPER.output_of((1, 100, 188))


@settings(max_examples=60)
@given(architectures(), st.tuples(*[st.integers(1, 40)] * 3))
def test_the_network_takes_exactly_the_sizes_that_the_law_calls_legal(
    architecture: UNetArchitecture, size: ZYX
) -> None:
    legal = True
    try:
        expected = architecture.output_of(size)
    except IllegalSize:
        legal = False
    assert legal == _runs_without_remainder(architecture, size)
    if legal and math.prod(size) < 20_000:
        with torch.inference_mode():
            output = UNet(architecture)(torch.zeros(1, 1, *size))
        assert tuple(output.shape[2:]) == expected


def _runs_without_remainder(architecture: UNetArchitecture, size: ZYX) -> bool:
    # Follow every axis through the layers by hand.
    for axis in range(3):
        n = size[axis]
        for layer in architecture.layers():
            k = layer.kernel[axis]
            if layer.kind == "pool":
                if n % k:
                    return False
                n //= k
            elif layer.kind == "up":
                n *= k
            elif layer.kind == "conv":
                n -= k - 1
            if n < 1:
                return False
    return True


@settings(max_examples=60)
@given(architectures(), st.tuples(*[st.integers(1, 60)] * 3))
def test_output_for_is_the_smallest_legal_size(architecture: UNetArchitecture, kept: ZYX) -> None:
    output = architecture.output_for(kept)
    assert all(o >= k for o, k in zip(output, kept, strict=True))
    architecture.input_for(output)
    for axis in range(3):
        smaller = list(output)
        for size in range(kept[axis], output[axis]):
            smaller[axis] = size
            with pytest.raises(IllegalSize):
                architecture.input_for(zyx(smaller))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_receptive_field_is_what_the_network_reacts_to(name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = UNet(architecture).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.01)  # all positive: nothing cancels, no ReLU closes
    for axis in range(3):
        # Two periods along this axis, the smallest tile along the others: the axes are independent.
        kept = zyx(2 * a if i == axis else 1 for i, a in enumerate(architecture.alignment))
        x = torch.ones(1, 1, *architecture.input_for(architecture.output_for(kept))).double()
        reach = max(
            _extent(network, x, axis, phase) for phase in range(architecture.alignment[axis])
        )
        assert reach == architecture.receptive_field[axis]


def _extent(network: UNet, x: torch.Tensor, axis: int, phase: int) -> int:
    # Brighten one plane after another: which ones change the output voxel at this phase?
    position = tuple(phase if i == axis else 0 for i in range(3))
    with torch.inference_mode():
        base = network(x)[(0, 0, *position)]
        changed = []
        for plane in range(x.shape[2 + axis]):
            other = x.clone()
            other.select(2 + axis, plane).fill_(2.0)
            if network(other)[(0, 0, *position)] != base:
                changed.append(plane)
    return changed[-1] - changed[0] + 1


@settings(max_examples=30)
@given(architectures())
def test_operations_and_parameters_are_what_the_modules_have(
    architecture: UNetArchitecture,
) -> None:
    network = UNet(architecture)
    assert architecture.parameter_count == sum(p.numel() for p in network.parameters())
    counted = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal counted
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        transposed = isinstance(module, torch.nn.ConvTranspose2d | torch.nn.ConvTranspose3d)
        counted += 2 * weight.numel() * (inputs[0] if transposed else output)[0, 0].numel()

    for module in network.layers.values():
        module.register_forward_hook(count)
    size = architecture.input_for(architecture.smallest_output)
    with torch.inference_mode():
        network(torch.zeros(1, 1, *size))
    assert architecture.evaluation(size).operations == counted


def test_an_infinite_tile_costs_what_ever_larger_tiles_approach() -> None:
    network = UNetArchitecture.volumetric(2, 2)
    output = network.output_for((4000, 4000, 4000))
    cost = network.evaluation(network.input_for(output)).operations / math.prod(output)
    assert network.operations_per_voxel == pytest.approx(cost, rel=0.02)


def test_it_survives_json() -> None:
    for architecture in ARCHITECTURES.values():
        assert UNetArchitecture.from_dict(architecture.to_dict()) == architecture


def test_an_unknown_field_names_the_nearest_known() -> None:
    with pytest.raises(ArchitectureError, match="did you mean channels"):
        UNetArchitecture.from_dict({"chanels": [1, 2]})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("channels", (8,), "two levels"),
        ("channels", (8, 0, 8, 8, 8), "positive whole"),
        ("kernels", ((1, 3, 3),) * 4, "5"),
        ("kernels", ((1, 2, 2),) * 5, "odd"),
        ("pools", ((1, 2, 2),) * 5, "4"),
        ("pools", ((1, 2),) * 4, "three values"),
        ("dropout", 1.0, "probability"),
        ("convolutions", 0, "positive whole"),
        ("in_channels", 1.5, "positive whole"),
    ],
)
def test_an_impossible_network_is_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        UNetArchitecture(**{field: value})  # type: ignore[arg-type]
