"""The network: the paper's figures, initialisation, dropout, and 2-D as 3-D."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.oracles import ARCHITECTURES, random_network
from tilenet.errors import IllegalSize
from tilenet.inference import UNet
from tilenet.networks import UNetArchitecture


def test_the_papers_network_in_torch() -> None:
    network = UNet(UNetArchitecture.planar()).eval()
    assert sum(p.numel() for p in network.parameters()) == 31_030_658
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


def test_a_planar_network_folds_sections_into_the_batch() -> None:
    network = random_network(ARCHITECTURES["planar"])
    x = torch.randn(2, 1, 3, 60, 64)
    with torch.inference_mode():
        together = network(x)
        alone = torch.stack([network(x[:, :, z]) for z in range(3)], dim=2)
    assert together.shape == (2, 2, 3, 20, 24)
    torch.testing.assert_close(together, alone)


def test_a_planar_network_equals_the_same_kernels_in_3d() -> None:
    planar = random_network(ARCHITECTURES["planar"])
    # A third level that is never reached: kernel 3 along z makes the class build Conv3d.
    solid = UNet(
        UNetArchitecture(
            channels=(2, 4, 8), kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3)), pools=((1, 2, 2),) * 2
        )
    ).eval()
    state = solid.state_dict()
    for name, value in planar.state_dict().items():
        if name.endswith("weight"):
            deep = state[name].shape[2] == 3
            target = torch.zeros_like(state[name])
            target[:, :, 1 if deep else 0] = value
            state[name] = target
        else:
            state[name] = value
    solid.load_state_dict(state)
    x = torch.randn(1, 1, 7, 60, 60)
    with torch.inference_mode():
        torch.testing.assert_close(solid(x), planar(x)[:, :, 2:-2], rtol=1e-4, atol=1e-5)


def test_weights_are_gaussian_with_variance_two_over_incoming_nodes() -> None:
    torch.manual_seed(0)
    network = UNet(UNetArchitecture.planar(32, 2))
    for layer in network.architecture.layers():
        if not layer.name:
            continue
        module = network.layers[layer.name.replace(".", "_")]
        incoming = layer.inputs * (1 if layer.kind == "up" else math.prod(layer.kernel))
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        if weight.numel() > 2000:
            assert weight.std().item() == pytest.approx(math.sqrt(2 / incoming), rel=0.1)
        assert not module.bias.any()  # type: ignore[operator]


def test_dropout_acts_at_the_end_of_the_contracting_path_and_in_training_only() -> None:
    torch.manual_seed(0)
    network = UNet(UNetArchitecture.planar(4, 2, dropout=0.5))
    x = torch.randn(1, 1, 60, 60)
    network.train()
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    calm = UNet(UNetArchitecture.planar(4, 2, dropout=0.0)).train()
    assert torch.equal(calm(x), calm(x))


def test_an_illegal_size_is_refused_before_any_convolution() -> None:
    with pytest.raises(IllegalSize, match="A network input of 61 along y"):
        random_network(ARCHITECTURES["planar"])(torch.zeros(1, 1, 61, 60))
