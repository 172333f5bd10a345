"""The training loop: one patch after another, weighted cross-entropy, an update per batch.

Ronneberger et al. 2015: batch size 1 with large patches, stochastic gradient descent with momentum
0.99, cross-entropy weighted voxel by voxel. The loss of a patch is divided by the sum of its
weights, as in the authors' later code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tilenet.errors import TrainingDiverged
from tilenet.inference import UNet, keep_freed_memory
from tilenet.training.recipe import Optimization
from tilenet.training.sampling import Patch, Patches, Prefetch

#: Decay of the moments of AdamW.
ADAM_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together.

    Parameters
    ----------
    rank, count : int
        Number of the process, from 0, and how many there are.
    """

    rank: int = 0
    count: int = 1

    def any(self, flag: bool) -> bool:
        """Tell whether any process says yes; all of them have to ask."""
        return bool(self.mean(torch.tensor(float(flag))))

    def mean(self, value: Tensor) -> Tensor:
        """Average a number over the processes; all of them have to ask."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        total = value.clone()
        dist.all_reduce(total)
        return total / self.count


#: A process that trains alone.
ALONE = Ranks()


@dataclass
class State:
    """What a training has reached.

    Parameters
    ----------
    network : UNet
        Changed in place.
    optimizer : torch.optim.Optimizer
    step : int, updates done
    """

    network: UNet
    optimizer: torch.optim.Optimizer
    step: int = 0


@dataclass(frozen=True)
class Step:
    """What an update says of itself.

    Parameters
    ----------
    done : int, updates
    loss, rate, waiting : float
        Mean over the patches of all processes, learning rate, and the share of the time so far that
        the loop waited for patches.
    empty : float
        Share of the patches of which no voxel counts: ignored, or of weight 0. Their loss is 0.
    """

    done: int
    loss: float
    rate: float
    waiting: float
    empty: float = 0.0


def make_state(network: UNet, optimization: Optimization) -> State:
    """Begin a training.

    Parameters
    ----------
    network : UNet, on its device
    optimization : Optimization

    Returns
    -------
    State
        No update done.
    """
    # Not channels-last, as a prediction is: on CPUs the gradients of the weights would take up to
    # three times as long (measured).
    keep_freed_memory()
    parameters = network.parameters()
    optimizer: torch.optim.Optimizer
    height, decay = optimization.height, optimization.weight_decay
    if optimization.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, height, ADAM_BETAS, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(parameters, height, optimization.inertia, weight_decay=decay)
    return State(network, optimizer)


def learning_rate(optimization: Optimization, step: int) -> float:
    warm = round(optimization.warm_up * optimization.steps)
    if step < warm:
        return optimization.height * (step + 1) / warm
    if optimization.schedule == "constant":
        return optimization.height
    passed = (step - warm) / max(1, optimization.steps - warm)
    return optimization.height * 0.5 * (1 + float(np.cos(np.pi * passed)))


def weighted_loss(scores: Tensor, patch: Patch) -> Tensor:
    """Give the weighted cross-entropy of a patch.

    sum(weight x -log p(class)) / sum(weight), Ronneberger et al. 2015, equation 1; 0 where all
    voxels are ignored.
    """
    losses = functional.cross_entropy(scores.float(), patch.classes, reduction="none")
    total = patch.weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
    return (patch.weights * losses).sum() / total


def train(
    state: State, patches: Patches, *, optimization: Optimization, ranks: Ranks = ALONE
) -> Generator[Step, None, None]:
    """Train until the recipe's number of updates is reached, or the caller stops asking.

    Sample ``(step x batch + i) x processes + rank`` is the i-th of a process: two processes of
    batch 1 see what one of batch 2 sees.

    Parameters
    ----------
    state : State
        Changed in place.
    patches : Patches
    optimization : Optimization
        That of the patches' recipe: one seed draws patches and dropout.
    ranks : Ranks
        This process among those that train together.

    Yields
    ------
    Step
        After every update.

    Raises
    ------
    TrainingDiverged
        When the loss or a gradient is not finite; the update is not made.
    """
    first, last = state.step * optimization.batch, optimization.steps * optimization.batch
    indices = [i * ranks.count + ranks.rank for i in range(first, last)]
    ahead = Prefetch(patches, indices)
    samples = iter(ahead)
    model = _distributed(state.network, ranks)
    device = next(state.network.parameters()).device
    state.network.train()
    start = time.perf_counter()
    while state.step < optimization.steps:
        rate = learning_rate(optimization, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        sums = torch.zeros(2, device=device)  # losses, and patches of which no voxel counts
        for i in range(optimization.batch):
            sample = next(samples)
            _seed_dropout(optimization.seed, sample.index)
            together = i == optimization.batch - 1 or ranks.count == 1
            with contextlib.nullcontext() if together else model.no_sync():  # type: ignore[operator]
                sums += _backward(model, patches.augmented(sample, device), optimization)
        loss, empty = ranks.mean(sums)
        _update(state, loss, optimization)
        waiting = ahead.waited / (time.perf_counter() - start)
        yield Step(state.step, float(loss), rate, waiting, float(empty) / optimization.batch)


def _backward(model: nn.Module, patch: Patch, optimization: Optimization) -> Tensor:
    # Loss, and whether no voxel counted.
    device = patch.x.device.type
    precision = optimization.precision or ("bfloat16" if device == "cuda" else "float32")
    # bfloat16 has the range of float32, so the loss needs no scaling.
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        scores = model(patch.x)
    loss = weighted_loss(scores, patch) / optimization.batch
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.stack([loss.detach(), (patch.weights.sum() == 0).to(loss.dtype)])


def _update(state: State, loss: Tensor, optimization: Optimization) -> None:
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), optimization.gradient_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingDiverged(state.step, float(loss), float(norm))
    state.optimizer.step()
    state.step += 1


def _seed_dropout(seed: int, index: int) -> None:
    # By sample, so that a training that is resumed, or spread over processes, drops the same.
    torch.manual_seed(int(np.random.SeedSequence([seed, index, 1]).generate_state(1)[0]))


def _distributed(network: UNet, ranks: Ranks) -> nn.Module:
    if ranks.count == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network)


def pack(state: State) -> dict[str, Tensor]:
    tensors = {f"network.{name}": t for name, t in state.network.state_dict().items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        named: dict[str, Any] = {f"optimizer.{number}.{key}": t for key, t in values.items()}
        tensors.update({name: t for name, t in named.items() if isinstance(t, Tensor)})
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def unpack(state: State, tensors: dict[str, Tensor], step: int) -> None:
    """Put weights and optimizer back into a new state of the same recipe."""
    weights, moments = {}, dict[int, dict[str, Tensor]]()
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "network":
            weights[rest] = tensor
        else:
            number, _, key = rest.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
    state.network.load_state_dict(weights)
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = step
